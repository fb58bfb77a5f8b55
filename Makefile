# Works with GNU make 3.81. pip reads its own variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL,
# PIP_FIND_LINKS) from the environment; no index is named here. PYTHON=... picks an interpreter.

PY := .venv/bin/python
STAMP := .venv/requirements.stamp
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: app test bench lint assets setup chromium

app: setup
	@$(PY) -m blockviz app $(ARGS)

# TMPDIR keeps what the tests and the browser write inside the clone.
test: lint chromium
	@rm -rf build/tmp && mkdir -p build/tmp
	TMPDIR="$(CURDIR)/build/tmp" $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

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

setup: $(STAMP)

$(STAMP): requirements.txt .ci/setup
	@sh .ci/setup
	@touch $@
