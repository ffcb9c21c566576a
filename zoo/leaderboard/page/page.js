// The leaderboard: tables, filters, images side by side, and the details of a row. `leaderboard` is in data.js.
// Texts come from csv files: they reach the page as text nodes and values of attributes, never as markup.
"use strict";

const { tables, rows, weights, published, drawn } = leaderboard;
const by = (id) => document.getElementById(id);

/** An element with attributes and children; what is null or undefined is left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

const number = (value) => value.toLocaleString("en");
const sizeOf = (table) => `${table.resolution}x${table.resolution}`;
const unique = (values) => [...new Set(values)];

/** Fill a select with [value, text] pairs. */
function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
}

// ---------------------------------------------------------------------------------------------------- images

let areStill = matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The turning object of some weights, or null where it was not drawn. */
function orbit(one) {
  if (!one.images.orbit) return null;
  const image = make("img", { class: "orbit", alt: `${one.name} from all sides`, width: 64, height: 64, loading: "lazy" });
  image.dataset.moving = `images/${one.images.orbit}`;
  image.dataset.still = `images/${one.images.still}`;
  image.src = areStill ? image.dataset.still : image.dataset.moving;
  return image;
}

function showMotion() {
  by("still").setAttribute("aria-pressed", areStill);
  for (const image of document.querySelectorAll("img.orbit"))
    image.src = areStill ? image.dataset.still : image.dataset.moving;
}

by("still").addEventListener("click", () => {
  areStill = !areStill;
  showMotion();
});

const darkness = matchMedia("(prefers-color-scheme: dark)");
let isDark = null; // as the system is, until somebody chooses

function showColours() {
  document.documentElement.style.colorScheme = isDark === null ? "" : isDark ? "dark" : "light";
  by("dark").setAttribute("aria-pressed", isDark ?? darkness.matches);
}

by("dark").addEventListener("click", () => {
  isDark = !(isDark ?? darkness.matches);
  showColours();
});
darkness.addEventListener("change", showColours);

// ---------------------------------------------------------------------------------------------------- the table

// Columns: key of a row, title, whether it is a number, and from which width of the page on it is shown.
const COLUMNS = [
  { key: "rank", title: "#", right: true },
  { key: "system", title: "System" },
  { key: "value", title: "Value", right: true },
  { key: "condition", title: "Condition", from: "tablet" },
  { key: "images_seen", title: "Images seen", right: true, from: "desk" },
  { key: "seconds", title: "Training", right: true, from: "tablet" },
  { key: "processor_seconds_per_image", title: "Time/image", right: true, from: "tablet" },
  { key: "parameters", title: "Parameters", right: true, from: "desk" },
  { key: "date", title: "Measured", from: "desk" },
];
const hasOrbits = weights.some((one) => one.images.orbit);
const filters = by("filters");
const sorting = { key: "rank", down: false };

function makeFilters() {
  const options = (key) => unique(tables.map((table) => table[key])).map((value) => [value, value]);
  const metrics = unique(tables.filter((table) => table.is_main).map((table) => table.metric));
  const others = unique(tables.map((table) => table.metric)).filter((metric) => !metrics.includes(metric));
  const group = (label, names) => make("optgroup", { label }, ...names.map((value) => make("option", { value }, value)));
  filters.metric.replaceChildren(
    group("Main metrics", metrics),
    ...(others.length ? [group("Other metrics", others)] : []),
    make("option", { value: "" }, "all"),
  );
  const conditions = leaderboard.conditions.filter((condition) => condition !== "none");
  fill(filters.condition, conditions.length ? conditions.map((name) => [name, `${name}, or none`]) : [["none", "none"]]);
  for (const key of ["dataset", "resolution", "cameras"]) fill(filters[key], [["", "all"], ...options(key)]);
  for (const select of filters.querySelectorAll("select")) if (select.options.length) select.options[0].defaultSelected = true;
}

/** The tables that the filters leave, each with the rows that they leave of it. */
function filtered() {
  const words = filters.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (table) =>
    ["metric", "dataset", "resolution", "cameras"].every(
      (key) => filters[key].value === "" || String(table[key]) === filters[key].value,
    ) && table.condition === filters.condition.value;
  const said = (row) => `${row.system} ${row.weights}`.toLowerCase();
  return tables
    .filter(fits)
    .map((table) => [table, table.rows.filter(([, id]) => words.every((word) => said(rows[id]).includes(word)))])
    .filter(([, members]) => members.length);
}

/** What a column is sorted by; null of rows without a value, which come last. */
const keyOf = ([rank, id]) => (sorting.key === "rank" ? rank : (rows[id][sorting.key] ?? null));

