# make demo: install and run the main job.  make test: install and run the tests.  Both need only Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo-out
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all mutants lint docs dist oldest newest clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/embstab demo $(DEMO)

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One BLAS thread for each process, as for the tasks of the library: small products wait for second ones.
test: lint
	OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-1} $(BIN)/python -m pytest -m "not long" $(WORKERS)

# What campaigns need besides: a server that speaks S3, the stores and indexes that the product writes to, the site's builder.
$(VENV)/.campaigns: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test-s3,icechunk,hnswlib,lancedb,docs]"
	touch $@

# Every test on this Python, then the short ones on every other one that is found; docs/long-tier.md says how it ended.
test-all: lint $(VENV)/.campaigns
	rm -f build/tests-*.xml
	$(BIN)/python benchmarks/long_tier.py docs/long-tier.md
	here=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	.ci/pythons | while read -r version python; do \
	  [ "$$version" != "$$here" ] || continue; \
	  echo "tests on Python $$version ($$python)"; \
	  $(MAKE) test PYTHON="$$python" VENV=".venv-$$version" \
	    WORKERS="$(WORKERS) --junitxml=build/tests-$$version.xml" || exit; \
	done
	$(BIN)/python benchmarks/long_tier.py docs/long-tier.md build

# Which changes to the mathematics the tests notice: every mutant; hours. docs/mutation.md says how a sample fared.
mutants: $(VENV)/.tested
	$(BIN)/python benchmarks/mutation.py

# The site, in build/site; a warning is an error. `make test-all` also runs every block of its pages.
docs: $(VENV)/.documented
	$(BIN)/mkdocs build --strict

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

# Wheel and sdist, in dist/, and the wheel tried in an environment of its own, away from this folder.
dist:
	.ci/dist "$(PYTHON)"

# The suite's core with the oldest versions that pyproject.toml allows; with the newest, pre-releases included (may fail).
oldest:
	.ci/bounds "$(PYTHON)" oldest

newest:
	-.ci/bounds "$(PYTHON)" newest

clean:
	rm -rf $(VENV) .venv-* $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
