# `make` without a target lists the commands. Requires Python 3.11 to 3.14 and make; everything else
# is installed under .venvs/ from the lock files.
PYTHON ?= python3
VENVS := .venvs
UV := $(VENVS)/uv/bin/uv
PROGRAM := $(VENVS)/program/bin/python
SERVER_TEST := $(VENVS)/server-test/bin/python
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-find-links --no-emit-index-url

# Many containers set this variable; each process would then compile MLflow again.
unexport PYTHONDONTWRITEBYTECODE

# The time at which make started, so that `make local` can say how long everything took.
BEGUN := $(shell date +%s)

# Commands read values such as STACK=dev from their environment, "$$STACK", never from make's
# $(STACK): the shell would interpret what is in it. Python checks the values.

.DEFAULT_GOAL := help
.PHONY: help
help:
	@awk -F ':.*## ' '/^# ---- / {gsub(/^# -+ | -+$$/, ""); heading = "\n" $$0 "\n"} \
		/^[a-z-]+:.*## / {printf "%s  make %-16s %s\n", heading, $$1, $$2; heading = ""}' $(MAKEFILE_LIST)

# ---- On this computer ------------------------------------------------------------------------

.PHONY: local local-up local-down local-status local-clean check
local: install-local ## Run the server on this computer until Ctrl-C (PORT=8080 CONFIG=artifacts=direct)
	@$(PROGRAM) -m local run --port="$${PORT:-8080}" $${CONFIG:+--config="$$CONFIG"} --begun $(BEGUN)

local-up: install-local ## Run it in the background
	@$(PROGRAM) -m local up --port="$${PORT:-8080}" $${CONFIG:+--config="$$CONFIG"} --begun $(BEGUN)

local-down: $(VENVS)/program.done ## Stop it; its data stays
	@$(PROGRAM) -m local down

check: $(VENVS)/client.done ## Log a run with every kind of data to it
	@test -f .local/env || { echo "error: the server has not run on this computer yet: make local-up starts it"; exit 1; }
	@. ./.local/env && $(VENVS)/client/bin/python sample_client/check_tracking.py

local-status: $(VENVS)/program.done ## Show whether it runs, and at which address
	@$(PROGRAM) -m local status || true

local-clean: $(VENVS)/program.done ## Delete its data
	@$(PROGRAM) -m local clean

# ---- Before `pulumi up` --------------------------------------------------------------------

.PHONY: doctor
doctor: $(VENVS)/program.done ## Check for anything that would make `pulumi up` fail (STACK=dev)
	@$(PROGRAM) -m operations.doctor --stack="$$STACK"

# ---- A deployed stack ---------------------------------------------------------------------

# STACK=dev is a Pulumi stack, STACK=local the stack on this computer. Without STACK, it is the stack
# that Pulumi has selected.
OPERATE = $(PROGRAM) -m operations --stack="$$STACK"

.PHONY: open env logs status rotate people backup upkeep psql
open: $(VENVS)/program.done ## Open MLflow's page in the browser (STACK=dev or local, as for all of these)
	@$(OPERATE) open

env: ## Print a client's settings, for eval (FORMAT=shell, dotenv, direnv, notebook, ci)
	@$(MAKE) --silent --no-print-directory $(VENVS)/program.done >&2
	@$(OPERATE) env --format="$$FORMAT"

logs: $(VENVS)/program.done ## Show the server's log (SINCE=1h FOLLOW=1)
	@$(OPERATE) logs --since="$$SINCE" --follow="$$FOLLOW"

status: $(VENVS)/program.done ## Show revision, instances, database, storage and cost
	@$(OPERATE) status

rotate: $(VENVS)/program.done ## Replace a password or key (WHAT=tracking, viewer, database, encryption; HOURS=24, END=1)
	@$(OPERATE) rotate --what="$$WHAT" --hours="$$HOURS" --end="$$END"

people: $(VENVS)/program.done ## List people's accounts, or change one (WHAT=add, remove, reset, promote, demote, grant, revoke; PERSON, RESOURCE, PERMISSION)
	@$(OPERATE) people --what="$$WHAT" --person="$$PERSON" --resource="$$RESOURCE" --permission="$$PERMISSION"

backup: $(VENVS)/program.done ## Back up the database now
	@$(OPERATE) backup

