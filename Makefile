# make demo: a language model of your own, from the text that comes with Python.  make test: all the tests.
# Both set up what they need in .venv first, and do nothing there the second time.

PYTHON ?= python3
PIP_FLAGS ?=
DEMO ?=

.PHONY: demo test bench clean

demo: .venv/ready
	@.venv/bin/llmwright build recipes/demo.yaml $(DEMO)

test: .venv/ready
	@.venv/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(TESTS)

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else \
	  f"llmwright needs Python 3.10 to 3.13, this is {v[0]}.{v[1]}: make PYTHON=python3.12 …")'
	@echo "setting up .venv (once; PyTorch is the large part) …"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt torch
	@.venv/bin/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch .venv/ready

clean:
	rm -rf .venv runs build *.egg-info src/*.egg-info
