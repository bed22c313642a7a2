# The commands of this project, the same for people and for CI. Needs git, make and Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
SCRIPTS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(SCRIPTS)
WORKERS ?= 4  # processes that run tests; most tests wait for a process of their own
PIP = -m pip install --quiet --disable-pip-version-check
UV = .venv/uv/bin/uv pip install --quiet
# $(call pinned,PYTHON,NAME): requirements/NAME.txt by uv, in seconds; by pip where only pip's settings know the index.
pinned = $(UV) --python $(1) --require-hashes -r requirements/$(2).txt || \
	$(1) $(PIP) --require-hashes -r requirements/$(2).txt
# $(call editable,PYTHON): this package.
editable = $(1) $(PIP) --no-deps --no-build-isolation -e .

TESTS ?= tests  # what `make test` and `make coverage` run

.PHONY: demo test test-fast test-alone lint format bench crash soak shapes on-prefect coverage docs map schema pictures dist wheel-demo release-tag test-lowest typecheck-tree

demo: .venv/demo.installed  ## set up, and run the demo: raw to analyzed, with its lineage
	$(BIN)/crucible-lineage demo

test: .venv/test.installed  ## set up, and run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

# Rooms of the library whose tests start few processes.
FAST = $(wildcard tests/test_[a-q]*.py tests/test_s*.py) $(addprefix tests/, core client fingerprint lineage \
	  provenance registration server/ingest watch web) \
	$(addprefix tests/pipeline/, bind declare functions logs processes)

test-fast:  ## the tests of the library's rooms alone, within two minutes
	$(MAKE) test TESTS="$(FAST)" WORKERS=2

test-alone:  ## up to eight tests that failed just now, again, with nothing beside them; their names are said
	$(BIN)/python -c 'import json, sys; failed = json.load(open(".pytest_cache/v/cache/lastfailed")); \
	  print("failed beside others, run again alone:", *failed, sep="\n  "); sys.exit(not 0 < len(failed) <= 8)'
	$(BIN)/python -m pytest --last-failed -v

