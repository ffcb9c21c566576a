// Plots as SVG: marks with labels that link to their rows, and lines.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 14, TOP = 26, BOTTOM = 42; // pixels around the field
const short = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

/** An SVG element with attributes and children. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Round numbers between two values. */
function ticks(low, high) {
  const found = [];
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

/** 1, 2 and 5 times the powers of ten between two values; of a narrow range, just round numbers. */
function logarithmicTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const step of [1, 2, 5]) found.push(step * 10 ** power);
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length < 3 ? ticks(low, high) : inside;
}

/** A scale from values to pixels, with a little room at both ends. */
function scale(values, from, to, wantsLog) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const log = Boolean(wantsLog) && low > 0;
  const [there, back] = log ? [Math.log, Math.exp] : [(value) => value, (value) => value];
  const room = (there(high) - there(low)) * 0.08 || (log ? 0.5 : Math.abs(high) * 0.1 || 1);
  [low, high] = [back(there(low) - room), back(there(high) + room)];
  const place = (value) => from + ((there(value) - there(low)) / (there(high) - there(low))) * (to - from);
  return { place, ticks: (log ? logarithmicTicks : ticks)(low, high) };
}

/** The field of a plot with its axes. */
function field(width, height, x, y) {
  const [right, bottom] = [width - RIGHT, height - BOTTOM];
  const across = scale(x.values, LEFT, right, x.log);
  const up = scale(y.values, bottom, TOP, y.log);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "plot", role: "group", "aria-label": `${y.title}; across: ${x.title}` });
  let last = -Infinity;
  for (const tick of across.ticks) {
    const place = across.place(tick);
    svg.append(draw("path", { class: "rule", d: `M${place} ${TOP}V${bottom}` }));
    if (place - last < 44) continue; // no room for its number
    last = place;
    svg.append(draw("text", { x: place, y: bottom + 16, "text-anchor": "middle" }, short(tick)));
  }
  for (const tick of up.ticks) {
    svg.append(draw("path", { class: "rule", d: `M${LEFT} ${up.place(tick)}H${right}` }));
    svg.append(draw("text", { x: LEFT - 6, y: up.place(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  svg.append(draw("rect", { class: "frame", x: LEFT, y: TOP, width: right - LEFT, height: bottom - TOP }));
  svg.append(draw("text", { class: "axis", x: 4, y: 14 }, y.title));
  svg.append(draw("text", { class: "axis", x: right, y: height - 6, "text-anchor": "end" }, x.title));
  return { svg, across: across.place, up: up.place };
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** Where a label of so many characters goes beside a mark: the first place that is free, or none. */
function beside(x, y, characters, taken, width) {
  const [long, high] = [characters * 6.2, 13];
  const places = [[8, 4, "start"], [-8, 4, "end"], [0, -9, "middle"], [0, 18, "middle"], [8, -8, "start"], [8, 16, "start"], [-8, -8, "end"], [-8, 16, "end"]];
  for (const [dx, dy, anchor] of places) {
    const left = x + dx - (anchor === "end" ? long : anchor === "middle" ? long / 2 : 0);
    const box = [left, y + dy - high + 3, left + long, y + dy + 3];
    if (left < LEFT || box[2] > width || taken.some((other) => overlap(box, other))) continue;
    taken.push(box);
    return { x: x + dx, y: y + dy, "text-anchor": anchor };
  }
  return null;
}

/**
 * Marks, each a link; `say` is called with the text of the one that is pointed at or has the focus.
 *
 * points: {x, y, error, label, text, href}; x, y: {title, log} of the axes.
 */
function scatter(width, points, x, y, say) {
  const height = Math.round(Math.min(400, Math.max(280, width * 0.62)));
  const reach = points.flatMap((point) => [point.y - (point.error ?? 0), point.y + (point.error ?? 0)]);
  const { svg, across, up } = field(width, height, { ...x, values: points.map((point) => point.x) }, { ...y, values: reach });
  const taken = points.map((point) => [across(point.x) - 6, up(point.y) - 6, across(point.x) + 6, up(point.y) + 6]);
  for (const point of [...points].sort((a, b) => a.x - b.x)) {
    const [left, top] = [across(point.x), up(point.y)];
    const link = draw("a", { href: point.href, "aria-label": point.text, class: "mark" });
    if (point.error) link.append(draw("path", { class: "error", d: `M${left} ${up(point.y - point.error)}V${up(point.y + point.error)}` }));
    link.append(draw("circle", { class: "target", cx: left, cy: top, r: 14 }), draw("circle", { cx: left, cy: top, r: 5 }));
    const place = beside(left, top, point.label.length, taken, width);
    if (place) link.append(draw("text", place, point.label));
    for (const event of ["focus", "pointerenter"]) link.addEventListener(event, () => say(point.text));
    svg.append(link);
  }
  return svg;
}

/** A line through points {x, y} in this order. */
function lines(width, points, x, y) {
  const { svg, across, up } = field(width, 240, { ...x, values: points.map((point) => point.x) }, { ...y, values: points.map((point) => point.y) });
  svg.append(draw("polyline", { class: "line", points: points.map((point) => `${across(point.x)},${up(point.y)}`).join(" ") }));
  for (const point of points) {
    const text = draw("title", {}, `${short(point.x)}: ${short(point.y)}`);
    svg.append(draw("circle", { class: "dot", cx: across(point.x), cy: up(point.y), r: 3 }, text));
  }
  return svg;
}
