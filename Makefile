# Every target sets up what it needs by itself, from nothing but Python 3.11 or newer and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := $(VENV)/uv/bin/uv
SBOM   := dist/waldur-site-agent.cdx.json
OSV    ?=
SEEDS  ?= 200
FIRST  ?= 1
JOBS   ?= 2
PYTHONS ?= 3.12 3.13 3.14

# Without compiled modules every process that tests start compiles the agent again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo quick test test-debian13 test-pythons coverage test-long test-systemd simulate lint format docs guarantees build sbom audit bench clean
help:
	@echo "make demo       watch orders become accounts, simulated (SLURM=real: a real cluster; BACKEND=moab)"
	@echo "make quick      lint, unit and contract tests, in a minute"
	@echo "make test       lint and all tests but the long ones (real Slurm and RabbitMQ: as root on Debian)"
	@echo "make test-debian13  the same in a Debian 13 of its own: Slurm 24.11, RabbitMQ 4, Python 3.13"
	@echo "make test-pythons   the unit tests on PYTHONS='$(PYTHONS)', versions or paths"
	@echo "make coverage   the same, and which lines no test reaches"
	@echo "make test-long  the tests that take minutes each"
	@echo "make test-v1-plugins  published plugins of version 1, from the package index"
	@echo "make test-systemd  the services under a real systemd, in a Debian 13 of its own (root)"
	@echo "make simulate   random customers, jobs and faults, SEEDS=200 of them from FIRST=1"
	@echo "make lint       ruff, mypy, import-linter          make format  let ruff rewrite"
	@echo "make docs       the documentation as web pages in site/"
	@echo "make bench      what passes cost on generated sites: BENCH='--large --plot growth.png'"
	@echo "make guarantees rewrite which tests show what docs/guarantees.md promises"
	@echo "make build      wheels, source packages and the bill of materials in dist/"
	@echo "make audit      known vulnerabilities of the dependencies, from a copy: OSV=PyPI/all.zip"

$(READY): pyproject.toml $(wildcard plugins/*/pyproject.toml) uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, try: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@test -x $(UV) || $(PYTHON) -m venv $(VENV)/uv
	@test -x $(UV) || $(VENV)/uv/bin/pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --all-packages --all-extras
	@touch $@

demo: $(READY)
	@tests/services/demo.sh $(BIN)/waldur-site-agent demo

quick: lint
	@$(BIN)/pytest -q -n 4 --dist loadgroup -m "not long and not published" tests/unit tests/contract

test: lint
	@$(BIN)/pytest -q -n 5 --dist loadgroup -m "not long and not published and not systemd"

test-debian13:
	@tests/services/debian13/run.sh --services make test

test-pythons: $(READY)
	@export UV_PYTHON_INSTALL_DIR=$(CURDIR)/$(VENV)/pythons; for version in $(PYTHONS); do \
		$(UV) python find $$version >/dev/null 2>&1 || $(UV) python install --quiet --no-bin $$version || \
			{ echo "NOT RUN: Python $$version is not here and cannot be downloaded"; continue; }; \
		echo "Python $$version"; environment=$(VENV)/python$$(echo $$version | tr / -); \
		UV_PROJECT_ENVIRONMENT=$$environment $(UV) sync --quiet --locked --all-packages --all-extras \
			--python $$version || exit 1; \
		$$environment/bin/pytest -q -n 2 --dist loadgroup -m "not long" tests/unit || exit 1; \
	done

coverage: lint
	@$(BIN)/pytest -q -n 5 --dist loadgroup -m "not long and not published and not systemd" --cov --cov-report=term:skip-covered

test-long: $(READY)
	@$(BIN)/pytest -q -n 2 --dist loadgroup -m long

# The published plugins have dozens of dependencies, so they get an environment of their own.
V1     := $(VENV)/v1
PUBLISHED := azure ceph-s3 croit-s3 cscs-dwdi cscs-hpc-storage digitalocean envoy-ai-gateway harbor \
    k8s-ut-namespace ldap ldap-roles litellm mup nextcloud okd opennebula rancher rancher-kc-crd
test-v1-plugins: $(READY)
	@UV_PROJECT_ENVIRONMENT=$(V1) $(UV) sync --quiet --locked --all-packages --all-extras
	@for name in $(PUBLISHED); do \
	    $(UV) pip install --quiet --python $(V1)/bin/python --prerelease=allow waldur-site-agent-$$name \
	    || echo "waldur-site-agent-$$name cannot be installed; its tests are skipped"; done
	@$(V1)/bin/pytest -q -m published tests/published

test-systemd: $(READY)
	@tests/services/systemd/test.sh

simulate: $(READY)
	@PYTHONPATH=tests PYTHONHASHSEED=0 $(BIN)/python -m simulation --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS)

bench: $(READY)
	@$(BIN)/python -m bench $(BENCH)

docs: $(READY)
	@$(BIN)/python -m mkdocs build --quiet --strict --site-dir site
	@echo "the pages are in site/"

guarantees: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m docs.guarantees

lint: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }
	@echo "lint: ruff, mypy --strict and import-linter are content"

format: $(READY)
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

build: $(READY)
	@rm -rf dist
	@$(UV) build --quiet --all-packages --out-dir dist
	@$(MAKE) --silent sbom
	@ls dist

# What the wheels and their extras need, from the lock file; works without a network.
sbom: $(READY)
	@mkdir -p dist
	@$(UV) export --quiet --offline --frozen --all-packages --all-extras --no-dev --format cyclonedx1.5 \
		--preview-features sbom-export --output-file $(SBOM) > /dev/null
	@$(BIN)/python tools/dependencies.py licences $(SBOM) dist/licences.txt

audit: sbom
	@test -n "$(OSV)" || { echo "name a copy of https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip: make audit OSV=FILE"; exit 2; }
	@$(BIN)/python tools/dependencies.py audit $(SBOM) $(OSV)

clean:
	rm -rf $(VENV) dist site .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
