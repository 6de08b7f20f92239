# Two commands do everything, from a fresh clone on a machine with python3 (3.11 or newer) and make:
#   make demo    environment, install, run: live traffic on a dashboard
#   make test    environment, install, format check, lint, types, all tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := gateway actors supervisor protocol store bench

.PHONY: demo test test-long check format lock clean

demo: $(STAMP)
	$(BIN)/parley demo $(ARGS)

test: check
	$(BIN)/python -m tests.support.tools
	$(BIN)/pytest -q -m "not long" $(ARGS)

# The long forms of the reliability tests; they take as long as they say.
test-long: $(STAMP)
	$(BIN)/pytest -q -m long --timeout 3600 $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(addprefix -p ,$(PACKAGES))

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Versions come from requirements.lock alone; Parley itself is installed in place.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or newer; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check  # the lock holds all that pyproject.toml asks for
	@touch $@

# Take newer versions: rewrites requirements.lock, which names versions and digests but no place to fetch them from.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --upgrade \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