upkeep: $(VENVS)/program.done ## Run the upkeep job now, if cleanupAfterDays is set (DRY_RUN=1 only lists)
	@$(OPERATE) upkeep --dry-run="$$DRY_RUN"

psql: $(VENVS)/program.done ## Open psql on the database (WRITE=1 to write)
	@$(OPERATE) psql --write="$$WRITE"

# ---- Tests --------------------------------------------------------------------------------

# Without npm, the example in TypeScript isn't tested.
TYPESCRIPT := $(if $(shell command -v npm),$(VENVS)/typescript.done)
SMALL := tests/supply tests/errors tests/operations tests/docs tests/gallery

.PHONY: test test-infra test-small test-errors test-operations test-supply test-docs test-server test-local test-gallery test-engine test-container test-page lint lint-program lint-server format
test: install-test test-small test-server test-local test-page-and-others test-engine ## Run all tests (half an hour on two cores)

# The browser leaves a core to others. Their output is printed at the end.
.PHONY: test-page-and-others
test-page-and-others:
	@log=$$(mktemp); { $(MAKE) --no-print-directory test-container test-infra \
		&& $(PROGRAM) -m tests.engine.engine; } >"$$log" 2>&1 & others=$$!; \
	$(MAKE) --no-print-directory test-page; page=$$?; \
	wait $$others; others=$$?; cat "$$log"; rm -f "$$log"; exit $$((page + others))

# In one run, so that some tests work while others wait. The tests of a file share a stack.
test-small: install-local sbom $(VENVS)/client.done $(VENVS)/gallery.done $(VENVS)/site.done
	$(PROGRAM) -m pytest -n 3 --dist loadfile $(SMALL)

test-infra: $(VENVS)/program.done ## Test the program with Pulumi's mocks
	@# By file, because the tests of a file share recordings of the program.
	$(PROGRAM) -m pytest -n 2 --dist loadfile tests/infra

test-errors: install-local $(VENVS)/client.done ## Test the message of every error that a user can cause
	@# The tests mostly wait for processes, so more run at a time than there are cores.
	$(PROGRAM) -m pytest -n 3 --dist worksteal tests/errors

test-operations: install-local $(VENVS)/client.done ## Test the commands for a deployed stack
	$(PROGRAM) -m pytest -n 2 --dist loadfile tests/operations

test-supply: $(VENVS)/program.done sbom ## Test the lock files and the bills of materials made from them
	$(PROGRAM) -m pytest tests/supply

test-docs: install-local $(VENVS)/client.done $(VENVS)/site.done ## Test the pages: links, names, the site, and that something runs every command
	$(PROGRAM) -m pytest -n 2 --dist worksteal tests/docs

test-server: $(VENVS)/server-test.done ## Test the container's code, in process and with a real Postgres
	@# By file, because the tests of a file share a server.
	$(SERVER_TEST) -m pytest -n 3 --dist loadfile tests/server

test-local: install-local $(VENVS)/client.done ## Test the whole stack with the real MLflow client
	@# The tests mostly wait for processes, so more run at a time than there are cores.
	$(PROGRAM) -m pytest -n 3 --dist worksteal tests/local

test-gallery: install-local $(VENVS)/gallery.done ## Run every sample in the sample client's gallery
	$(PROGRAM) -m pytest tests/gallery

test-container: install-local $(VENVS)/client.done ## Build and run the image, with Docker or, as root, buildah
	$(PROGRAM) -m pytest -o faulthandler_timeout=3600 tests/container

test-page: install-local $(VENVS)/client.done $(VENVS)/page.done ## Test MLflow's page in a real browser, Chromium
	$(VENVS)/page/bin/python -m pytest tests/page

test-engine: install-local $(TYPESCRIPT) ## Test the program with Pulumi's own engine, built once if there is none
	@$(PROGRAM) -m tests.engine.engine
	$(PROGRAM) -m pytest -n 3 --dist worksteal tests/engine

.PHONY: chaos fuzz
fuzz: $(VENVS)/server-test.done ## Send the server generated requests (over an hour; minutes with FUZZ_SEQUENCES=500)
	$(SERVER_TEST) -m pytest -s -p no:schemathesis -o faulthandler_timeout=14400 tests/fuzz

