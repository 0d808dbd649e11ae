# make demo [VIDEO=path/to/clip.mp4]   a 360° clip in, an overlay video out
# make test                            sets up and passes the tests

PYTHON ?= python3
VIDEO ?=
OUTPUT ?= outputs
BIN := .venv/bin

.PHONY: setup demo test lint bench clean

setup: .venv/done

.venv/done: requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else "Python 3.10 or newer is needed, this is %d.%d; try make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	touch $@

demo: setup
ifeq ($(VIDEO),)
	$(BIN)/python -m datasets.synthetic --video $(OUTPUT)/demo_clip.mp4
	$(MAKE) --no-print-directory overlay VIDEO=$(OUTPUT)/demo_clip.mp4
else
	$(MAKE) --no-print-directory overlay
endif

.PHONY: overlay
overlay: NAME = $(basename $(notdir $(VIDEO)))
overlay:
	$(BIN)/python infer_video.py --video_path "$(VIDEO)" --output_dir "$(OUTPUT)/$(NAME)_saliency"
	$(BIN)/python make_video.py --original_video "$(VIDEO)" --saliency_dir "$(OUTPUT)/$(NAME)_saliency" --output_path "$(OUTPUT)/$(NAME)_overlay.mp4"

test: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	for script in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

clean:
	rm -rf .venv outputs
