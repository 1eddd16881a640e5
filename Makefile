# Every command of the project. Each target sets up what it needs.
#   PYTHON            the interpreter that makes .venv (3.11 or newer)
#   TORCH_INDEX_URL   where to take torch from, where the default index has CUDA builds only
PYTHON ?= python3.11
TORCH_INDEX_URL ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test serve check fmt bench bench-quick chaos bars
.DEFAULT_GOAL := setup

setup: $(VENV)/stamp

$(VENV)/stamp: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a few minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) --no-deps $$(grep '^torch==' constraints.txt)
	$(PIP) --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python examples/digits/demo.py

test: setup
	$(BIN)/python -m pytest $(ARGS)

serve: setup
	$(BIN)/modelpress serve $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/modelpress.yaml
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_architecture.py tests/test_deployment.py -m 'not system'

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the bars of reliability at the size of a release: a JSON line each; BAR=R1 takes one
BAR ?= R1 or R2 or R3 or R4 or R5 or R13 or R16 or R18 or R19
chaos: setup
	MODELPRESS_CHAOS=large $(BIN)/python -m pytest -q tests/system -m "$(BAR)" $(ARGS)

# the bars of the web process at full size: a JSON line each
bars: setup
	MODELPRESS_CHAOS=large $(BIN)/python -m pytest -q tests/system/test_web_bars.py $(ARGS)
	$(BIN)/python -m benchmarks.openapi
	$(BIN)/python -m benchmarks.fuzz_uploads
	$(BIN)/python -m benchmarks.http_load

# docs/benchmarks.md says how a corpus is prepared: ARGS="--corpus DIR --recipes FILE"
bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: setup
	$(BIN)/python -m benchmarks --quick $(ARGS)