chaos: install-local $(VENVS)/client.done $(VENVS)/previous.done ## Cause faults under load, and check that no data gets lost (about 40 minutes)
	$(PROGRAM) -m pytest -o faulthandler_timeout=3600 tests/chaos

.PHONY: test-versions previous-release
test-versions: $(VENVS)/server-test.done ## Test with MLflow's previous minor and all newer releases (2 minutes each)
	@$(SERVER_TEST) -m tests.versions

previous-release: install-local ## Record a release's stack for the upgrade tests (REVISION=v1.2)
	@$(PROGRAM) -m tests.engine.previous_release $${REVISION:+"$$REVISION"}

# Coverage is added to the tests' environments only here. Processes that tests start aren't measured.
COVERAGE = PYTHONPATH=$$(echo $(VENVS)/coverage/lib/python3.*/site-packages)
.PHONY: coverage
coverage: $(VENVS)/program.done $(VENVS)/server-test.done $(VENVS)/coverage.done ## Measure which lines of infra and image their tests run (15 minutes)
	@mkdir -p dist
	$(COVERAGE) $(PROGRAM) -m coverage run --data-file dist/infra.coverage --branch --source infra -m pytest -q tests/infra
	$(COVERAGE) $(SERVER_TEST) -m coverage run --data-file dist/image.coverage --branch --source image/tracking_server -m pytest -q tests/server
	@for part in infra image; do \
		$(COVERAGE) $(PROGRAM) -m coverage report --data-file dist/$$part.coverage --precision 1 || exit 1; \
	done

.PHONY: bench
bench: install-bench ## Measure everything against stock MLflow (needs wrk and h2load)
	$(PROGRAM) -m bench

bench-%: install-bench
	$(PROGRAM) -m bench $*

# In parallel, because the type checkers use one core each.
lint: ## Run linters and type checkers, and render all docstrings
	@$(MAKE) --no-print-directory -j2 lint-program lint-server licences api-docs

lint-program: $(VENVS)/program.done
	$(VENVS)/program/bin/ruff check .
	$(VENVS)/program/bin/ruff format --check .
	$(PROGRAM) tools/generate.py --check
	$(PROGRAM) -m mypy __main__.py infra fake_google local moving operations tools bench --exclude "bench/(browser|gateless|gate_alone).py"

lint-server: $(VENVS)/program.done $(VENVS)/server-test.done
	$(PROGRAM) -m mypy --cache-dir .mypy_cache/server --python-executable $(SERVER_TEST) image/tracking_server sample_client bench/gateless.py bench/gate_alone.py

format: $(VENVS)/program.done ## Format the code, and fix what ruff can fix
	$(VENVS)/program/bin/ruff check --fix .
	$(VENVS)/program/bin/ruff format .

# ---- Upkeep ---------------------------------------------------------------------------------

.PHONY: sbom audit links api-docs site
sbom: $(VENVS)/supply.done ## Write the bills of materials (CycloneDX) of container and program into dist/
	@mkdir -p dist
	@$(VENVS)/supply/bin/python -W ignore -m cyclonedx_py requirements image/requirements.txt \
		--pyproject image/pyproject.toml --output-reproducible --of JSON -o dist/image.cdx.json
	@$(VENVS)/supply/bin/python -W ignore -m cyclonedx_py requirements requirements.txt \
		--pyproject pyproject.toml --output-reproducible --of JSON -o dist/program.cdx.json

.PHONY: packages release-notes rehearse-release
packages: $(VENVS)/supply.done ## Build the Python packages of the last commit into dist/packages
	@rm -rf dist/packages dist/source; mkdir -p dist/source
	@git archive HEAD | tar -x -C dist/source
	@for folder in . sample_client/google_login; do \
		$(UV) build --quiet --no-create-gitignore --out-dir dist/packages "dist/source/$$folder" || exit 1; \
	done
	@rm -rf dist/source
	$(VENVS)/supply/bin/twine check dist/packages/*

release-notes: $(VENVS)/program.done ## Check that a tag can be released, and print its notes (TAG=v1.0.0)
	@$(PROGRAM) -m tools.release "$$TAG"

rehearse-release: install-local $(VENVS)/server-test.done $(VENVS)/supply.done ## Make a release and its image on this computer, with stand-ins for GitHub and the registry
	@$(PROGRAM) -m tests.release

.PHONY: licences
licences: $(VENVS)/program.done $(VENVS)/server-test.done ## Write the licences of the locked packages to dist/, and check them
	@mkdir -p dist
	@$(PROGRAM) tools/licences.py requirements.txt $(VENVS)/program/lib/python3.*/site-packages \
		image/requirements.txt $(VENVS)/server-test/lib/python3.*/site-packages >dist/licences.txt

