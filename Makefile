# The commands of this project, the same for people and for CI. Needs git, make and Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
WORKERS ?= 2  # processes that run tests; most tests wait for a process of their own
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint format crash soak typecheck-tree

demo: .venv/demo.installed  ## set up, and run the demo: raw to analyzed, with its lineage
	$(BIN)/crucible-lineage demo

test: .venv/test.installed  ## set up, and run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: .venv/test.installed typecheck-tree  ## style, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typecheck $(BIN)/mypy -p crucible_lineage
	cd .typecheck && ../$(BIN)/lint-imports ../pyproject.toml

format: .venv/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crash: .venv/test.installed  ## killed before every single request, and run again
	CRASH_STEP=1 CRASH_KILLS=300 CRASH_SEEDS=50 $(BIN)/python -m pytest tests/crash --timeout 3600

SOAK_SECONDS ?= 900
SOAK_SEED ?= $(shell date +%s)

soak: .venv/test.installed  ## schedules every few seconds while workers, servers and watcher are killed at random
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) $(BIN)/python -m pytest tests/soak -s

# The package as it is once installed, tasks and flows inside: what type and import checkers have to see.
typecheck-tree:
	@rm -rf .typecheck && mkdir -p .typecheck/crucible_lineage
	@for part in crucible_lineage/*; do ln -s "../../$$part" ".typecheck/$$part"; done
	@ln -s ../../tasks .typecheck/crucible_lineage/tasks
	@ln -s ../../flows .typecheck/crucible_lineage/flows

.venv/demo.installed: requirements/demo.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where with: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --require-hashes -r requirements/demo.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

.venv/test.installed: requirements/test.txt pyproject.toml .venv/validators.installed
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where with: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --require-hashes -r requirements/test.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch .venv/demo.installed $@

# Others' checkers of what we export. Their pins are not ours, so they live beside; the context that the validator asks
# for is put into its cache, so that it works without network.
.venv/validators.installed: requirements/validators.txt tests/export/warm_validator.py
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where with: make PYTHON=/path/to/python3"; exit 1; }
	rm -rf .venv/validators
	$(PYTHON) -m venv .venv/validators
	.venv/validators/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/validators.txt
	.venv/validators/bin/python tests/export/warm_validator.py .venv/validators/http-cache
	touch $@
