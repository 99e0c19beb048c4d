# `make` alone shows what there is. Needs Python 3.11 to 3.14 and make; everything else is installed
# under .venvs/ from the locks.
PYTHON ?= python3
PORT ?= 8080
VENVS := .venvs
UV := $(VENVS)/uv/bin/uv
PROGRAM := $(VENVS)/program/bin/python
SERVER_TEST := $(VENVS)/server-test/bin/python
UV_VERSION := 0.13.9
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-find-links --no-emit-index-url

# The Python that was named, or none: not one that uv fetches by itself.
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help
help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- this computer ------------------------------------------------------------------------

.PHONY: local local-up local-down local-status local-clean check
local: install-local ## Run the whole stack on this computer until Ctrl-C (PORT=8080)
	@$(PROGRAM) -m local run --port $(PORT)

local-up: install-local ## The same in the background
	@$(PROGRAM) -m local up --port $(PORT)

local-down: install-local ## Stop it; its data stays
	@$(PROGRAM) -m local down

check: $(VENVS)/client.done ## Log a run with everything in it to the stack that runs here
	@. ./.local/env && $(VENVS)/client/bin/python sample_client/check_tracking.py

local-status: install-local ## Say whether it runs, and where
	@$(PROGRAM) -m local status || true

local-clean: install-local ## Remove its data
	@$(PROGRAM) -m local clean

# ---- proof --------------------------------------------------------------------------------

.PHONY: test test-infra test-supply test-server test-local test-engine test-container test-page lint format
test: test-infra test-supply test-server test-local test-engine test-container test-page ## Prove everything (some 12 minutes)

test-infra: $(VENVS)/program.done ## The program under Pulumi's mocks
	$(PROGRAM) -m pytest -n 2 --dist worksteal tests/infra

test-supply: $(VENVS)/program.done sbom ## The locks, and the bills of materials made from them
	$(PROGRAM) -m pytest tests/supply

test-server: $(VENVS)/server-test.done ## The container's code, in process and with a real Postgres
	$(SERVER_TEST) -m pytest -n 2 --dist worksteal tests/server

test-local: install-local $(VENVS)/client.done ## The whole stack with the real MLflow client
	@# Mostly waiting for processes, so more at a time than there are cores.
	$(PROGRAM) -m pytest -n 3 --dist worksteal tests/local

test-container: install-local $(VENVS)/client.done ## The image built and run, with Docker or, as root, buildah
	$(PROGRAM) -m pytest tests/container

test-page: install-local $(VENVS)/client.done $(VENVS)/page.done ## MLflow's page in a real browser, Chromium
	$(VENVS)/page/bin/python -m pytest tests/page

test-engine: install-local ## The program under Pulumi's own engine, built once if there is none
	@$(PROGRAM) -m tests.engine.engine
	$(PROGRAM) -m pytest -n 2 --dist worksteal tests/engine

.PHONY: chaos fuzz
fuzz: $(VENVS)/server-test.done ## Send the server 24,000 made-up requests (about 5 minutes)
	$(SERVER_TEST) -m pytest -s -p no:schemathesis tests/fuzz

chaos: install-local $(VENVS)/client.done $(VENVS)/previous.done ## Break it under load: nothing gets lost (about 40 minutes)
	$(PROGRAM) -m pytest tests/chaos

.PHONY: test-versions previous-release
test-versions: $(VENVS)/server-test.done ## Try MLflow's previous minor and all newer releases (2 minutes each)
	@$(SERVER_TEST) -m tests.versions

previous-release: install-local ## Keep what a release makes, to be upgraded from (REVISION=v1.2)
	@$(PROGRAM) -m tests.engine.previous_release $(REVISION)

.PHONY: bench
bench: install-bench ## Measure everything against stock MLflow (needs wrk and h2load)
	$(PROGRAM) -m bench

bench-%: install-bench
	$(PROGRAM) -m bench $*

lint: $(VENVS)/program.done $(VENVS)/server-test.done ## Linters and type checkers
	$(VENVS)/program/bin/ruff check .
	$(VENVS)/program/bin/ruff format --check .
	$(PROGRAM) tools/readme.py --check
	$(PROGRAM) -m mypy __main__.py infra local moving tools bench --exclude "bench/(gateless|gate_alone).py"
	$(PROGRAM) -m mypy --python-executable $(SERVER_TEST) image/tracking_server sample_client bench/gateless.py bench/gate_alone.py

format: $(VENVS)/program.done ## Let ruff mend what it can
	$(VENVS)/program/bin/ruff check --fix .
	$(VENVS)/program/bin/ruff format .

# ---- upkeep ---------------------------------------------------------------------------------