audit: $(VENVS)/supply.done ## Check the locked packages for known vulnerabilities
	$(VENVS)/supply/bin/pip-audit --strict --require-hashes --disable-pip -r image/requirements.txt
	$(VENVS)/supply/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt

api-docs: $(VENVS)/program.done $(VENVS)/server-test.done ## Render the docstrings of program and server into dist/api
	@$(PROGRAM) tools/api_docs.py mlflow_gcp
	@$(SERVER_TEST) tools/api_docs.py tracking_server

site: $(VENVS)/site.done ## Build docs/ as a site in dist/site
	@NO_MKDOCS_2_WARNING=1 $(VENVS)/site/bin/mkdocs build --strict --site-dir dist/site

links: $(VENVS)/program.done ## Request every address that the pages link to
	@$(PROGRAM) tools/links.py

.PHONY: cost
cost: $(VENVS)/program.done ## Estimate a stack's monthly cost, idle and in use (STACK=dev RUNS=100)
	@$(PROGRAM) tools/cost.py --stack="$$STACK" --runs="$$RUNS"

.PHONY: install-local install-test install-bench lock docs
docs: $(VENVS)/program.done ## Update the pages' tables of settings, prices and measurements
	$(PROGRAM) tools/generate.py

install-local: $(VENVS)/program.done $(VENVS)/server.done

# In parallel: one installation waits for the network while another writes.
install-test:
	@$(MAKE) --no-print-directory -j4 QUIET=--quiet $(foreach name,program server server-test client gallery supply page site,$(VENVS)/$(name).done) $(TYPESCRIPT)

install-bench: install-local $(VENVS)/client.done $(VENVS)/bench.done $(VENVS)/page.done $(VENVS)/image-build.done

# Each lock file has an environment, which is rebuilt when the lock file changes. A stamp, NAME.done,
# marks a complete environment.
ENVIRONMENTS := program server server-test image-build client gallery previous bench bench-go supply page site coverage
WHOLE := --no-deps --require-hashes
# uv must use the installed Python and, like pip, the system's certificates.
UV_SYSTEM_CERTS ?= 1
export UV_SYSTEM_CERTS
export UV_PYTHON_DOWNLOADS := never

# $(1): what is installed, $(2): the commands that install it.
define install
@echo "installing $(1)"; rm -rf $@ $(@:.done=); began=$$(date +%s); { $(2); } || { \
	echo "error: $(1) could not be installed, for the reason above." \
	"If that is the network: set HTTPS_PROXY=http://proxy:3128 behind a proxy;" \
	"UV_INDEX_URL and PIP_INDEX_URL for another index; SSL_CERT_FILE=/path/to/ca.pem for its" \
	"certificate. UV_CACHE_DIR=/path moves uv's cache, which takes 1 GB." \
	"Then run the same command again: it continues from here." >&2; exit 1; }; \
touch $@ && echo "installed $(1) in $$(($$(date +%s) - began)) s"
endef

# In a terminal, uv and pip show how many bytes they have downloaded.
QUIET := $(shell test -t 2 || echo --quiet)
IN = $(UV) pip install $(QUIET) --python $(@:.done=)
$(ENVIRONMENTS:%=$(VENVS)/%.done): $(VENVS)/%.done: | $(VENVS)/uv.done
	$(call install,$(WHAT),$(UV) venv --quiet \
		--python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(@:.done=) \
		&& $(IN) $(OPTIONS) $(patsubst %,-r %,$(filter %.txt,$^)) \
		$(patsubst %/pyproject.toml,&& $(IN) --no-deps --editable %,$(filter %.toml,$^)))

