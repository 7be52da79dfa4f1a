# Every target brings what it needs into .venv first (tools/bootstrap.sh). GNU make 3.81 is enough.
#   make PYTHON=/path/to/python3 CC=/path/to/cc …   to choose the interpreter and the compiler

.DEFAULT_GOAL := help
.PHONY: help demo native test fuzz bench lint clean

help:  ## List these targets
	@sed -n 's/^\([a-z]*\):.*## /make \1#/p' Makefile | while IFS='#' read -r name does; do \
		printf '%-12s %s\n' "$$name" "$$does"; done

demo:  ## Deploy the bundled model as C, run it, and prove that nothing changed
	@tools/bootstrap.sh demo
	@.venv/bin/ifgo demo

native:  ## Build the compiled engine into src/ifgo/engine (ARGS="..." goes to CMake)
	@tools/bootstrap.sh test
	@PYTHON=.venv/bin/python tools/build_native.sh $(ARGS)

test:  ## Run the tests on all cores (ARGS="..." goes to pytest)
	@tools/bootstrap.sh test
	@PYTHON=.venv/bin/python tools/build_native.sh
	@.venv/bin/python -m pytest -n auto $(ARGS)

fuzz:  ## Damage every kind of file for longer than the tests do (ARGS="..." goes to pytest)
	@tools/bootstrap.sh test
	@IFGO_SLOW=1 .venv/bin/python -m pytest -n auto -k "fuzz or damage or mutation or hostile" $(ARGS)

bench:  ## Time the engine against its peers and this machine (ARGS="..." goes to benchmarks)
	@tools/bootstrap.sh bench
	@PYTHON=.venv/bin/python tools/build_native.sh
	@.venv/bin/python -m benchmarks $(ARGS)

lint:  ## Check style, types and which module may import which
	@tools/bootstrap.sh test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo

clean:  ## Remove .venv, caches, and what the demo and builds made
	rm -rf .venv ifgo-demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f src/ifgo/engine/_native.*.so src/ifgo/engine/_native.*.pyd
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