.PHONY: sbom audit
sbom: $(VENVS)/supply.done ## Write the bills of materials (CycloneDX) of container and program into dist/
	@mkdir -p dist
	@$(VENVS)/supply/bin/python -W ignore -m cyclonedx_py requirements image/requirements.txt \
		--pyproject image/pyproject.toml --output-reproducible --of JSON -o dist/image.cdx.json
	@$(VENVS)/supply/bin/python -W ignore -m cyclonedx_py requirements requirements.txt \
		--output-reproducible --of JSON -o dist/program.cdx.json

audit: $(VENVS)/supply.done ## Look for known vulnerabilities in what container and program are locked to
	$(VENVS)/supply/bin/pip-audit --strict --require-hashes --disable-pip -r image/requirements.txt
	$(VENVS)/supply/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt

.PHONY: cost
cost: $(VENVS)/program.done ## What a stack costs a month, idle and in use (STACK=dev RUNS=100)
	@$(PROGRAM) tools/cost.py $(if $(STACK),--stack $(STACK)) $(if $(RUNS),--runs $(RUNS))

.PHONY: install-local install-bench lock docs
docs: $(VENVS)/program.done ## Write README.md's settings, prices and measurements from their sources
	$(PROGRAM) tools/readme.py

install-local: $(VENVS)/program.done $(VENVS)/server.done

install-bench: install-local $(VENVS)/client.done $(VENVS)/bench.done

# Each lock's environment is made anew when the lock changes; a stamp says that it is whole.
$(VENVS)/program.done: requirements-dev.txt | $(UV)
	@echo "installing the program's environment"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/program
	@$(UV) pip install --quiet --python $(PROGRAM) --require-hashes -r requirements-dev.txt
	@touch $@

$(VENVS)/server.done: image/requirements.txt image/pyproject.toml | $(UV)
	@echo "installing the server's environment, the container's lock"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/server
	@$(UV) pip install --quiet --python $(VENVS)/server/bin/python --compile-bytecode \
		--no-deps --require-hashes -r image/requirements.txt
	@$(UV) pip install --quiet --python $(VENVS)/server/bin/python --no-deps --editable image
	@touch $@

$(VENVS)/server-test.done: image/requirements.txt tests/server/requirements.txt image/pyproject.toml | $(UV)
	@echo "installing the server's environment for its tests"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/server-test
	@$(UV) pip install --quiet --python $(SERVER_TEST) --no-deps --require-hashes \
		-r image/requirements.txt -r tests/server/requirements.txt
	@$(UV) pip install --quiet --python $(SERVER_TEST) --no-deps --editable image
	@touch $@

$(VENVS)/client.done: sample_client/requirements.txt | $(UV)
	@echo "installing the sample client's environment, stock MLflow"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/client
	@$(UV) pip install --quiet --python $(VENVS)/client/bin/python -r sample_client/requirements.txt
	@touch $@

$(VENVS)/previous.done: tests/chaos/previous.txt | $(UV)
	@echo "installing MLflow's previous minor, to upgrade from"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/previous
	@$(UV) pip install --quiet --python $(VENVS)/previous/bin/python --no-deps --require-hashes \
		-r tests/chaos/previous.txt
	@touch $@

$(VENVS)/bench.done: bench/requirements.txt | $(UV)
	@echo "installing stock MLflow to compare with"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/bench
	@$(UV) pip install --quiet --python $(VENVS)/bench/bin/python --compile-bytecode \
		--require-hashes -r bench/requirements.txt
	@touch $@

$(VENVS)/supply.done: tools/requirements.txt | $(UV)
	@echo "installing the tools that look at the locks"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/supply
	@$(UV) pip install --quiet --python $(VENVS)/supply/bin/python --require-hashes \
		-r tools/requirements.txt
	@touch $@

$(VENVS)/page.done: tests/page/requirements.txt | $(UV)
	@echo "installing the browser tests' environment"
	@$(UV) venv --quiet --clear --python $(PYTHON) $(VENVS)/page
	@$(UV) pip install --quiet --python $(VENVS)/page/bin/python --require-hashes \
		-r tests/page/requirements.txt
	@touch $@

$(UV): Makefile
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 to 3.14, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "$$($(PYTHON) --version) does not fit the locks: Python 3.11 to 3.14 is needed, for example make PYTHON=python3.11"; exit 1; }
	@echo "installing uv"
	@$(PYTHON) -m venv --clear $(VENVS)/uv || { echo "$(PYTHON) can't make virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@$(VENVS)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

lock: | $(UV) ## Compile the locks from their .in files
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt
	$(COMPILE) --override image/requirements.excluded image/requirements.in -o image/requirements.txt
	$(COMPILE) tests/server/requirements.in -o tests/server/requirements.txt
	$(COMPILE) bench/requirements.in -o bench/requirements.txt
	$(COMPILE) tests/page/requirements.in -o tests/page/requirements.txt
	$(COMPILE) tools/requirements.in -o tools/requirements.txt
	$(COMPILE) --override image/requirements.excluded tests/chaos/previous.in -o tests/chaos/previous.txt
