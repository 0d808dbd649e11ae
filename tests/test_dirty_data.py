"""What is wrong in real data sets is left out, counted and named, or refused if it is much."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

import models
from common import errors
from common.components import LOSSES
from common.errors import InputError
from datasets import SaliencyVideos, check, layouts
from datasets.gaze_files import read_fixations_csv, read_gaze_csv, read_vinfo
from prepare import pack, recordings, salient360, vr_eyetracking
from tests.clips import moving_disc, write_eccv_clip, write_video
from tests.commands import ended, evaluate, refusal, success, train_one_epoch
from tests.runs import log

SMALL = ("--height", 24, "--width", 48, "--gt_height", 16)
HEADER = "time,longitude,latitude,observer\n"


@pytest.fixture
def dirty(tmp_path):
    """Twelve fixations a clip, one of them outside the picture."""
    root, found = tmp_path / "data", {}
    for name in "ab":
        write_eccv_clip(root / name, range(1, 4), 20, 40)
        found[name] = {f"{n:04d}": np.random.default_rng(n).random((4, 2)) for n in range(1, 4)}
    found["a"]["0002"][1], found["b"]["0001"][0] = (-1, -1), (1.0003, 0.5)
    (root / "vinfo.pkl").write_bytes(pickle.dumps(found))
    (root / "splits.json").write_text('{"train": ["a"], "val": ["b"]}')
    return root


def test_one_fixation_outside_the_picture_stopped_everything(dirty, tmp_path, checkpoint):
    data = SaliencyVideos(dirty, "train", models.Spec(24, 48))
    problem = "clip a, frame 2: x -1, y -1 is outside the picture"
    assert data.irregular == [("unusable fixation", problem)]
    assert [item["fixations"].sum() for item in data] == [4, 3, 4]
    code, printed, _ = train_one_epoch(dirty, tmp_path / "run", "--loss", "density")
    assert code == 0 and "is outside" not in printed  # the loss needs no fixations
    words = "--ckpt_path", checkpoint, "--split", "val"
    assert "1 × unusable fixation" in success(evaluate(dirty, tmp_path / "out", *words))
    problems = check.check(dirty)["problems"]
    assert [p["detail"] for p in problems] == [
        "clip a, frame 2: x -1, y -1 is outside the picture",
        "clip b, frame 1: x 1.0003, y 0.5 is outside the picture",
    ]


@pytest.mark.parametrize("layout", ["eccv2018", "packed"])
def test_validation_read_fixations_for_a_loss_that_needs_none(layout, dirty, tmp_path, monkeypatch):
    """For its NSS; and unusable ones cost a note."""
    if layout == "packed":
        words = ("--data_root", dirty, "--output", tmp_path / "packed", "--workers", 1)
        assert ended(pack.main, *words, "--height", 40, "--width", 80)[0] == 0
        dirty = tmp_path / "packed"
    for name in ("vinfo.pkl", "a/fixations.csv", "b/fixations.csv"):
        (dirty / name).write_text("unusable")
    for read in (layouts.read_vinfo, layouts.read_fixations_csv):
        monkeypatch.setattr(layouts, read.__name__, lambda path: pytest.fail(f"{path} was read"))
    code, printed, line = train_one_epoch(dirty, tmp_path / "run")
    assert code == 0 and "fixations.csv" not in printed and "vinfo" not in printed, line
    assert "val_cc" in log(tmp_path / "run")[0] and "val_nss" not in log(tmp_path / "run")[0]
    monkeypatch.undo()
    monkeypatch.setattr(errors, "_own_code", False)
    monkeypatch.setattr(LOSSES, "known", dict(LOSSES.known))
    words = ("--loss", "tests.trainings:WatchedSMSE")
    refusal(train_one_epoch(dirty, tmp_path / "other", *words), "fixations.csv: there is no column")


def test_fixations_that_are_mostly_outside_are_refused(tmp_path):
    places = np.random.default_rng(0).random((10, 2))
    places[:2] += 1
    (tmp_path / "vinfo.pkl").write_bytes(pickle.dumps({"a": {"0001": places}}))
    with pytest.raises(InputError, match="2 invalid places, the first: clip a, frame 1"):
        read_vinfo(tmp_path / "vinfo.pkl")


def test_one_bad_line_cost_a_clip(tmp_path):
    good = "".join(f"{n / 10},{n},{-n},a\n" for n in range(30))
    path = tmp_path / "a.csv"
    path.write_text(HEADER + good + "2.0,,,a\n\n2.1,nan,nan,a\n\n")  # a blink, and another
    gaze = read_gaze_csv(path)
    assert len(gaze.seconds) == 30
    assert [p.partition(", ")[2] for p in gaze.problems] == [
        "line 32: could not convert string to float: ''",
        "line 33: it is blank",
        "line 34: longitude nan is outside -360 to 360",
    ]
    path.write_text(HEADER + good + "2.0,,,a\n" * 4)
    with pytest.raises(InputError, match=r"line 32: .*\(4 of 34 lines are invalid\); exp"):
        read_gaze_csv(path)
    path.write_text("frame,longitude,latitude,observer\n" + "1,2,3,a\n" * 10 + "1,2")
    assert len(read_fixations_csv(path).frames) == 10


def test_doubtful_recordings_are_said(tmp_path, capsys):
    (tmp_path / "videos/inner").mkdir(parents=True)
    for name in "ab":
        write_video(tmp_path / f"videos/inner/{name}.mp4", frames=24, fps=24)
    rows = [f"{n / 40},{n / 13},{n / 30},x\n" for n in range(36)]
    (tmp_path / "videos/inner/a.csv").write_text(HEADER + "".join(rows) + "0.5,1,,x\n")
    rows = [f"{n / 40},{5 * n},{n},x\n" for n in range(36)]
    (tmp_path / "videos/inner/b.csv").write_text(HEADER + "".join(rows + rows[:5]))
    words = ("--videos", tmp_path / "videos", "--gaze", tmp_path / "videos")
    code, _, errors = ended(recordings.main, *words, "--output", tmp_path / "out", *SMALL)
    assert code == 0
    assert "a.csv: 1 invalid line or files left out, the first: " in errors
    assert "a.csv: no sample is beyond 3.15° of longitude and 1.57° of latitude" in errors
    assert "b.csv: 5 samples with the same time and observer as another one" in errors
    assert "b.csv: no sample is" not in errors


def test_one_bad_file_of_many_observers_cost_a_clip(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/003.mp4", frames=12, fps=24)
    line = "frame,{},forward,0.1,0.1,eye,0.5,0.5\n".format
    outside = "frame,12,forward,0.1,0.1,eye,1.5,0.5\n"
    for person in range(12):
        folder = tmp_path / f"gaze/Gaze_txt_files/p{person:03d}"  # a level deeper than expected
        folder.mkdir(parents=True)
        text = "".join(map(line, range(1, 12)))
        (folder / "003.txt").write_text(
            {3: "", 4: text + "\n", 5: text + "frame,12,f", 6: "\n" + text, 7: text + outside}.get(
                person, text
            )
        )
    words = ("--videos", tmp_path / "videos", "--gaze", tmp_path / "gaze", *SMALL)
    code, printed, errors = ended(vr_eyetracking.main, *words, "--output", tmp_path / "out")
    assert code == 0 and "121 fixations" in printed, errors
    assert (
        "4 invalid lines or files left out, the first" in errors
        and "p005/003.txt, line 12" in errors
    )
    for person in (6, 7):
        (tmp_path / f"gaze/Gaze_txt_files/p{person:03d}/003.txt").write_text("")
    code, _, errors = ended(vr_eyetracking.main, *words, "--output", tmp_path / "other")
    assert code == 2 and "p003/003.txt: the file is empty" in errors


def write_salient360(root, change=lambda x, y: (x, y), header=""):
    for folder in ("Stimuli", "HE/SalMaps", "HE/Scanpaths/L"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(moving_disc(1, 32, 64)).save(root / "Stimuli/P5.png")
    saliency = np.exp(-np.add.outer((np.arange(32) - 8) ** 2, (np.arange(64) - 50) ** 2) / 20)
    saliency.astype("<f4").tofile(root / "HE/SalMaps/HEsalmap_5_64x32_32b.bin")
    random = np.random.default_rng(0)
    places = random.normal((50.5 / 64, 8.5 / 32), 0.04, (40, 2))
    rows = [f" {n % 20}, {x}, {y}, 0.1\n" for n, (x, y) in enumerate(change(*p) for p in places)]
    (root / "HE/Scanpaths/L/HEscanpath_5.txt").write_text(header + "".join(rows))


def import_salient360(root):
    return ended(salient360.main, "--source", root, "--output", root / "out", *SMALL)


@pytest.mark.parametrize("header", ["", "Idx, longitude, latitude, start\n"])
def test_a_file_that_began_with_a_space_lost_its_first_fixation(tmp_path, header):
    write_salient360(tmp_path / "Images", header=header)  # a level deeper than expected
    assert "40 fixations" in success(import_salient360(tmp_path))
    observers = read_fixations_csv(tmp_path / "out/P5/fixations.csv").observers
    assert np.bincount(observers).tolist() == [0, 20, 20]


@pytest.mark.parametrize("change, axis", [
    (lambda x, y: (1 - x, y), "left and right"), (lambda x, y: (x, 1 - y), "top and bottom"),
])  # fmt: skip
def test_mirrored_fixations_are_refused(tmp_path, change, axis):
    write_salient360(tmp_path, change)
    refusal(import_salient360(tmp_path), f"its fixations fit the maps better with {axis} exchanged")
    assert json.loads((tmp_path / "out/P5/prepared.json").read_text())["complete"] is False
