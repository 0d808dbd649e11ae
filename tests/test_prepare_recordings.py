"""prepare.recordings: a tiny clip and made-up gaze become a data set that trains."""

import json

import numpy as np
import pytest

from common.errors import InputError
from datasets.gaze import gaussian_map
from datasets.gaze_files import Gaze, read_fixations_csv
from datasets.splits import PUBLISHED, published_split
from prepare.recordings import VIDEO_SUFFIXES, active_fixations, by_name, main, pair, write_splits
from tests.clips import moving_disc, write_video
from tests.commands import ended
from video.decoding import decode, probe
from video.pictures import read_picture

SMALL = ["--height=24", "--width=48", "--gt_height=16"]


def paths(videos, gaze, output):
    return ["--videos", str(videos), "--gaze", str(gaze), "--output", str(output)]


def prepare(*arguments, code=0):
    """What the command prints; the last line of its errors if it must fail."""
    found, printed, line = ended(main, *arguments, *SMALL)
    assert found == code, line
    return line if code else printed


def write_gaze(path, rows):
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    path.write_text("time,longitude,latitude,observer\n" + text)
    return path


ROWS = [
    *((0, 30, 0, "ann"), (0.124, -90, 45, "ann"), (0.125, 180, -80, "bob")),
    *((0.999, 0, 90, "ann"), (1.0, 5, 5, "bob"), (-0.1, 5, 5, "bob")),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with videos/, gaze/ and data/, and what the command printed."""
    folder = tmp_path_factory.mktemp("prepare")
    (folder / "videos").mkdir()
    write_video(folder / "videos/one.mp4", frames=24, height=48, width=96, fps=24)
    write_video(folder / "videos/alone.mp4", frames=2)
    write_gaze(folder / "gaze/one.csv", ROWS)
    write_gaze(folder / "gaze/nothing.csv", ROWS)
    return folder, prepare(*paths(folder / "videos", folder / "gaze", folder / "data"))


def test_frames_are_sampled_and_numbered_from_one(made):
    folder = made[0] / "data/one"
    assert {p.name for p in folder.glob("*.jpg")} == {f"{n:04d}.jpg" for n in range(1, 9)}
    video = list(decode(probe(made[0] / "videos/one.mp4")))
    for n in range(1, 9):
        picture = read_picture(folder / f"{n:04d}.jpg").astype(float)
        assert picture.shape == (24, 48, 3)
        errors = [
            np.abs(picture - moving_disc(k, 48, 96).reshape(24, 2, 48, 2, 3).mean((1, 3))).mean()
            for k in range(len(video))
        ]
        assert np.argmin(errors) == 3 * (n - 1)


def test_the_frame_rate_is_stated(made):
    facts = json.loads((made[0] / "data/dataset.json").read_text())
    assert facts == {"fps": {"one": 8.0}}


def test_no_gaze_is_lost_and_each_counts_once(made):
    fixations = read_fixations_csv(made[0] / "data/one/fixations.csv")
    assert fixations.frames.tolist() == [1, 1, 2, 8]
    assert np.degrees(fixations.longitudes) == pytest.approx([30, -90, 180, 0])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45, -80, 90])
    assert fixations.observers.tolist() == [0, 0, 1, 0]


def test_maps_are_those_of_the_fixations(made):
    folder = made[0] / "data/one"
    assert sorted(path.name[:4] for path in folder.glob("*_gt.npy")) == ["0001", "0002", "0008"]
    fixations = read_fixations_csv(folder / "fixations.csv")
    for n in (1, 2, 8):
        truth = np.load(folder / f"{n:04d}_gt.npy", allow_pickle=False)
        assert truth.dtype == np.float32
        expected = gaussian_map(*fixations.at(n), 16, 32, 3.34)
        np.testing.assert_allclose(truth, expected, atol=1e-6)
    from_the_pole = 180 / 16 / 2  # degrees to the first row
    expected = np.exp(-((from_the_pole / 3.34) ** 2) / 2)
    assert np.load(folder / "0008_gt.npy").max() == pytest.approx(expected, abs=1e-4)


def test_the_summary_counts_and_names_what_was_not_used(made):
    first, *others = made[1].splitlines()
    assert first.endswith("data: 1 clip, 8 frames, 4 fixations")
    assert others == [
        "splits: train 1, val 0, test 0",
        "note: too few clips for val and test; make more",
        "2 of 6 gaze samples are before or after their video",
        "2 videos or gaze files have no counterpart: alone.mp4, nothing.csv",
    ]


def test_a_second_run_keeps_complete_clips(made):
    """Complete clips stay as they are; an interrupted one and changed options are made again."""
    folder = made[0] / "data/one"
    again = paths(*(made[0] / name for name in ("videos", "gaze", "data")))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare(*again) == made[1]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    truth = np.load(folder / "0001_gt.npy")
    record = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**record, "complete": False}))
    (folder / "0001_gt.npy").unlink()
    assert prepare(*again) == made[1]
    assert (np.load(folder / "0001_gt.npy") == truth).all()
    prepare(*again, "--fps", "4", "--sigma", "9")
    assert len(list(folder.glob("*.jpg"))) == 4
    assert read_fixations_csv(folder / "fixations.csv").frames.tolist() == [1, 1, 1, 4]
    assert prepare(*again) == made[1]


def test_bad_input_is_one_line(tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=3)
    late = write_gaze(tmp_path / "late.csv", [(5000, 0, 0, "x")])
    last = prepare(*paths(video, late, tmp_path / "data"), code=2)
    assert "late.csv: no sample is within the 0.1 s of a.mp4" in last
    bad = write_gaze(tmp_path / "bad.csv", [(0, 0, 0, "x"), (0, 0, 99, "x")])
    last = prepare(*paths(video, bad, tmp_path / "data"), code=2)
    assert "bad.csv, line 3: latitude 99" in last
    for option, value in (("--sigma", "0.1"), ("--fps", "0"), ("--gt_height", "nan")):
        words = (option, value, *paths(video, bad, tmp_path / "data"))
        last = ended(main, *words)[2]
        assert f"argument {option}" in last
    frames = write_video(tmp_path / "frames.mp4", frames=3)
    last = prepare(*paths(frames, late, tmp_path / "data"), code=2)
    assert "frames.mp4: not a valid clip name" in last


def gaze_at(*seconds):
    n = np.arange(len(seconds))
    return Gaze(np.array(seconds, float), n / 10, n / 100, n)


@pytest.mark.parametrize("name", ["splits.json", "dataset.json"])
def test_a_file_of_the_user_s_was_replaced(made, tmp_path, name):
    words = paths(made[0] / "videos", made[0] / "gaze", tmp_path)
    for content in ('{"train": ["mine"], "fps": []}', ""):
        (tmp_path / name).write_text(content)
        last = prepare(*words, code=2)
        assert f"{name}: " in last and (tmp_path / name).read_text() == content
    (tmp_path / name).unlink()
    assert "1 clip, 8 frames" in prepare(*words)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content + b" ")
    (tmp_path / "one/prepared.json").unlink()
    assert "one: contains other frames" in prepare(*words, code=2)
    assert (tmp_path / name).read_bytes() == content + b" "


def test_gaze_belongs_to_the_frame_shown_at_its_time():
    """Uneven frames at 0, 0.1, 0.5 and until 0.6; samples out of order, before and after."""
    gaze = gaze_at(0.5, 0.05, -0.2, 0.49, 0.0, 0.6, 0.59, 0.1)
    fixations = active_fixations(gaze, [0, 0.1, 0.5], 0.6)
    assert fixations.frames.tolist() == [1, 1, 2, 2, 3, 3]
    assert fixations.observers.tolist() == [1, 4, 3, 7, 0, 6]
    assert fixations.longitudes.tolist() == [0.1, 0.4, 0.3, 0.7, 0.0, 0.6]
    assert fixations.at(3)[1].tolist() == [0.0, 0.06]


def touch(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_pairs(tmp_path):
    videos = touch(tmp_path / "videos", "1.mp4", "2.MKV", "3.webm", "notes.txt")
    gaze = touch(tmp_path / "gaze", "2.csv", "1.csv", "4.csv")
    tables = {name: [path] for name, path in by_name(gaze, {".csv"}).items()}
    pairs, alone = pair(by_name(videos, VIDEO_SUFFIXES), tables, "")
    assert pairs == [(videos / f, [gaze / g]) for f, g in (("1.mp4", "1.csv"), ("2.MKV", "2.csv"))]
    assert alone == ["3.webm", "4.csv"]
    with pytest.raises(InputError, match="1 videos and 3 gaze files have no name in common"):
        pair(by_name(videos / "3.webm", VIDEO_SUFFIXES), tables, "")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        by_name(tmp_path / "nowhere", VIDEO_SUFFIXES)
    (videos / "1.mov").touch()
    with pytest.raises(InputError, match="same clip name"):
        by_name(videos, VIDEO_SUFFIXES)


def test_splits_are_drawn_from_the_names_alone(tmp_path):
    names = [f"{n:03d}" for n in range(50)]
    splits = write_splits(tmp_path, names, None)
    assert {key: len(clips) for key, clips in splits.items()} == {"train": 35, "val": 5, "test": 10}
    assert sorted(sum(splits.values(), [])) == names
    assert splits["train"] != names[:35]
    (tmp_path / "splits.json").unlink()
    assert write_splits(tmp_path, names[::-1], None) == splits
    assert [len(clips) for clips in write_splits(tmp_path, names[:3], None).values()] == [1, 1, 1]


def test_a_published_split_has_its_clips(tmp_path):
    names = [f"{n:03d}" for n in range(1, 209)]
    sizes = {name: [len(clips) for clips in write_splits(tmp_path, names, name).values()]
             for name in ("sst_sal", "cvpr2018")}  # fmt: skip
    assert sizes == {"sst_sal": [95, 10, 24], "cvpr2018": [121, 13, 74]}
    splits = write_splits(tmp_path, names[:50], "sst_sal")
    assert {"047", "040", "027", "028", "039", "019"} == set(splits["test"])
    assert json.loads((tmp_path / "splits.json").read_text()) == splits
    assert published_split("pvs_hm", ["A380", "KingKong", "Yacht"]) == {
        "train": ["A380", "Yacht"], "val": [], "test": ["KingKong"]}  # fmt: skip
    assert len(PUBLISHED["pvs_hm"]["test"]) == 15 and len(PUBLISHED["sst_sal"]["train"]) == 107


def test_splits_that_the_user_edited_are_kept(tmp_path):
    path = tmp_path / "splits.json"
    assert write_splits(tmp_path, ["a", "b", "c"], None) == json.loads(path.read_text())
    edited = {"train": ["c", "a"], "test": ["b"]}
    path.write_text(json.dumps(edited))
    assert write_splits(tmp_path, ["a", "b", "c"], None) == edited
    assert json.loads(path.read_text()) == edited
    with pytest.raises(InputError, match="splits.json: not written by this command"):
        write_splits(tmp_path, ["a", "b"], None)  # it was, without a word
    assert json.loads(path.read_text()) == edited
    path.unlink()
    assert write_splits(tmp_path, ["a", "b", "c"], None) == json.loads(path.read_text())
    others = write_splits(tmp_path, ["a", "b"], None)
    assert sorted(others["train"]) == ["a", "b"] and others == json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        write_splits(tmp_path, ["a"], None)
