# Everything is set up on demand, inside .venv; the stamps carry the checksum of what they were made from,
# so that a second run installs nothing and a changed lock file is noticed whatever its date.
# Works with GNU make 3.81 and any POSIX shell.

VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?=
ARGS ?=

key = $(shell cat $(1) 2>/dev/null | cksum | cut -d' ' -f1)
STAMPS := $(VENV)/stamps
RUNTIME := $(STAMPS)/runtime-$(call key,constraints/runtime.txt constraints/build.txt)
TESTING := $(STAMPS)/test-$(call key,constraints/test.txt)
CLIENTS := $(STAMPS)/clients-$(call key,constraints/clients.txt tests/clients_js/package-lock.json)
PEERS := $(STAMPS)/peers-$(call key,constraints/peers.txt)
LITELLM := $(STAMPS)/litellm-$(call key,constraints/litellm.txt)
PROJECT := $(STAMPS)/project-$(call key,pyproject.toml)

# The locks name every package with its hashes: nothing else is resolved, and no package may run code while it is installed.
PIP_INSTALL = -m pip --disable-pip-version-check install -qq --no-compile --require-hashes --no-deps --only-binary :all:
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
	--no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help run test lint soak bench demo-model front-end lock clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: front-end $(PROJECT) ## Install what running needs, then serve and print the address (ARGS="--port 4000")
	@exec $(VENV)/bin/llamavisor serve $(ARGS)

test: $(TESTING) $(CLIENTS) front-end $(PROJECT) ## Run every check: lint, types, import contracts, tests in a browser too (ARGS for pytest)
	@$(PY) tools/checks.py all $(ARGS)

lint: $(TESTING) front-end $(PROJECT) ## Run the checks that need no running program
	@$(PY) tools/checks.py lint

soak: $(TESTING) front-end $(PROJECT) ## Run the property-based tests at length: 100,000 steps each
	@$(PY) tools/checks.py soak $(ARGS)

bench: $(TESTING) $(PEERS) $(LITELLM) front-end $(PROJECT) ## Measure side by side with other programs; prints ratios
	@for program in benchmarks/[a-z]*.py; do echo "== $$program"; PEERS_BIN="$(CURDIR)/.venv-peers/bin" $(PY) "$$program" $(ARGS) || exit 1; done

demo-model: $(TESTING) $(PROJECT) ## Train the demo model again, from its generated text
	@$(PY) -m tools.demo_model $(or $(ARGS),all)

front-end: $(RUNTIME) ## Bundle the pages' browser code into web/static, if it changed
	@$(PY) hatch_build.py build

lock: $(TESTING) ## Bring the lock files to the newest releases that pyproject.toml and static/package.json allow
	$(COMPILE) --upgrade -o constraints/runtime.txt pyproject.toml >/dev/null
	$(COMPILE) --upgrade -c constraints/runtime.txt --extra dev -o constraints/test.txt pyproject.toml >/dev/null
	$(COMPILE) --upgrade -c constraints/test.txt --group build -o constraints/build.txt >/dev/null
	$(COMPILE) --upgrade --group clients -o constraints/clients.txt >/dev/null
	$(COMPILE) --upgrade --group peers -o constraints/peers.txt >/dev/null
	$(COMPILE) --upgrade --group litellm -o constraints/litellm.txt >/dev/null
	@$(PY) hatch_build.py lock

clean: ## Remove all that make has made: environments, bundle, caches
	rm -rf $(VENV) .venv-clients .venv-litellm .venv-peers web/static static/node_modules tests/clients_js/node_modules build dist test-results
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find supervisor web tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# -- What the targets above stand on ---------------------------------------------------------------------------

# Each candidate is run, not looked up: a pyenv shim exists for versions that are not switched on.
$(PY):
	@case "$$(uname -s)" in Linux|Darwin) ;; *) \
		echo "Llamavisor runs on Linux, and on macOS for development; this is $$(uname -s). On Windows, use WSL 2." >&2; exit 1;; esac
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Llamavisor needs Python 3.11 or newer; $(or $(PYTHON),python3) is: $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) || { \
		echo "Python could not create a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(RUNTIME): | $(PY)
	@echo "Installing what running needs (locked, hashes verified; some 120 MB when nothing is cached)"
	@$(PY) $(PIP_INSTALL) -r constraints/runtime.txt -r constraints/build.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/runtime-* && touch $@

$(TESTING): $(RUNTIME)
	@echo "Installing what the checks need (locked, hashes verified)"
	@$(PY) $(PIP_INSTALL) -r constraints/test.txt
	@rm -f $(STAMPS)/test-* && touch $@

$(PROJECT): $(RUNTIME)
	@$(PY) -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation --editable .
	@rm -f $(STAMPS)/project-* && touch $@

# uv takes a tenth of the time here; but it does not read pip's settings, so where it finds no index, pip does it.
$(CLIENTS): | $(TESTING)
	@echo "Installing the stock clients to try the door with (locked, hashes verified; some 110 MB when nothing is cached)"
	@$(PY) -m venv --clear --without-pip .venv-clients
	@$(VENV)/bin/uv pip install -qq --python .venv-clients/bin/python --require-hashes --no-deps --only-binary :all: \
		-r constraints/clients.txt || PIP_PYTHON=.venv-clients/bin/python $(PY) $(PIP_INSTALL) -r constraints/clients.txt
	@$(PY) hatch_build.py clients
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/clients-* && touch $@

# An environment of their own: the package `supervisor` of PyPI has the same import name as ours.
$(PEERS): | $(PY)
	@echo "Installing the programs to measure against (locked, hashes verified)"
	@$(PY) -m venv --clear .venv-peers
	@.venv-peers/bin/python $(PIP_INSTALL) -r constraints/peers.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/peers-* && touch $@

$(LITELLM): | $(PY)
	@echo "Installing LiteLLM's proxy to measure against (locked, hashes verified; 600 MB)"
	@$(PY) -m venv --clear .venv-litellm
	@.venv-litellm/bin/python $(PIP_INSTALL) -r constraints/litellm.txt
	@mkdir -p $(STAMPS) && rm -f $(STAMPS)/litellm-* && touch $@
