# Needs git, make and Python >= 3.11. `make help` tells what there is.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
ARGS ?=
# Bytecode, also where PYTHONDONTWRITEBYTECODE is set: the tests start some two thousand programs.
COMPILE = $(VENV)/bin/python -m compileall -q src tests supervisors
# In how many processes the tests run: they wait half of their time. `JOBS=` is for one, this one, as a debugger wants it.
JOBS ?= 4
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

# A .venv that does not run, is too old, or was made in another folder is made anew.
USABLE := $(shell "$(VENV)/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { [ ! -f "$(VENV)/.made" ] || [ "`cat "$(VENV)/.made"`" = "`pwd -P`" ]; } && echo yes)

##@ Use

.PHONY: run
run: $(VENV)/.run  ## the main job: the indexer tree over real files (ARGS="...")
	@$(VENV)/bin/suitkaise run supervisors/indexer.py $(ARGS)

##@ Check

.PHONY: test
test: $(VENV)/.dev-test  ## all tests except the long ones and the examples (ARGS="-k policy", JOBS= for one process)
	@$(COMPILE)
	$(VENV)/bin/python -m pytest $(if $(JOBS),-n $(JOBS)) $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.dev-test  ## the tests that start no process, in under two minutes (ARGS="-k policy")
	$(VENV)/bin/python -m pytest -m fast $(if $(JOBS),-n $(JOBS)) $(ARGS)

.PHONY: test-examples
test-examples: $(VENV)/.dev-test  ## the examples, and the blocks of the documentation
	@$(COMPILE)
	$(VENV)/bin/python -m pytest -m "example and not slow" $(if $(JOBS),-n $(JOBS)) $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.dev-test  ## faults put into the policy, which the tests must notice (ARGS="backoff")
	$(VENV)/bin/python -m tests.mutants $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.dev-test  ## the long tests
	@$(COMPILE)
	$(VENV)/bin/python -m pytest -m slow --timeout 1800 $(ARGS)

# The end-to-end tests of the rules know nothing of nodes: so they run there as they are.
RULES = $(wildcard tests/end_to_end/test_rules_*.py) $(patsubst %,tests/end_to_end/test_%.py, \
	administration_from_anywhere async_workers backoff blocked_asks bounded_mailboxes checkpoints concurrent_handlers \
	copies crash_reports dynamic_supervisors exit_reasons failed_significant_children hang_detection \
	links_and_monitors memory_limits messages messages_at_an_end nested_restarts restart_types_and_strategies \
	state_after_a_restart supervisor_failures ways_to_finish)

.PHONY: test-cluster
test-cluster: $(VENV)/.dev-test  ## the tests of the rules, with the processes of their trees on nodes (ARGS="-k s36"; on a cluster of Ray: ON=ray)
	@$(COMPILE)
	@$(if $(filter ray,$(ON)),$(PIP) install -e '.[ray]')
	$(VENV)/bin/python -m pytest --on-a-cluster=$(or $(ON),processes) \
		$(if $(filter ray,$(ON)),-n 0 --timeout 120,-n 2) $(RULES) $(ARGS)

.PHONY: test-ray
test-ray: $(VENV)/.dev-test  ## short tests on clusters of Ray, which is installed first (ARGS="-k killed"; the long ones: ARGS="-m ray")
	@$(PIP) install -e '.[ray]'
	$(VENV)/bin/python -m pytest -m "ray and not slow" -n 0 $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev-lint  ## style, format, import directions, spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell README.md CHANGELOG.md CONTRIBUTING.md docs src examples supervisors benchmarks

.PHONY: format
format: $(VENV)/.dev-lint  ## write the format that lint asks for
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

.PHONY: types
types: $(VENV)/.dev-types  ## mypy --strict, and whether the public types are complete
	$(VENV)/bin/mypy
	PATH="`cd $(VENV)/bin && pwd`:$$PATH" pyright --verifytypes suitkaise --ignoreexternal

.PHONY: docs
docs: $(VENV)/.dev-docs  ## the documentation, to docs/_build/html
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: check
check: lint types docs test test-examples  ## all of these

.PHONY: bench
bench: $(VENV)/.run  ## measure, side by side with what others do (ARGS="...")
	@for name in loop start restart storms messages dynamic storage selections output; do $(VENV)/bin/python benchmarks/$$name.py $(ARGS) || exit 1; done

##@ Rest

.PHONY: dev
dev: $(VENV)/.dev-test $(VENV)/.dev-lint $(VENV)/.dev-types $(VENV)/.dev-docs  ## install all tools into .venv

.PHONY: clean
clean:  ## remove .venv and everything that was made
	rm -rf "$(VENV)" build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*##/ {printf "  make %-13s %s\n", $$1, $$2}' Makefile

# --- .venv: a stamp file for each thing that is installed in it, so that a second call has nothing to do ---

$(VENV)/.made: $(if $(USABLE),,anew)
	@if [ -z "$(USABLE)" ]; then \
		[ -n "$(PYTHON)" ] || { echo "make: needs Python >= 3.11, and found none: name one with PYTHON=..." >&2; exit 1; }; \
		"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			|| { echo "make: $(PYTHON) is not Python >= 3.11: name one with PYTHON=..." >&2; exit 1; }; \
		"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
			|| { echo "make: $(PYTHON) cannot make a .venv (no ensurepip): install its venv package," \
				"e.g. python3-venv" >&2; exit 1; }; \
		echo "make: $(VENV) with `"$(PYTHON)" --version`"; \
		"$(PYTHON)" -m venv --clear "$(VENV)"; \
	fi
	@$(PIP) install --upgrade 'pip>=25.1'
	@pwd -P > $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "make: installing suitkaise into $(VENV)"
	@$(PIP) install --editable '.'
	@touch $@

$(VENV)/.dev-%: $(VENV)/.made pyproject.toml
	@echo "make: installing suitkaise and the tools for $* into $(VENV)"
	@$(PIP) install --editable '.[testing]' --group $*
	@touch $@ $(VENV)/.run

.PHONY: anew
anew:
