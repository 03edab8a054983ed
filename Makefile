# Everything starts here; the work is in scripts/.  `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup tools demo test fuzz bench bench-start bench-fleet bench-ports bench-machines soak check fmt wheel lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## all that is needed: system packages, Python, Rust binaries, kernel and disks
	@scripts/bootstrap

tools: ## what `check` needs: system packages, Python, the Rust toolchain
	@scripts/bootstrap system python toolchain

demo: setup ## a page from a real machine, through the proxy (KEEP=1 leaves it running)
	@.venv/bin/python scripts/demo.py $(if $(KEEP),--keep)

test: setup ## check, then every test, fast ones first
	@scripts/bootstrap bench clients
	@scripts/check lint
	@scripts/run-tests

fuzz: ## each fuzz target for a while (SECONDS=60 TARGET=request)
	@scripts/bootstrap system python toolchain fuzz
	@scripts/fuzz $(or $(SECONDS),60) $(TARGET)

bench: ## the proxy beside nginx, HAProxy and others (ROUNDS=15 SECONDS=1 ONLY=small-get PEERS=nginx BEFORE=program)
	@scripts/bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) $(if $(BEFORE),--before $(BEFORE))

bench-start: setup ## a start from a template beside a boot, one and twenty at once (ROUNDS=9 CROWDS=3)
	@PYTHONPATH=tests:. .venv/bin/python -m benchmarks.machines starts \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(CROWDS),--crowds $(CROWDS))

bench-fleet: setup ## thousands of machines of the fake driver (MACHINES=100,1000,10000)
	@PYTHONPATH=tests:. .venv/bin/python -m benchmarks.machines fleet $(if $(MACHINES),--machines $(MACHINES))

bench-ports: setup ## how soon a server in a machine is known, and what an idle machine costs (ROUNDS=20)
	@PYTHONPATH=tests:. .venv/bin/python -m benchmarks.machines ports $(if $(ROUNDS),--rounds $(ROUNDS))

bench-machines: setup ## a machine's start and exec beside QEMU's own (ROUNDS=7)
	@PYTHONPATH=tests:. .venv/bin/python -m benchmarks.machines real $(if $(ROUNDS),--rounds $(ROUNDS))

soak: setup ## real machines under load and random kills; nothing may be lost (MINUTES=60 MACHINES=4 SEED=7)
	@.venv/bin/python scripts/soak.py $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(MACHINES),--machines $(MACHINES)) $(if $(SEED),--seed $(SEED))

check: tools ## formatters, linters, types, import rules
	@scripts/check

fmt: tools ## format everything
	@scripts/check --fix

wheel: ## one wheel with the package, hyperfleet-proxy and the guest agent, in dist/
	@scripts/bootstrap system python binaries
	@.venv/bin/python -m build --wheel --no-isolation --outdir dist .

lock: tools ## requirements.txt anew from requirements.in
	@scripts/lock

clean: ## remove what was built; .hyperfleet (machines and disks) stays
	rm -rf .venv .bench-venv .lock-venv .cache target dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
