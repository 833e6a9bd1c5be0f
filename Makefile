# `make run` and `make test` install all that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := $(VENV)/audit
AUDIT_STAMP := $(AUDIT)/.installed
SITE := $(VENV)/site
SITE_STAMP := $(SITE)/.installed
# pip takes no file whose hash is not in a lock.
PIP := -m pip install --disable-pip-version-check
LOCKED := $(PIP) --require-hashes

.PHONY: install run test long check audit sbom format e2e reliability soak bench eviction fleet data-readers behaviours http-cache s3-servers pictures reference man site lock clean

install: $(STAMP)

# The stamp is made last, so that an interrupted install runs again.
$(STAMP): pyproject.toml requirements-build.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("bucketfront needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	@echo "1/3 making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/3 installing the locked packages, which takes a minute or two"
	@$(BIN)/python $(LOCKED) -r requirements-build.lock -r requirements-dev.lock
	@echo "3/3 installing bucketfront"
	@$(BIN)/python $(PIP) --quiet --no-index --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "installed: $(BIN)/bucketfront"

# The tools of `make audit`, `make sbom` and `make lock`, apart from what is tested.
$(AUDIT_STAMP): requirements-audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(LOCKED) -r requirements-audit.lock
	@touch $(AUDIT_STAMP)

run: install
	@echo "starting the embedded S3 and the proxy"
	@$(BIN)/bucketfront serve -c proxy.yaml

# Tests that run once more with proxies of two front ends, which must not make a difference to any client.
WITH_FRONT_ENDS := $(addprefix tests/server/test_,$(addsuffix .py,cache_status failures fast_path_equal http_table purges stop takeover uploads \
	write_races))

# One process for each core.
test: install
	$(BIN)/pytest -n auto --dist worksteal --ignore tests/e2e --ignore tests/reliability \
		-m 'not e2e and not long and not compatibility' tests
	TEST_WORKERS=2 $(BIN)/pytest -n auto --dist worksteal -m 'not e2e and not long and not compatibility' $(WITH_FRONT_ENDS)

check: install
	$(BIN)/ruff check proxy tests bench docs/site
	$(BIN)/ruff format --check proxy tests bench docs/site
	$(BIN)/mypy
	$(BIN)/mypy tests/conftest.py
	$(BIN)/mypy tests/reliability/conftest.py
	$(BIN)/mypy tests/e2e/conftest.py
	$(BIN)/pytest tests/test_layering.py

# Security linting of the code, and known vulnerabilities of what is installed. Reports "not run" where their database is
# out of reach. requirements-dev.lock has all packages of requirements.lock, in the same versions.
audit: $(AUDIT_STAMP)
	$(AUDIT)/bin/bandit --quiet --configfile pyproject.toml --recursive proxy
	$(AUDIT)/bin/python tests/vulnerabilities.py requirements-dev.lock

# Writes sbom.json, the software bill of materials of the image (CycloneDX), which a release has beside the image.
sbom: $(AUDIT_STAMP)
	PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --output-format JSON \
		--output-file sbom.json requirements.lock

# The tests that `make test` leaves out because they take minutes, and all rows and many examples of those of which it has
# a sample.
long: install
	TEST_ALL=1 $(BIN)/pytest -n auto --dist worksteal --ignore tests/e2e --ignore tests/reliability \
		-m 'long or sampled' tests
	TEST_WORKERS=2 $(BIN)/pytest -n auto --dist worksteal -m long tests/server/test_fast_path_equal.py

# The tests with other people's programs, S3 servers and test suites. What is not installed is "not run".
# Writes docs/compatibility.md.
e2e: install
	$(BIN)/pytest --ignore tests/reliability -m e2e tests

# Whole proxies under crashes, disk faults, and lying or slow origins, for at most ten minutes.
# Writes docs/reliability.md.
reliability: install
	$(BIN)/pytest -m reliability tests/reliability

# The same tests with as many cycles as take hours.
soak: install
	$(BIN)/pytest -m reliability tests/reliability --soak
	ATTACK_HEADS=1000000 $(BIN)/pytest -n auto -m long tests/server/test_attack_heads.py
	RACES=100000 $(BIN)/pytest -m long tests/server/test_front_end_races.py

# Compares bucketfront with nginx and Varnish. Writes docs/performance.md. The Python of a distribution is built with
# profile-guided optimisation, as users have it; those of version managers often are not.
BENCH_PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
	&& echo /usr/bin/python3 || echo $(PYTHON))
bench:
	$(MAKE) --no-print-directory install VENV=.venv-bench PYTHON=$(BENCH_PYTHON)
	.venv-bench/bin/python bench/run.py

# Replays traces through the eviction policies. Writes docs/eviction.md. libCacheSim has no build for some platforms.
eviction: install
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[bench]'
	$(BIN)/python bench/eviction.py

# Replays traces over simulated fleets. Writes the tables of docs/fleet.md. Envoy's hash needs a package with C code.
fleet: install
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[bench]'
	$(BIN)/python bench/fleet.py

# Replays the requests of programs that read data. Writes the table of docs/data-readers.md.
data-readers: install
	$(BIN)/python bench/data_readers.py

# Sends the same requests to bucketfront, nginx and Varnish, as far as these are installed.
# Writes the tables of docs/http.md.
behaviours: install
	$(BIN)/python bench/behaviours.py

# Runs the public HTTP cache test suite against bucketfront, nginx and Varnish, as far as these are installed.
# Writes its tables in docs/http.md.
http-cache: install
	PYTHONPATH=tests:tests/chaos $(BIN)/python tests/outside/http_cache_page.py

# Runs bucketfront in front of S3 servers of others, as far as these can be installed. Writes docs/s3-servers.md.
s3-servers: install
	PYTHONPATH=tests $(BIN)/python tests/outside/s3_servers_page.py

# Writes the pictures of the dashboard in docs/images. Needs Chromium, node and npm; pngquant makes them smaller.
pictures: install
	PYTHONPATH=tests:tests/chaos:tests/server:tests/outside $(BIN)/python tests/e2e/dashboard_pictures.py

# Writes docs/configuration.md and docs/proxy.schema.json from the models of the settings.
reference: install
	$(BIN)/python tests/configuration_page.py > docs/configuration.md
	$(BIN)/python tests/metrics_page.py
	$(BIN)/python tests/log_fields_page.py
	$(BIN)/python tests/live_settings_page.py
	$(BIN)/bucketfront config schema > docs/proxy.schema.json

# The documentation as a site, in build/site. A link that leads nowhere is an error.
$(SITE_STAMP): requirements-site.lock
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python $(LOCKED) -r requirements-site.lock
	@touch $(SITE_STAMP)

site: $(SITE_STAMP)
	$(SITE)/bin/mkdocs build --quiet --strict

# Writes proxy/bucketfront.1, the manual page, from the commands. The wheel has it.
man: install
	$(BIN)/python tests/manual_page.py > proxy/bucketfront.1

format: install
	$(BIN)/ruff check --fix proxy tests bench docs/site
	$(BIN)/ruff format proxy tests bench docs/site

# Writes the locks: the versions that were tested together, with the hashes of all their files, for any Python and
# platform. requirements.lock is what the image has, with the extra of the bus.
UV_COMPILE := $(AUDIT)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

lock: $(AUDIT_STAMP)
	$(UV_COMPILE) pyproject.toml --extra bus -o requirements.lock
	$(UV_COMPILE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --group build -o requirements-build.lock
	$(UV_COMPILE) --group audit -o requirements-audit.lock
	$(UV_COMPILE) --group site -o requirements-site.lock

clean:
	rm -rf $(VENV) cache build proxy/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
