# Everything that a person or CI runs. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# As many tests at once as there are processors, and no more than eight; containers mostly wait.
PYTEST := $(BIN)/pytest -q --numprocesses=auto --maxprocesses=8
SEED ?= 1
# How often `make sim` cuts the power on each of four recordings of the log's writer.
IMAGES ?= 2500
# How many inputs `make fuzz` gives each of six readers; two that need the kernel get a tenth.
INPUTS ?= 200000
# How many writers of the log it kills, each at some one call.
KILLS ?= 200
# It turns over every byte of the log's files; with another STRIDE, one of so many.
STRIDE ?= 1

# How many histories of the service amid faults it simulates, beginning with SEED.
SEEDS ?= 3000
# How often `make soak` kills manager, worker or both at random moments.
KILLS_AT_RANDOM ?= 1000
# How often `make compare` asks sandtrail and others in each of three cases.
ROUNDS ?= 5

# Which Debian `make machine` makes a new machine of, and how often it cuts its power.
SUITE ?= bookworm
CUTS ?= 5

.PHONY: demo test lint unit bench sim fuzz soak promises compare machine golden setup clean

demo: setup
	$(BIN)/python scripts/demo.py

test: setup lint unit

setup: $(VENV)/.ready
	@sh scripts/system-packages.sh

$(VENV)/.ready: pyproject.toml scripts/venv.sh
	PYTHON=$(PYTHON) sh scripts/venv.sh $(VENV)
	@touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three runs: what the tracer of lines would slow down most covers nothing that the first does not.
# What is compiled need not be compiled by each of the thousands of processes that tests start,
# whatever PYTHONDONTWRITEBYTECODE says.
unit: $(VENV)/.ready
	$(BIN)/python -m compileall -q eventstore manager replay
	$(BIN)/coverage erase
	$(PYTEST) -m 'not runtime' --ignore=tests/simulation --ignore=tests/fuzz --cov --cov-report=
	$(PYTEST) tests/simulation tests/fuzz
	$(PYTEST) --numprocesses=4 -m runtime
	$(BIN)/coverage report --include='manager/domain/*,manager/schema/*' --fail-under=100
	$(BIN)/coverage report --include='eventstore/*,manager/urpc/*' --fail-under=95
	$(BIN)/coverage report --format=total

# Every test that the list of promises names, and as much of each as in `make test` or as variables
# of the environment say.
promises: setup
	$(PYTEST) -vv --timeout=3600 tests/fuzz \
		$$(grep -o 'tests/[a-z_/]*\.py' docs/reliability.md | sort -u)

compare: setup
	@sh scripts/system-packages.sh rivals
	$(BIN)/python -m benchmarks.compare_kills $(ROUNDS)

machine:
	@sh scripts/system-packages.sh machine
	$(PYTHON) scripts/new_machine.py --suite $(SUITE) --cuts $(CUTS) --seed $(SEED)

golden: $(VENV)/.ready
	$(BIN)/pytest -q tests/golden --update-golden

bench: setup
	@sh scripts/system-packages.sh rivals
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m compileall -q eventstore manager replay benchmarks
	$(BIN)/python -m benchmarks.bench_log
	$(BIN)/python -m benchmarks.bench_urpc
	$(BIN)/python -m benchmarks.bench_start
	$(BIN)/python -m benchmarks.bench_open
	$(BIN)/python -m benchmarks.bench_replay
	$(BIN)/python -m benchmarks.bench_follow

sim: $(VENV)/.ready
	SEED=$(SEED) SANDTRAIL_SEEDS=$(SEEDS) SANDTRAIL_IMAGES=$(IMAGES) SANDTRAIL_KILLS=$(KILLS) SANDTRAIL_FLIP_STRIDE=$(STRIDE) \
		$(BIN)/pytest -q tests/property tests/simulation --hypothesis-seed=$(SEED) --timeout=3600

fuzz: $(VENV)/.ready
	SEED=$(SEED) SANDTRAIL_FUZZ_INPUTS=$(INPUTS) $(BIN)/pytest -q tests/fuzz --durations=0 --timeout=3600

soak: setup
	SEED=$(SEED) SANDTRAIL_KILLS_AT_RANDOM=$(KILLS_AT_RANDOM) $(BIN)/pytest -q --timeout=600 \
		tests/integration/service/test_kill_soak.py tests/integration/service/test_kill_points.py

clean:
	rm -rf $(VENV) .demo .machine .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
