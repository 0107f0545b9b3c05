# `make help` lists the targets. Each makes its own virtual environment, of the Python that PYTHON names:
# `PYTHON=python3.12 make test`. Options for pytest: `make test PYTEST="-x tests/wire"`.

PYTHON ?= python3
PORT ?= 9080
WORKERS ?= auto
DIST ?= dist
VENV := .venv
BIN := $(VENV)/bin
PLAIN := .venv-plain
ECOSYSTEM := .venv-ecosystem
UVICORN := .venv-uvicorn
DOCS := .venv-docs
OLDEST_UVICORN := $(shell sed -n 's/^ *"uvicorn>=\([0-9.]*\),.*/\1/p' pyproject.toml)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# What the compiled core is made of: a change compiles it again.
CORE := setup.py asgi_bridge/compiled.py $(wildcard asgi_bridge/*/*.pyx asgi_bridge/*/*.pxd)
# With COVERAGE=1 the tests note which code they reach.
RUN_PYTEST := $(BIN)/$(if $(COVERAGE),coverage run,python) -m pytest
# What runs through the compiled core.
OF_CORE := tests/adapter tests/plugins tests/server tests/replay tests/recording tests/alike tests/test_phases.py

# What is about servers and clients, which differ with the parser and the event loop that uvicorn finds.
OF_SERVERS := tests/server tests/gateway tests/replay/test_gateway.py tests/alike tests/wsgi tests/apps examples $(wildcard tests/test_*.py)
# A module's tests stay in one process. The modules begin in the order of tests/conftest.py.
SPREAD := --dist loadscope --no-loadscope-reorder
# What is about uvicorn itself.
OF_UVICORN := tests/server tests/gateway/test_server.py tests/test_testing.py

.PHONY: help run test coverage test-all test-pure test-plain test-uvicorn test-install test-ecosystem check docs wheel bench fuzz fuzz-core fuzz-asan soak long clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.run-$(VERSION)  ## gateway, runner and an upstream to play with; PORT=9090 takes another port
	@exec $(BIN)/asgi-bridge dev asgi_bridge_apps:bridge --routes examples/playground/apisix.yaml --port $(PORT) --upstream-port 0

test: $(VENV)/.test-$(VERSION)  ## all tests; COVERAGE=1: note which code they reach
	$(RUN_PYTEST) -n $(WORKERS) $(SPREAD) $(PYTEST)

coverage:  ## how much of the code they reach, but for processes that are killed: make test test-pure coverage COVERAGE=1
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

test-all:  ## make test with each Python from 3.11 to 3.14 that is installed; PYTHONS="3.12 3.13" takes these alone
	@.ci/test-all

test-plain: $(PLAIN)/.plain-$(VERSION)  ## the tests of servers as the README installs: h11, no httptools, no uvloop
	$(PLAIN)/bin/python -m pytest -n $(WORKERS) $(SPREAD) $(or $(PYTEST),$(OF_SERVERS))

test-pure: $(VENV)/.test-$(VERSION)  ## the tests of all that is compiled, in pure Python; tests/wire runs on both anyway
	ASGI_BRIDGE_COMPILED= ASGI_BRIDGE_PURE=1 $(RUN_PYTEST) -n $(WORKERS) $(SPREAD) $(or $(PYTEST),$(OF_CORE))

test-uvicorn: $(UVICORN)/.test-$(VERSION)  ## the tests of the server with the oldest uvicorn that pyproject.toml allows; make test has the newest
	$(UVICORN)/bin/python -m pip install --quiet --disable-pip-version-check "uvicorn==$(OLDEST_UVICORN)"
	$(UVICORN)/bin/python -c 'import uvicorn; print("=== uvicorn", uvicorn.__version__)'
	$(UVICORN)/bin/python -m pytest -n $(WORKERS) $(SPREAD) $(or $(PYTEST),$(OF_UVICORN))

test-install: $(VENV)/.check-$(VERSION)  ## the README's installation and make run, in fresh environments and clones
	$(BIN)/python -m pytest tests/install -m install $(PYTEST)

test-ecosystem: $(ECOSYSTEM)/.ecosystem-$(VERSION)  ## packages of others through gateway and runner, and without
	$(ECOSYSTEM)/bin/python -m pytest tests/alike/ecosystem $(PYTEST)

check: $(VENV)/.check-$(VERSION)  ## linter, formatter, type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)/.docs-$(VERSION)  ## the manual as a site, in build/docs; any warning is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

wheel: $(VENV)/.check-$(VERSION)  ## a wheel with the compiled core, in DIST (dist/); ASGI_BRIDGE_PURE=1: the pure one, for every platform
	rm -rf build/lib*
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(DIST) .
	@rm -rf build/lib* build/bdist* build/temp*; rmdir build 2>/dev/null || true

bench: $(VENV)/.test-$(VERSION)  ## what a call and a start cost, into docs/performance.md: a quarter of an hour; BENCH=--quick: seconds
	$(BIN)/python -m benchmarks.bench $(or $(BENCH),--docs)

