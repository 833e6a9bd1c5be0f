# Two commands are all the set-up there is: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install run test long check format e2e reliability soak bench behaviours reference lock clean

install: $(STAMP)

# The stamp is made last, so an install that broke off is begun again.
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("bucketfront needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $(STAMP)

run: install
	$(BIN)/bucketfront serve -c proxy.yaml

# In as many processes as there are cores.
test: install
	$(BIN)/pytest -n auto -m 'not e2e and not long and not reliability' tests

check: install
	$(BIN)/ruff check proxy tests bench
	$(BIN)/ruff format --check proxy tests bench
	$(BIN)/mypy
	$(BIN)/mypy tests/conftest.py
	$(BIN)/mypy tests/reliability/conftest.py
	$(BIN)/pytest tests/test_layering.py

# What `make test` leaves out, because the suite of every commit has to stay quick.
long: install
	$(BIN)/pytest -m long tests

# Against SeaweedFS, an S3 server that checks signatures.
e2e: install
	$(BIN)/pytest -m e2e tests

# Crashes, full and failing disks, lying and slow origins: ten minutes at most. Writes docs/reliability.md.
reliability: install
	$(BIN)/pytest -m reliability tests/reliability

# The same for hours.
soak: install
	$(BIN)/pytest -m reliability tests/reliability --soak

bench: install
	$(BIN)/python bench/run.py

# docs/http.md: the same requests to bucketfront, nginx and Varnish, as far as these are installed.
behaviours: install
	$(BIN)/python bench/behaviours.py

# Writes docs/configuration.md from the models of the settings.
reference: install
	$(BIN)/python -m bucketfront.config.reference > docs/configuration.md

format: install
	$(BIN)/ruff check --fix proxy tests bench
	$(BIN)/ruff format proxy tests bench

# Versions that were tried together, without addresses; used as a constraints file.
lock:
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check '.[dev]'
	$(VENV)/lock/bin/pip freeze --exclude bucketfront | grep -E '^[A-Za-z0-9_.-]+==' | sort -f > requirements.lock
	rm -rf $(VENV)/lock

clean:
	rm -rf $(VENV) cache build proxy/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