function compare(a, b) {
  const [left, right] = [keyOf(a), keyOf(b)];
  if (left === null || right === null) return (left === null) - (right === null);
  const order = typeof left === "number" ? left - right : String(left).localeCompare(String(right), "en");
  return sorting.down ? -order : order;
}

function showHead() {
  const heads = COLUMNS.map(({ key, title, right, from }) => {
    const isSorted = sorting.key === key;
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      Object.assign(sorting, { key, down: sorting.key === key && !sorting.down });
      showTable();
      by("table").tHead.querySelector("[aria-sort] button").focus();
    });
    const order = isSorted ? (sorting.down ? "descending" : "ascending") : null;
    return make("th", { scope: "col", "aria-sort": order, class: classOf(right, from) }, button);
  });
  if (hasOrbits) heads.splice(1, 0, make("th", { scope: "col" }, make("span", { class: "unseen" }, "Orbit")));
  by("table").tHead.replaceChildren(make("tr", {}, ...heads));
}

const classOf = (right, from) => [right && "right", from].filter(Boolean).join(" ") || null;
const textOf = (row, key) => row.texts[key] ?? String(row[key] ?? "");

function rowOf([rank, id]) {
  const row = rows[id];
  const cells = COLUMNS.map(({ key, right, from }) => {
    if (key !== "system") return make("td", { class: classOf(right, from) }, key === "rank" ? String(rank) : textOf(row, key));
    const name = make("small", {}, truncated(row));
    return make("th", { scope: "row" }, make("a", { href: `#row-${id}` }, row.system, make("br"), name));
  });
  if (hasOrbits) cells.splice(1, 0, make("td", { class: "picture" }, orbit(weights[row.weights_place])));
  const line = make("tr", { "data-row": id }, ...cells);
  line.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !String(getSelection())) line.querySelector("a").click();
  });
  return line;
}

/** The name of a row's weights, with what else makes its samples others. */
function truncated(row) {
  const name = weights[row.weights_place].name;
  return row.truncation === undefined || row.truncation === 1 ? name : `${name}, truncation ${row.truncation}`;
}

function showTable() {
  const found = filtered();
  const columns = COLUMNS.length + hasOrbits;
  showHead();
  for (const body of [...by("table").tBodies]) body.remove();
  for (const [table, members] of found) {
    const title = make("th", { scope: "rowgroup", colspan: columns }, table.title);
    by("table").append(make("tbody", {}, make("tr", { class: "title" }, title), ...[...members].sort(compare).map(rowOf)));
  }
  const count = found.reduce((sum, [, members]) => sum + members.length, 0);
  const column = COLUMNS.find(({ key }) => key === sorting.key).title;
  by("found").textContent = count
    ? `${number(count)} ${count === 1 ? "row" : "rows"} in ${found.length} ${found.length === 1 ? "table" : "tables"}, each sorted by ${column === "#" ? "rank" : column.toLowerCase()}.`
    : "No row is like that: set some filters to all, or reset them.";
}

// ---------------------------------------------------------------------------------------------------- plots

const axes = by("axes");
let width = 0; // that plots are drawn for [pixels]
const groupsOf = (of) => {
  const found = new Map();
  for (const table of tables.filter((table) => `${table.dataset} ${sizeOf(table)}` === of)) {
    const group = found.get(table.group) ?? { ...table, rows: new Set() };
    for (const [, id] of table.rows) group.rows.add(id);
    found.set(table.group, group);
  }
  return [...found.values()].sort((a, b) => b.is_main - a.is_main); // the others keep their order
};

function makeAxes() {
  const names = unique(tables.map((table) => `${table.dataset} ${sizeOf(table)}`));
  fill(axes.images, names.map((name) => [name, name]));
  const used = Object.entries(leaderboard.costs).filter(([key]) => weights.some((one) => key in one.costs));
  fill(axes.cost, used.map(([key, title]) => [key, title]));
  showGroups();
}

function showGroups() {
  const groups = groupsOf(axes.images.value);
  const option = (group) => [group.group, group.n_real === "" ? group.metric : `${group.metric}, ${number(group.n_real)} real images`];
  fill(axes.quality, groups.filter((group) => !group.of_objects).map(option));
  const objects = groups.filter((group) => group.of_objects && group.cameras);
  fill(axes.consistency, objects.map(option), objects.find((group) => group.metric.startsWith("psnr-"))?.group);
  showPlots();
}

