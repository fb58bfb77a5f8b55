# Works with GNU make 3.81. pip reads its own variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS) from the environment; no index is named here. PYTHON=... picks an interpreter.

PY := .venv/bin/python
STAMP := .venv/requirements.stamp
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1

# What pytest is always told. TMPDIR keeps what the tests and the browser write inside the clone. What
# one process compiled, the next hundred read, also where PYTHONDONTWRITEBYTECODE is set.
PYTEST = rm -rf build/tmp && mkdir -p build/tmp && \
	TMPDIR="$(CURDIR)/build/tmp" PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist worksteal

.PHONY: app quick test test-all bench lint assets setup chromium pins

app: setup
	@$(PY) -m blockviz app $(ARGS)

# While working: no browser, tiny models only.
quick: lint
	@$(PYTEST) --tier quick $(ARGS)

# What every change must pass.
test: lint chromium
	@$(PYTEST) --tier test $(ARGS)

# Every case of every matrix, and what `make test` and `make quick` choose by (tests/green.json).
test-all: lint chromium
	@$(PYTEST) --tier all --stamp $(ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

bench: setup
	$(PY) -m blockviz bench $(ARGS)

assets: setup chromium
	$(PY) -m blockviz.make_assets
	PYTHONPATH=. $(PY) tests/screenshots.py

chromium: setup
	@$(PY) tests/chromium.py

# Resolves every pin for each Python and platform, wheels only, into .ci/pins.csv. Needs the index.
pins: setup
	@$(PY) .ci/pins.py

setup: $(STAMP)

$(STAMP): requirements.txt .ci/setup
	@sh .ci/setup
	@touch $@
