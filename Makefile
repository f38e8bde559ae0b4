# make run    the server, an embedded store and a live demo on http://127.0.0.1:8000
# make test   order and counts, and the page in a browser: what every commit passes, in a few minutes
# make test-all  that and the tests marked `full`: attacks in a browser, networks that fail, every fault, requests that are
#             made from the description, more seeds, more examples; under an hour. Both install what they need.
#             Neither looks at a clock: what is measured in seconds is a command of bench/, or `make kills`.
# make check  format, lint, types
# make soak   faults at random, MINUTES=10 of them
# make bench  this server beside others, in a few minutes; ARGUMENTS=--full for all of it
# make kills  kill -9 of the store, TIMES=50, of a primary, FAILOVERS=10, and of a worker that has READERS=2000
# make lock   the pinned requirements, from pyproject.toml; prints which are behind
# make docs   the pages of docs/ that are made from the code

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SERVE ?= --demo
MINUTES ?= 10
SEED ?=
TIMES ?= 50
FAILOVERS ?= 10
READERS ?= 2000
ARGUMENTS ?=
TESTS_AT_ONCE ?= 4

.PHONY: run test test-all check bench soak kills lock docs format packages all-packages
.DELETE_ON_ERROR:

run: $(VENV)/run
	$(BIN)/pushserver serve $(SERVE)

test: $(VENV)/dev packages
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder -m "not full"

test-all: $(VENV)/dev all-packages
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder --hypothesis-profile test-all --timeout 900

soak: $(VENV)/dev
	$(BIN)/python -m tests.faults.soak $(MINUTES) $(SEED)

kills: $(VENV)/dev
	$(BIN)/python -m tests.faults.kills $(TIMES) $(FAILOVERS) $(READERS)

bench: $(VENV)/run
	bench/compare $(ARGUMENTS)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/run
	$(BIN)/python -c 'from pushserver import settings; print(settings.markdown(), end="")' > docs/settings.md
	$(BIN)/python -c 'import json; from pushserver.web.openapi import frame_schema; print(json.dumps(frame_schema.schema(), indent=1))' > docs/frames.schema.json
	$(BIN)/python -c 'from pushserver.web.openapi import table; p = "docs/protocol.md"; s = table.insert(open(p).read()); open(p, "w").write(s)'
	$(BIN)/python -c 'from pushserver.server import exposition; p = "docs/metrics.md"; s = exposition.insert_families(open(p).read()); open(p, "w").write(s)'

lock:
	tools/lock

packages:
	tools/packages

all-packages:
	tools/packages all

# The package itself is installed last and without its dependencies: those come from the pinned files, checked by hash.
$(VENV)/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	$(PIP) --require-hashes -r requirements-dev.txt
	touch $@
