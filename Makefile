.DEFAULT_GOAL := help
PYTHON ?= python3
ZOO := .venv/bin/zoo
DEMO ?= graf/cars32
MINUTES := --trainer.max_steps=-1 --trainer.callbacks+=callbacks.budget.Budget --trainer.callbacks.wall_seconds 360
RUN := runs/$(DEMO)
MACHINE ?= cpu
BENCHMARKED ?= $(patsubst %,%/cars32,cips3d eg3d giraffe graf pigan stylenerf stylesdf volumegan)
# Two processes of one thread each: on tensors as small as the tests', more threads wait more than they compute.
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadgroup

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@

install: .venv/installed ## make .venv with everything in it

# Threads that sleep while they wait: slower on two quiet cores, twice as fast beside another program (docs/speed.md).
demo: export OMP_WAIT_POLICY ?= PASSIVE
demo: .venv/installed ## train a small GRAF on procedural cars, score it, show it, rank it (ten minutes on two cores)
	$(ZOO) fit -c $(DEMO) $(MINUTES) --trainer.default_root_dir $(RUN)
	$(ZOO) bundle $(RUN)/checkpoints/last.ckpt $(RUN)/demo --experiment $(DEMO) --data "procedural cars" --license MIT
	$(ZOO) evaluate $(RUN)/demo --real datamodules.Cars --count 1000 --consistency 16
	$(ZOO) sample $(RUN)/demo --out $(RUN)/grid.png --seeds 0-3
	$(ZOO) sample graf-25min-seed0 --out $(RUN)/grid-trained-longer.png --seeds 0-3
	$(ZOO) orbit $(RUN)/demo --out $(RUN)/orbit.gif
	$(ZOO) leaderboard cars --metric fid-cars-none-1k --resolution 32 --condition own
	@echo "Images:   the demo's cars      $(RUN)/grid.png, $(RUN)/orbit.gif"
	@echo "          trained for 25 minutes $(RUN)/grid-trained-longer.png"
	@echo "          how they came about   $(RUN)/samples/"

test: .venv/installed ## run the tests (ten minutes on two cores with nothing else to do)
	$(PYTEST) -m "not slow and not gpu"

test-all: .venv/installed ## run the slow tests too
	$(PYTEST) -m "not gpu"

# cuBLAS repeats its sums bit for bit with this workspace.
test-gpu: .venv/installed ## run the tests that need a CUDA GPU, and print one JSON with all they found (ten minutes)
	CUBLAS_WORKSPACE_CONFIG=:4096:8 .venv/bin/python -m pytest -q -m gpu tests/test_gpu.py

lint: .venv/installed ## check format, style and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: .venv/installed ## put format and imports in order
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

leaderboard: .venv/installed ## write the generated tables of the documentation anew
	.venv/bin/python -c 'from zoo.leaderboard import update_pages; print(*update_pages() or ["up to date"])'

# Material for MkDocs prints an announcement otherwise.
site: export NO_MKDOCS_2_WARNING := 1
site: .venv/installed ## build the documentation into site/ (open site/index.html; for the search: python -m http.server -d site)
	.venv/bin/mkdocs build --strict --quiet -f docs/site/mkdocs.yml

benchmark: .venv/installed ## add the speed of all small recipes to benchmarks/MACHINE.csv; nothing else should run
	@for experiment in $(BENCHMARKED); do for work in render train; do \
		$(ZOO) benchmark $$experiment --work $$work --batch 8 --steps 5 --out benchmarks/$(MACHINE).csv || exit 1; \
	done; done
	$(MAKE) leaderboard

clean: ## remove .venv and what runs have made
	rm -rf .venv runs data site

.PHONY: help install demo test test-all test-gpu lint format leaderboard site benchmark clean
