# `make quickstart` and `make test` are all a newcomer needs; both make the environment first.
PYTHON ?= python3
VENV ?= .venv
ALL_EXTRAS := cpu,code,offline,report,serve,dev,docs
EXTRAS ?= $(ALL_EXTRAS)
RECIPE ?= quickstart
PLANNER ?= smollm2
REASONER ?= smollm2
OVERRIDES ?=
DATA := $(if $(filter quickstart,$(RECIPE)),sums --test 100,arithmetic)
export RSIM_HOME ?= $(CURDIR)/.rsim
export VERL_PLATFORM ?= cpu
BIN := $(VENV)/bin

# uv does not read pip's settings: hand its find-links on, without a folder that is not there, which uv refuses.
SET_LINKS := $(or $(UV_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null),$(PIP_FIND_LINKS))
FIND_LINKS := $(foreach place,$(SET_LINKS),$(if $(findstring ://,$(place)),$(place),$(wildcard $(place))))

# Without a folder of wheels, torch's CPU builds come from PyTorch's own index.
ifeq ($(strip $(FIND_LINKS)),)
export UV_TORCH_BACKEND ?= cpu
endif

# What is installed, each file checked by its hash; where there is no lock, what pyproject.toml allows.
PLATFORM := $(shell $(PYTHON) -c 'import sysconfig as s; print(s.get_platform() + "-py" + s.get_python_version())')
LOCK ?= $(if $(filter $(ALL_EXTRAS),$(EXTRAS)),$(wildcard locks/$(PLATFORM).txt))
UV_PIP = UV_FIND_LINKS="$(FIND_LINKS)" $(BIN)/uv pip

.PHONY: env lock audit quickstart sandbox browser test test-fast recipes two-nodes faults check docs screenshots clean

env: $(VENV)/.done

$(VENV)/.done: pyproject.toml locks/no-deps.txt $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-deps --only-binary :all: --require-hashes -r locks/no-deps.txt
ifneq ($(LOCK),)
	$(UV_PIP) install -q --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -b $(LOCK) -r $(LOCK)
	$(UV_PIP) install -q --python $(BIN)/python --no-deps -b $(LOCK) -e .
else
	@echo "Not locked: the newest versions that pyproject.toml allows, with the extras $(EXTRAS), on $(PLATFORM)"
	$(UV_PIP) install -q --compile-bytecode --python $(BIN)/python -e '.[$(EXTRAS)]'
endif
	touch $@

# Writes the locks anew. Versions stay where pyproject.toml allows them; `make lock UPGRADE=--upgrade` takes the newest.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV_PIP) compile -q --generate-hashes --python $(BIN)/python $(UPGRADE)
COMMA := ,
lock: env
	$(COMPILE) --no-deps locks/no-deps.in -o locks/no-deps.txt
	$(COMPILE) $(addprefix --extra ,$(subst $(COMMA), ,$(ALL_EXTRAS))) pyproject.toml -o locks/$(PLATFORM).txt

AUDITOR := pip-audit==2.10.1
# Asks OSV, by name and version, for known vulnerabilities of what the locks name; needs the internet.
audit: env
	$(BIN)/uv tool run $(AUDITOR) -s osv --disable-pip --require-hashes $(addprefix -r ,$(LOCK) locks/no-deps.txt)

quickstart: env
	$(BIN)/verl-rsim prepare-data $(DATA)
	$(BIN)/verl-rsim prepare-model $(PLANNER)
	$(BIN)/verl-rsim prepare-model $(REASONER)
	$(BIN)/verl-rsim train $(RECIPE) $(OVERRIDES)
	$(BIN)/verl-rsim export $(RSIM_HOME)/runs/$(RECIPE)
	$(BIN)/verl-rsim report $(RSIM_HOME)/runs/$(RECIPE)
	$(BIN)/verl-rsim summary $(RSIM_HOME)/runs/$(RECIPE)

# What programs are graded in; only root can install it.
SANDBOX := bubblewrap libseccomp2
sandbox:
	@command -v bwrap > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -qq --no-install-recommends -y $(SANDBOX); } || \
	  { echo "The tests grade programs in a sandbox: sudo apt-get install $(SANDBOX)" >&2; exit 1; }

# What the report and the server's page are opened in.
BROWSER := chromium chromium-driver
browser:
	@command -v chromedriver > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -qq --no-install-recommends -y $(BROWSER); } || \
	  { echo "The tests open pages in a browser: sudo apt-get install $(BROWSER)" >&2; exit 1; }

# A test process for each core, at most four, each with one thread: with more they would wait for one another.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Tests that start engines or whole jobs need the machine for themselves and run one at a time.
test: env sandbox browser
	$(PARALLEL) -m "not (e2e or engine)"
	$(BIN)/python -m pytest -m "e2e or engine"

# Unit tests alone: no engines, no browser, no sandbox; under three minutes on two cores.
test-fast: env
	$(PARALLEL) -m "not (e2e or engine or browser or sandbox or slow)"

# Every recipe for two steps with tiny models, an hour and more; `make recipes ONLY="tiny ablations/joint"` for some.
recipes: env sandbox
	$(BIN)/python benchmarks/every_recipe.py $(ONLY)
	@cat $(RSIM_HOME)/recipes/table.md

# A job over two Ray nodes, both on this machine.
two-nodes: env
	$(BIN)/verl-rsim prepare-data arithmetic
	$(BIN)/verl-rsim prepare-model tiny-qwen2
	$(BIN)/verl-rsim prepare-model tiny-llama
	$(BIN)/python benchmarks/two_nodes.py

# Every process of a job killed and stopped in every phase, hours; `make faults ONLY="'kill raylet, rollout' 'full disk, save'"`
# for some.
faults: env
	$(BIN)/verl-rsim prepare-data arithmetic
	$(BIN)/verl-rsim prepare-model tiny-qwen2
	$(BIN)/verl-rsim prepare-model tiny-llama
	$(BIN)/python benchmarks/faults/run.py $(RSIM_HOME)/faults $(ONLY)

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

docs: env
	$(BIN)/python docs/config_tables.py
	$(BIN)/sphinx-build --quiet --fresh-env --write-all --fail-on-warning --keep-going -c docs . build/docs

# The pictures of report and server's page in docs/images; needs no model.
screenshots: env browser
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf $(RSIM_HOME) build dist *.egg-info