lint: .venv/test.installed typecheck-tree  ## style, types, import arrows, workflows, BUDGET
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typecheck:examples:tests/contract $(BIN)/mypy -p crucible_lineage -m dataset_page $(patsubst examples/%.py,-m %,$(wildcard examples/*.py))
	cd .typecheck && ../$(BIN)/lint-imports ../pyproject.toml
	$(BIN)/actionlint .github/workflows/*.yml
	$(BIN)/python docs/budget.py

format: .venv/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/test.installed  ## the tables of docs/benchmarks.md, on this machine with nothing beside; the first takes minutes, all an hour
	for table in runs/table runs/distance queries/lineage runs/flows runs/growth runs/peers; do \
	  $(BIN)/python tests/benchmarks/$$table.py || exit 1; done

crash: .venv/test.installed  ## killed before every single request, and run again
	CRASH_STEP=1 CRASH_KILLS=300 CRASH_SEEDS=50 RANDOM_EDITS=70 CLAIM_HISTORIES=10000 WRITTEN_BACK_HISTORIES=200 \
	  $(BIN)/python -m pytest tests/crash tests/registration/test_claim_model.py tests/registration/test_written_back.py \
	  tests/pipeline/run/test_random_edits.py tests/pipeline/run/test_written_back_runs.py --timeout 3600

SOAK_SECONDS ?= 900
SOAK_SEED ?= $(shell date +%s)

soak: .venv/test.installed  ## schedules every few seconds while workers, servers and watcher are killed at random
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) $(BIN)/python -m pytest tests/soak -s

shapes: .venv/test.installed  ## shapes of flows, plain and converted, and how Prefect operates them; all, not a third
	CRUCIBLE_NIGHTLY=1 $(BIN)/python -m pytest tests/tasks/test_shapes.py \
	  tests/flows/deployed/test_converted.py -n 0

on-prefect: .venv/uv.installed  ## a fifth of the shapes, and what is relied on, with the newest Prefect 3, in build/prefect
	rm -rf build/prefect && $(PYTHON) -m venv build/prefect
	$(call pinned,$(ON_PREFECT),test)
	$(call editable,$(ON_PREFECT))
	$(UV) --python $(ON_PREFECT) --upgrade "prefect<4"
	$(ON_PREFECT) -m pytest tests/tasks/test_shapes.py tests/tasks/test_prefect_contracts.py -n 0
ON_PREFECT = build/prefect/$(SCRIPTS)/python

# All that is not named is as new as it was when the lowest Prefect was new, but for what came later at its lowest.
LATER = nano-crucible prov resvg-py rocrate
test-lowest: .venv/uv.installed  ## the contract, flows and rooms on the lowest of all that pyproject.toml names, in build/lowest
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	$(UV) --python $(ON_LOWEST) -e '.[demo,export,ingest]' -r requirements/lowest.in --resolution lowest-direct \
	  --exclude-newer 2025-12-20 $(LATER:%=--exclude-newer-package %=2026-11-01)
	$(ON_LOWEST) -m pytest -n 2 --dist loadgroup tests/contract tests/flows/test_prefect.py tests/tasks/test_dropin.py \
	  tests/tasks/test_prefect_contracts.py $(addprefix tests/, client core fingerprint lineage provenance registration server/ingest)
	$(ON_LOWEST) -m crucible_lineage demo --data build/lowest/data
ON_LOWEST = build/lowest/$(SCRIPTS)/python

coverage: .venv/test.installed  ## which branches the tests reach; a report, no gate
	rm -rf build/coverage && mkdir -p build/coverage
	-$(BIN)/python -m coverage run -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

docs: .venv/docs.installed typecheck-tree  ## the documentation as a site, build/site/index.html; broken links are errors
	$(BIN)/python docs/site/assemble.py build/docs
	NO_MKDOCS_2_WARNING=1 .venv/docs/$(SCRIPTS)/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml

map: .venv/test.installed typecheck-tree  ## rooms, floors and arrows of the package in numbers, and its drawn map
	$(BIN)/python docs/map --draw docs/images/architecture.svg

schema: .venv/test.installed  ## docs/commands.schema.json, from the types of what commands answer
	$(BIN)/python docs/commands_schema.py

pictures: .venv/test.installed  ## all pictures of README and docs; needs the data of the examples, and Chromium
	$(BIN)/python docs/pictures.py

dist: .venv/demo.installed  ## sdist, and the wheel built from it, in dist/
	rm -rf dist && mkdir -p dist
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")'
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

wheel-demo: dist  ## the wheel in an environment of its own, and the demo run from there
	rm -rf build/bare && $(PYTHON) -m venv build/bare
	$(BARE) install --require-hashes -r requirements/demo.txt
	$(BARE) install --no-deps dist/*.whl
	$(BARE) check
	cd build/bare && $(SCRIPTS)/crucible-lineage --version && $(SCRIPTS)/crucible-lineage demo --data data
BARE = build/bare/$(SCRIPTS)/python -m pip --quiet --disable-pip-version-check

release-tag: .venv/demo.installed  ## TAG names the version that the package has, and CHANGELOG.md has its section
	$(BIN)/python docs/release_tag.py "$(TAG)"

# The package as it is once installed, tasks and flows inside: what type and import checkers have to see.
typecheck-tree:
	@rm -rf .typecheck && mkdir -p .typecheck/crucible_lineage
	@for part in crucible_lineage/*; do ln -s "../../$$part" ".typecheck/$$part"; done
	@ln -s ../../tasks .typecheck/crucible_lineage/tasks
	@ln -s ../../flows .typecheck/crucible_lineage/flows

.venv/uv.installed: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where with: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) --upgrade --target .venv/uv --require-hashes -r requirements/uv.txt || echo "pip installs all"
	touch $@

.venv/demo.installed: requirements/demo.txt pyproject.toml .venv/uv.installed
	$(call pinned,$(BIN)/python,demo)
	$(call editable,$(BIN)/python)
	touch $@

.venv/test.installed: requirements/test.txt pyproject.toml .venv/validators.installed
	$(call pinned,$(BIN)/python,test)
	$(call editable,$(BIN)/python)
	touch .venv/demo.installed $@

# Others' checkers of what we export. Their pins are not ours, so they live beside; the context that the validator asks
# for is put into its cache, so that it works without network.
.venv/validators.installed: requirements/validators.txt tests/export/warm_validator.py .venv/uv.installed
	rm -rf .venv/validators
	$(PYTHON) -m venv .venv/validators
	$(call pinned,.venv/validators/$(SCRIPTS)/python,validators)
	.venv/validators/$(SCRIPTS)/python tests/export/warm_validator.py .venv/validators/http-cache
	touch $@

# What makes the documentation's pages; its pins are not ours either. The pages on commands and YAML come from the package.
.venv/docs.installed: requirements/docs.txt .venv/demo.installed
	rm -rf .venv/docs
	$(PYTHON) -m venv .venv/docs
	$(call pinned,.venv/docs/$(SCRIPTS)/python,docs)
	touch $@
