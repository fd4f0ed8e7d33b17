# The commands of the project. Each makes what it needs by itself; .ci/run calls these and nothing else.

PYTHON ?= python3
VENV := .venv
LITE := .venv-mslite
BIN := $(VENV)/bin
MINDSPORE := .venv-mindspore

# The repository that `make serve` serves; ARGS goes to `cardinal serve`, as in make serve ARGS="--rest-port 9000".
export CARDINAL_MODEL_REPOSITORY ?= models/demo
ARGS ?=

# What an environment with these extras holds, written to a file. A build without CUDA is called +cpu, but not everywhere.
COMMA := ,
define locked
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --editable '.[$(2)]'
	$(VENV)/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//' > $(1)
	rm -rf $(VENV)/lock
endef

.PHONY: help serve test coverage check proto lock clean lite

help:
	@echo "make serve     install, then serve the demo model on http://127.0.0.1:8000"
	@echo "make test      install, then run every test"
	@echo "make coverage  the same, and which lines no test runs; a third more time"
	@echo "make check     format, lint and types, as the pre-commit hook runs them"
	@echo "make proto     generate service/stubs from protos/"
	@echo "make lock      write constraints.txt anew from the newest packages that fit"

serve: $(VENV)/.installed lite
	$(BIN)/cardinal serve $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.installed-tools $(MINDSPORE)/.installed lite
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --durations 25 $(ARGS)

coverage: override ARGS += --cov --cov-report=term:skip-covered
coverage: test

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

proto: $(VENV)/.installed-dev
	$(BIN)/python -m grpc_tools.protoc -Iservice/stubs=protos --python_out=. --pyi_out=. --grpc_python_out=. \
		service/stubs/cardinal/v1/classifier.proto

lock:
	$(call locked,constraints.txt,models$(COMMA)dev)
	$(call locked,constraints-mindspore.txt,models$(COMMA)mindspore)

clean:
	rm -rf $(VENV) $(LITE) $(MINDSPORE) build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[models,dev]'
	@touch $@ $(VENV)/.installed

lite:
	@models/lite/make-environment $(LITE)

# MindSpore needs an older numpy than we do, and has wheels for few versions of Python: without it tests are skipped.
$(MINDSPORE)/.installed: pyproject.toml constraints-mindspore.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(MINDSPORE)
	if $(MINDSPORE)/bin/pip install --quiet --constraint constraints-mindspore.txt --editable '.[models,mindspore]'; \
		then touch $@; else rm -rf $(MINDSPORE); echo "Tests that need MindSpore will be skipped." >&2; fi

$(VENV)/.installed-tools: tests/install-tools tests/packaging/install-tools | $(VENV)/bin/python
	tests/install-tools
	tests/packaging/install-tools
	@touch $@
