"""prepare.vr_eyetracking, prepare.salient360, …: small sets written in the formats of others."""

import json

import numpy as np
import pytest

from datasets import SaliencyVideos, check
from datasets.gaze import gaussian_map
from datasets.gaze_files import read_fixations_csv
from models import Spec
from prepare import vr_eyetracking
from tests.clips import write_video
from tests.commands import ended

SMALL = ("--height", 24, "--width", 48, "--gt_height", 16)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def import_vr_eyetracking(folder, *more):
    words = ("--videos", folder / "videos", "--gaze", folder / "gaze", "--output", folder / "out")
    return ended(vr_eyetracking.main, *words, *SMALL, *more)


@pytest.fixture
def vr_eyetracking_files(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/003.mp4", frames=12, height=48, width=96, fps=24)
    write_video(tmp_path / "videos/007.mp4", frames=2)
    gaze = tmp_path / "gaze"
    line = "frame,{},forward,0.1,0.1,eye,{},{}\n".format
    text = line(1, 0.5, 0.5) + line(3, 0.75, 0.75) + line(4, 0.25, 0.25) + line(5, 1.5, 0.5)
    write_text(gaze / "p001/003._2017-10-13-10-28_ori_0.txt", text)
    write_text(gaze / "p012/003.txt", line(12, 0.5, 1.0))
    write_text(gaze / "p012/009.txt", line(1, 0.5, 0.5))
    return tmp_path


def test_vr_eyetracking(vr_eyetracking_files):
    code, printed, _ = import_vr_eyetracking(vr_eyetracking_files)
    root = vr_eyetracking_files / "out"
    assert code == 0 and "1 clip, 4 frames, 4 fixations" in printed
    assert "2 videos or gaze files without the other: 007, 009" in printed
    fixations = read_fixations_csv(root / "003/fixations.csv")
    assert fixations.frames.tolist() == [1, 1, 2, 4]  # every third frame is kept
    assert np.degrees(fixations.longitudes) == pytest.approx([0, 90, -90, 0])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45, -45, 90])
    assert fixations.observers.tolist() == [1, 1, 1, 12]
    truth = np.load(root / "003/0001_gt.npy")
    np.testing.assert_allclose(truth, gaussian_map(*fixations.at(1), 16, 32, 5), atol=1e-6)
    assert json.loads((root / "dataset.json").read_text()) == {"fps": {"003": 8.0}}
    assert check.check(root)["problems"] == [
        {"kind": "missing ground truth", "path": "003/0003.jpg", "detail": "has no map"}
    ]
    assert len(SaliencyVideos(root, "train", Spec(24, 48))) == 3


@pytest.mark.parametrize("text", ["", "frame,1,forward\n", "frame,x,f,0,0,e,0,0\n", "\x00\xff"])
def test_other_files_than_those_of_vr_eyetracking_are_named(vr_eyetracking_files, text):
    write_text(vr_eyetracking_files / "gaze/p001/003._2017-10-13-10-28_ori_0.txt", text)
    code, _, line = import_vr_eyetracking(vr_eyetracking_files)
    assert code == 2 and "003._2017-10-13-10-28_ori_0.txt" in line


def test_vr_eyetracking_without_a_pair_is_refused(vr_eyetracking_files):
    (vr_eyetracking_files / "videos/003.mp4").unlink()
    code, _, line = import_vr_eyetracking(vr_eyetracking_files)
    assert code == 2 and "1 videos and gaze of 2" in line
