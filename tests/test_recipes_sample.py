"""The sample page of the viewer and the README's animation (make sample)."""

import sys
from unittest import mock

import pytest
from PIL import Image

from common.files import read_json
from recipes import sample
from tests.clips import write_video
from video.decoding import probe


@pytest.mark.slow
def test_a_part_of_a_clip_becomes_a_page_and_an_animation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "hall_64x32.mp4", frames=40, fps=8)
    (tmp_path / "docs").mkdir()
    words = ["sample.py", str(clip), "--output_dir", "docs"]
    with mock.patch.multiple(sample, START=1, SECONDS=2), mock.patch.object(sys, "argv", words):
        sample.main()
        sample.main()  # replaces its files
    assert probe(tmp_path / "outputs/hall.mp4").fps == 8
    record = read_json(tmp_path / "outputs/hall_saliency/saliency.json")
    assert record["complete"] and record["frame_count"] == 24  # from the keyframe before second 1
    page = (tmp_path / "docs/sample.html").read_text(encoding="utf-8")
    assert "<title>hall" in page and '<script type="text/plain" class="clip">' in page
    with Image.open(tmp_path / "docs/overlay.webp") as picture:
        picture.load()
        assert picture.n_frames == 6 and picture.width == 640 and picture.info["duration"] == 500