const directed = (title, better, arrows) => `${title}, ${better} is better ${arrows[better]}`;
const ACROSS = { less: "←", more: "→" };
const UP = { less: "↓", more: "↑" };

/** A mark for each row of a group that there is a place across for. */
function marks(group, across) {
  return [...group.rows]
    .map((id) => ({ id, row: rows[id], one: weights[rows[id].weights_place] }))
    .filter(({ row }) => row.config)
    .map(({ id, row, one }) => {
      const place = across(row, one);
      const label = row.condition === "none" ? truncated(row) : `${truncated(row)}, ${row.condition}`;
      return place && { x: place.value, y: row.value, error: row.standard_error, label, href: `#row-${id}`, text: `${row.system}, ${label}: ${group.metric} ${textOf(row, "value")}, ${place.text}` };
    })
    .filter(Boolean);
}

function showPlots() {
  if (!width) return; // not laid out yet
  const groups = groupsOf(axes.images.value);
  const [quality, consistency] = [axes.quality.value, axes.consistency.value].map((key) => groups.find((group) => group.group === key));
  const cost = leaderboard.costs[axes.cost.value];
  const show = (place, points, x, y) => {
    const said = place.parentElement.querySelector(".said");
    said.textContent = "";
    if (points.length) place.replaceChildren(scatter(width, points, x, y, (text) => (said.textContent = text)));
    else place.replaceChildren(make("p", {}, "Nothing was measured by both."));
  };
  const up = quality && { title: directed(quality.metric, quality.better, UP) };
  const spent = (_, one) =>
    axes.cost.value in one.costs && { value: one.costs[axes.cost.value], text: `${cost}: ${short(one.costs[axes.cost.value])}` };
  show(by("against-cost"), quality ? marks(quality, spent) : [], { title: directed(cost, "less", ACROSS), log: true }, up);
  const other = (row) => {
    const alike = (id) => ["weights_place", "condition", "truncation"].every((key) => rows[id][key] === row[key]);
    const id = consistency && [...consistency.rows].find(alike);
    return id && { value: rows[id].value, text: `${consistency.metric} ${textOf(rows[id], "value")}` };
  };
  const across = consistency && { title: directed(consistency.metric, consistency.better, ACROSS) };
  show(by("against-consistency"), quality ? marks(quality, other) : [], across, up);
}

// ---------------------------------------------------------------------------------------------------- side by side

const withGrids = weights.map((one, place) => [place, one]).filter(([, one]) => one.images.grid);

function showBeside() {
  const chosen = ["left", "right"].map((side) => {
    const one = weights[by(side).value];
    by(`${side}-grid`).src = `images/${one.images.grid}`;
    by(`${side}-grid`).alt = `Samples ${drawn.seeds} of ${one.name} from ${drawn.views} sides, with their depths`;
    return one.source;
  });
  by("beside-command").textContent = `zoo sample ${chosen.join(",")} --seeds ${drawn.seeds} --views ${drawn.views} --out both.png`;
}

function makeBeside() {
  for (const element of document.querySelectorAll(".drawn")) element.hidden = !withGrids.length;
  if (!withGrids.length) return;
  const options = withGrids.map(([place, one]) => [place, `${one.name} (${one.system})`]);
  fill(by("left"), options);
  fill(by("right"), options, options[Math.min(1, options.length - 1)][0]);
  for (const side of ["left", "right"]) by(side).addEventListener("change", showBeside);
  showBeside();
}

// ---------------------------------------------------------------------------------------------------- details

const dialog = by("details");
const FACTS = [
  ["value", "Value"], ["condition", "Condition"], ["cameras", "Cameras"], ["n_fake", "Generated images or objects"],
  ["n_real", "Real images"], ["dataset_digest", "Data, sha256"], ["extractor_sha256", "Extractor, sha256"],
  ["truncation", "Truncation"], ["draws", "Draws"], ["seed", "Seed"], ["precision", "Precision"],
  ["hardware", "Machine"], ["images_seen", "Images seen in training"], ["seconds", "Training"],
  ["processor_seconds", "Processor time of training steps"], ["parameters", "Parameters"],
  ["seconds_per_image", "Time of an image"], ["processor_seconds_per_image", "Processor time of an image"],
  ["peak_memory_mib", "Memory"], ["commit", "Commit"], ["date", "Measured"], ["weights_sha256", "Weights, sha256"],
];

const definitions = (pairs) =>
  make("dl", {}, ...pairs.filter(([, text]) => text).map(([title, text]) => make("div", {}, make("dt", {}, title), make("dd", {}, text))));
