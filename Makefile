# Two commands: `make run` starts something to play with, `make test` runs all tests. Each makes its own virtual
# environment in .venv, of the Python that PYTHON names: `PYTHON=python3.12 make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ECOSYSTEM := .venv-ecosystem
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: run test test-ecosystem check bench fuzz soak clean

run: $(VENV)/.run-$(VERSION)
	@exec $(BIN)/asgi-bridge dev asgi_bridge_apps:bridge --routes examples/playground/apisix.yaml

test: $(VENV)/.test-$(VERSION)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=97

# packages of others through gateway and runner, against plain ASGI and WSGI; in an environment of their own
test-ecosystem: $(ECOSYSTEM)/.ecosystem-$(VERSION)
	$(ECOSYSTEM)/bin/python -m pytest tests/ecosystem $(PYTEST)

check: $(VENV)/.check-$(VERSION)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test-$(VERSION)
	$(BIN)/python benchmarks/bench.py

# the property and fuzz tests, ten times as long
fuzz: $(VENV)/.test-$(VERSION)
	FUZZ_FACTOR=10 $(BIN)/python -m pytest tests/wire tests/test_differences.py tests/test_phases.py

# 100,000 calls, most of them failing, and what they leave behind; 20,000 through both phases, 64 at a time
soak: $(VENV)/.test-$(VERSION)
	LEAK_CALLS=100000 FUZZ_FACTOR=10 $(BIN)/python -m pytest $(PYTEST) \
		tests/server/test_leaks.py tests/test_fail_closed.py tests/test_phases.py -k "leave or local_variable"

clean:
	rm -rf $(VENV) $(ECOSYSTEM) build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.build

# One stamp for each set of extras and each Python; another Python than the environment's makes it anew.
$(VENV)/.run-$(VERSION): EXTRAS := dev,apps,fast
$(VENV)/.test-$(VERSION): EXTRAS := test
$(VENV)/.check-$(VERSION): EXTRAS := test,check
$(ECOSYSTEM)/.ecosystem-$(VERSION): EXTRAS := ecosystem
$(ECOSYSTEM)/.ecosystem-$(VERSION): VENV := $(ECOSYSTEM)
$(ECOSYSTEM)/.ecosystem-$(VERSION): BIN := $(ECOSYSTEM)/bin
$(VENV)/.run-$(VERSION) $(VENV)/.test-$(VERSION) $(VENV)/.check-$(VERSION) $(ECOSYSTEM)/.ecosystem-$(VERSION): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "asgi_bridge needs Python 3.11 or later, $(PYTHON) is $(VERSION)"; exit 1; }
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" || \
		{ rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { echo "no virtual environment: apt-get install python3-venv"; exit 1; }; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@
