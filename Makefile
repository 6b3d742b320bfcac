# setup: prepare .venv · run: index a vault and answer a question · test: every check · bench: the benchmark report
PYTHON ?= python3
VAULT  ?= sample_vault
FUZZ_SECONDS ?= 60
QUERY  ?= How do I make sure that my files survive a house fire?
PY     := .venv/bin/python
export TOKENIZERS_PARALLELISM ?= true

.PHONY: setup run test check bench eval fuzz clean
.DELETE_ON_ERROR:

setup: .venv/.runtime

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.runtime: .venv/pyvenv.cfg requirements.txt
	@echo "installing the packages and models into .venv, 1 to 2 GB; this takes minutes" >&2
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

run: setup
	@$(PY) main.py index --vault "$(VAULT)"
	@$(PY) main.py search "$(QUERY)" --vault "$(VAULT)" -k 3

check: .venv/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

test: check
	$(PY) -m pytest -n 2 --dist loadfile

# The peers live apart: LangChain brings a pytest plugin along that would load in `make test`.
.venv-bench/.ready: requirements.txt benchmarks/requirements.txt
	test -d .venv-bench || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r benchmarks/requirements.txt
	@touch $@

bench: .venv-bench/.ready
	.venv-bench/bin/python -W ignore -m benchmarks.run --vault "$(VAULT)"

eval: setup
	$(PY) -m benchmarks.evaluate

fuzz: .venv/.dev
	@$(PY) -m pip install --quiet --disable-pip-version-check -r tests/fuzz/requirements.txt 2>/dev/null || true
	@$(PY) tests/fuzz/fuzz_notes.py $(FUZZ_SECONDS)

clean:
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