const command = (text) => make("pre", { class: "command" }, make("code", {}, text));
const folded = (title, text) =>
  text && make("details", {}, make("summary", {}, title), make("pre", { tabindex: 0 }, make("code", {}, text)));

/** The curve of a training, a plot for each kind of score, over what it had taken. */
function curves(one) {
  if (!one.curve.length) return [make("p", {}, "No curve was recorded of this training.")];
  const clock = ["processor_seconds", "wall_seconds", "images_seen"].find((name) => name in one.curve[0]) ?? "iteration";
  const [title, unit] = clock.endsWith("seconds") ? [`${clock.replace("_seconds", "")} minutes of training`, 60] : ["images seen", 1];
  const scores = Object.keys(one.curve.at(-1)).filter((name) => name.startsWith("fid"));
  return scores.map((name) => {
    const points = one.curve.filter((row) => name in row).map((row) => ({ x: row[clock] / unit, y: row[name] }));
    return lines(Math.min(520, innerWidth - 64), points, { title }, { title: directed(name, "less", UP), log: true });
  });
}

function details(id) {
  const row = rows[id];
  const one = weights[row.weights_place];
  const [table, rank] = tables.flatMap((table) => table.rows.filter(([, name]) => name === id).map(([rank]) => [table, rank]))[0];
  const grid = one.images.grid && make("img", { src: `images/${one.images.grid}`, class: "grid", alt: `Samples of ${one.name} from ${drawn.views} sides, with their depths` });
  const others = tables.filter((other) => other.condition === table.condition).flatMap((other) =>
    other.rows.filter(([, name]) => name !== id && rows[name].weights_place === row.weights_place && rows[name].condition === row.condition)
      .map(([place, name]) => make("li", {}, make("a", { href: `#row-${name}` }, `${other.metric} ${textOf(rows[name], "value")}`), `, rank ${place} of ${other.rows.length}`)),
  );
  return [
    make("p", {}, `Rank ${rank} of ${table.rows.length}. ${table.title}.`),
    grid && make("figure", {}, grid, command(`zoo sample ${one.source} --seeds ${drawn.seeds} --views ${drawn.views} --out grid.png`)),
    make("h3", {}, "Measure it again"),
    row.again ? command(row.again) : make("p", {}, "The row does not say how it was measured."),
    make("h3", {}, "Training"),
    ...(row.config ? [...curves(one), command(`zoo fit -c ${row.config}`)] : [make("p", {}, "Images of a reference, no model.")]),
    make("h3", {}, "Facts"),
    definitions([
      ["Licence of the weights", one.licence],
      ["Data", one.data],
      ...FACTS.map(([key, title]) => [title, textOf(row, key)]),
    ]),
    folded("Config of the generator", one.config),
    folded(`Recipe ${row.config ?? ""}, as it is now`, one.recipe),
    others.length ? make("details", {}, make("summary", {}, `${others.length} other scores`), make("ul", {}, ...others)) : null,
  ].filter(Boolean);
}

/** Open the row that the address names, or close the details. */
function showRow() {
  const id = location.hash.startsWith("#row-") ? location.hash.slice(5) : "";
  if (!Object.hasOwn(rows, id)) return dialog.close();
  const row = rows[id];
  by("details-title").textContent = `${row.system}: ${row.metric} ${textOf(row, "value")}`;
  by("details-body").replaceChildren(...details(id));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

by("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // the ground beside it
dialog.addEventListener("close", () => {
  if (location.hash.startsWith("#row-")) history.replaceState(null, "", "#");
});

// ---------------------------------------------------------------------------------------------------- the page

function makePublished() {
  const heads = Object.keys(published[0] ?? {});
  const title = (head) => head[0].toUpperCase() + head.slice(1);
  by("papers").tHead.replaceChildren(make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, title(head)))));
  by("papers").tBodies[0].replaceChildren(
    ...published.map((line) => make("tr", {}, ...heads.map((head) => make("td", { "data-head": title(head) }, line[head] ?? "")))),
  );
}

makeFilters();
makeAxes();
makeBeside();
makePublished();
showTable();
showColours();
showMotion();
filters.addEventListener("input", showTable);
filters.addEventListener("reset", () => setTimeout(showTable)); // after the reset
filters.addEventListener("submit", (event) => event.preventDefault());
axes.addEventListener("change", (event) => (event.target === axes.images ? showGroups() : showPlots()));
new ResizeObserver(() => {
  const wide = by("against-cost").clientWidth;
  if (wide === width) return;
  width = wide;
  showPlots();
}).observe(by("against-cost"));
addEventListener("hashchange", showRow);
showRow();
