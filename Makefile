# make demo: the whole job on an embedded model. make quick: the fast tests. make test: every test. make lint: all checks of tools/check.py.
# make nightly: what takes too long for every change: ExecuTorch's contract, older model families, bundles of every device in an environment of its own,
# bundles on emulated processors, aarch64 among them (needs Debian's debootstrap and qemu-user-static).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A process that crashes ends the run: pytest-xdist may wait for ever once it has replaced one.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
export YOLO_AUTOINSTALL := false
export OMP_WAIT_POLICY := passive
# Images of containers often set it; without bytecode every process of the tests compiles torch anew, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

# Where the root of another processor's Python lies; kept between runs.
DEVICE_ROOT ?= /var/tmp/yoloquant-aarch64

.PHONY: demo quick nightly test lint docs lock clean

demo: $(STAMP)
	$(BIN)/yoloquant demo

# What a change most often breaks, in under three minutes: no training, no conversion, nothing marked slow.
QUICK := tests/cli tests/data tests/evaluation tests/graph tests/quantization tests/report tests/runtime tests/sparsity \
	tests/test_import.py tests/test_io.py tests/test_recipe.py
quick: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -q -m "not slow" $(QUICK)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --ignore tests/training/test_distributed.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/test_distributed.py  # starts and forks processes: alone

nightly: $(STAMP)
	$(BIN)/python tools/make_device_root.py root=$(DEVICE_ROOT)
	YOLOQUANT_AARCH64_ROOT=$(DEVICE_ROOT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m nightly
	YOLOQUANT_AARCH64_ROOT=$(DEVICE_ROOT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/evaluation/test_processors.py

lint: $(STAMP)
	$(BIN)/python tools/check.py

# A seed environment holds uv, which installs the locked versions of everything into the real one.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

docs: $(STAMP)
	$(BIN)/python tools/make_reference.py
	$(BIN)/python -m mkdocs build --strict --site-dir build/site

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --python-version 3.11 --extra dev --no-emit-index-url --no-annotate \
		--no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) runs