$(VENVS)/program.done: requirements-dev.txt
$(VENVS)/program.done: WHAT = the program, PostgreSQL and what tests need (80 MB)
$(VENVS)/program.done: OPTIONS = --require-hashes
$(VENVS)/server.done: image/requirements.txt image/pyproject.toml
$(VENVS)/server.done: WHAT = the server, as in the container (85 MB)
$(VENVS)/server.done: OPTIONS = $(WHOLE)
$(VENVS)/server-test.done: image/requirements.txt tests/server/requirements.txt image/pyproject.toml
$(VENVS)/server-test.done: WHAT = the server with its tests
$(VENVS)/server-test.done: OPTIONS = $(WHOLE)
$(VENVS)/image-build.done: image/requirements-build.txt
$(VENVS)/image-build.done: WHAT = what compresses the page in the image
$(VENVS)/image-build.done: OPTIONS = $(WHOLE)
$(VENVS)/client.done: sample_client/requirements.txt
$(VENVS)/client.done: WHAT = MLflow's client
$(VENVS)/gallery.done: sample_client/requirements.txt sample_client/requirements-gallery.txt
$(VENVS)/gallery.done: WHAT = what the samples need
$(VENVS)/previous.done: tests/chaos/previous.txt
$(VENVS)/previous.done: WHAT = MLflow's previous minor
$(VENVS)/previous.done: OPTIONS = $(WHOLE)
$(VENVS)/bench.done: bench/requirements.txt
$(VENVS)/bench.done: WHAT = stock MLflow to compare with
$(VENVS)/bench.done: OPTIONS = --require-hashes --compile-bytecode
$(VENVS)/bench-go.done: bench/requirements-go.txt
$(VENVS)/bench-go.done: WHAT = FastTrackML to compare with
$(VENVS)/bench-go.done: OPTIONS = $(WHOLE)
$(VENVS)/supply.done: tools/requirements.txt
$(VENVS)/supply.done: WHAT = the tools that look at the locks
$(VENVS)/supply.done: OPTIONS = --require-hashes
$(VENVS)/page.done: tests/page/requirements.txt
$(VENVS)/page.done: WHAT = the browser's driver
$(VENVS)/page.done: OPTIONS = --require-hashes
$(VENVS)/site.done: tools/requirements-site.txt
$(VENVS)/site.done: WHAT = what builds the site of the pages
$(VENVS)/site.done: OPTIONS = --require-hashes

$(VENVS)/coverage.done: tools/requirements-coverage.txt
$(VENVS)/coverage.done: WHAT = what measures coverage
$(VENVS)/coverage.done: OPTIONS = $(WHOLE)

$(VENVS)/typescript.done: examples/typescript/package.json examples/typescript/package-lock.json
	$(call install,what the example in TypeScript needs (20 MB),mkdir -p $(VENVS)/typescript \
		&& cp $^ $(VENVS)/typescript \
		&& npm ci --prefix $(VENVS)/typescript --ignore-scripts --no-audit --no-fund --loglevel=error)

$(VENVS)/uv.done: tools/requirements-uv.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found: install Python 3.11 to 3.14, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "error: $$($(PYTHON) --version 2>&1) does not fit the locks: Python 3.11 to 3.14 is needed, for example make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) can't make virtual environments: install its venv module (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(call install,uv (20 MB),$(PYTHON) -m venv $(VENVS)/uv \
		&& $(VENVS)/uv/bin/python -m pip install $(QUIET) --retries 2 --disable-pip-version-check \
		$(WHOLE) -r $<)

lock: | $(VENVS)/uv.done ## Compile the locks from their .in files
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt
	$(COMPILE) --override image/requirements.excluded image/requirements.in -o image/requirements.txt
	$(COMPILE) image/requirements-build.in -o image/requirements-build.txt
	$(COMPILE) tests/server/requirements.in -o tests/server/requirements.txt
	$(COMPILE) bench/requirements.in -o bench/requirements.txt
	$(COMPILE) --no-deps bench/requirements-go.in -o bench/requirements-go.txt
	$(COMPILE) tests/page/requirements.in -o tests/page/requirements.txt
	$(COMPILE) tools/requirements.in -o tools/requirements.txt
	$(COMPILE) tools/requirements-uv.in -o tools/requirements-uv.txt
	$(COMPILE) tools/requirements-site.in -o tools/requirements-site.txt
	$(COMPILE) tools/requirements-coverage.in -o tools/requirements-coverage.txt
	$(COMPILE) --override image/requirements.excluded tests/chaos/previous.in -o tests/chaos/previous.txt
