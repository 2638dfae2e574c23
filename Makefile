# make demo: the whole job on an embedded model. make test: every test. make lint: formatter, linter and types.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A process that crashes ends the run: pytest-xdist may wait for ever once it has replaced one.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
export YOLO_AUTOINSTALL := false
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint lock clean

demo: $(STAMP)
	$(BIN)/yoloquant demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --ignore tests/training/test_distributed.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/test_distributed.py  # starts and forks processes: alone

lint: $(STAMP)
	$(BIN)/python tools/check.py

# A seed environment holds uv, which installs the locked versions of everything into the real one.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --python-version 3.11 --extra dev --no-emit-index-url --no-annotate \
		--no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) runs