fuzz: $(VENV)/.test-$(VERSION)  ## the property tests with 10,000 examples a type in place of 500; FUZZ_FACTOR=200: more
	FUZZ_FACTOR=$(or $(FUZZ_FACTOR),20) $(BIN)/python -m pytest -n $(WORKERS) tests/wire tests/core tests/alike/test_differences.py $(PYTEST)

fuzz-core: $(VENV)/.test-$(VERSION)  ## the compiled core against pure Python for CORE_SECONDS; each fault of tests/seeded is found; references are counted
	$(BIN)/python -m pytest -s tests/core/test_builds.py -m builds -k "not sanitizers" $(PYTEST)

fuzz-asan: $(VENV)/.test-$(VERSION)  ## the same comparison for CORE_SECONDS under AddressSanitizer and UBSan
	$(BIN)/python -m pytest -s tests/core/test_builds.py -m builds -k sanitizers $(PYTEST)

soak: $(VENV)/.test-$(VERSION)  ## 100,000 calls, most of them failing, and what they leave; 20,000 through both phases
	LEAK_CALLS=100000 BOTH_CALLS=20000 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST) \
		tests/server/test_leaks.py tests/test_fail_closed.py tests/test_phases.py -k "leave or local_variable"

long: fuzz fuzz-core fuzz-asan soak docs  ## all that takes longer: fuzz, sanitizers, seeded faults, soak, ten reloads, twenty take-overs, 10,000 recorded calls, ten seconds of dev, shadows everywhere
	TOKENS=300000 $(BIN)/python -m pytest tests/server/test_tokens.py $(PYTEST)
	EDITS=3000 CLAIMS=125 PARKED_CALLS=10000 $(BIN)/python -m pytest tests/plugins/test_store.py tests/plugins/test_tokens.py \
		tests/adapter/test_parking.py -k "very_many or same_moment" $(PYTEST)
	RELOADS=10 TAKE_OVERS=20 HANDOVER_CALLS=3200 HANDOVER_WORKERS=4 SLOWNESS=1 IMPORT_SECONDS=0.6 \
		$(BIN)/python -m pytest -s tests/succession/test_reloads.py tests/supervisor/test_worker_succession.py $(PYTEST)
	BOTH_CALLS=20000 BOTH_WORKERS=4 $(BIN)/python -m pytest -s tests/supervisor/test_worker_phases.py $(PYTEST)
	RECORDED_CALLS=10000 $(BIN)/python -m pytest -s tests/recording/test_replay.py tests/recording/test_workers.py $(PYTEST)
	DRIVEN_SECONDS=10 $(BIN)/python -m pytest -s tests/inspector/test_page.py -k driven $(PYTEST)
	SITE_PAGES=all $(BIN)/python -m pytest tests/manual/test_site.py $(PYTEST)
	SHADOW_STEP=1 $(BIN)/python -m pytest tests/alike/fidelity/test_shadow.py $(PYTEST)
	EDITS=1000000 $(BIN)/python -m pytest -s tests/plugins/test_growth.py tests/server/test_edits.py -k edits $(PYTEST)
	$(BIN)/python -m benchmarks.bench --quick

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-* build dist *.egg-info asgi_bridge/*/*.so .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.build

# One stamp per environment, set of dependencies and Python. Another Python than the environment's makes it anew.
# EXTRAS are extras of the package, DEPENDENCY_GROUPS are groups in pyproject.toml.
RUN := $(VENV)/.run-$(VERSION)
TEST := $(VENV)/.test-$(VERSION) $(UVICORN)/.test-$(VERSION)
CHECK := $(VENV)/.check-$(VERSION)
$(RUN) $(PLAIN)/.plain-$(VERSION): EXTRAS := dev,apps
$(TEST) $(CHECK) $(ECOSYSTEM)/.ecosystem-$(VERSION): EXTRAS := dev,apps,fast
$(TEST): DEPENDENCY_GROUPS := test
$(CHECK): DEPENDENCY_GROUPS := test check
$(PLAIN)/.plain-$(VERSION): DEPENDENCY_GROUPS := test-plain
$(ECOSYSTEM)/.ecosystem-$(VERSION): DEPENDENCY_GROUPS := ecosystem
$(DOCS)/.docs-$(VERSION): EXTRAS := dev
$(DOCS)/.docs-$(VERSION): DEPENDENCY_GROUPS := docs
# pip installs dependency groups from version 25.1 on. A new environment of Debian 12 has pip 23.
HAS_GROUPS := import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))
$(RUN) $(TEST) $(CHECK) $(PLAIN)/.plain-$(VERSION) $(ECOSYSTEM)/.ecosystem-$(VERSION) $(DOCS)/.docs-$(VERSION): pyproject.toml $(CORE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "asgi_bridge needs Python 3.11 or later, $(PYTHON) is $(VERSION)"; exit 1; }
	@test "$$($(@D)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" || \
		{ rm -rf $(@D); $(PYTHON) -m venv $(@D) || { echo "no virtual environment: apt-get install python3-venv"; exit 1; }; }
	@test -z "$(DEPENDENCY_GROUPS)" || $(@D)/bin/python -c '$(HAS_GROUPS)' || \
		$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]' $(addprefix --group ,$(DEPENDENCY_GROUPS))
	@touch $@
