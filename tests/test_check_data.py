"""The data check (--check): each kind of problem is found where it is."""

import json

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from datasets.check import MAX_LISTED, check, summary
from datasets.splits import eccv2018_split
from tests.clips import moving_disc, write_eccv_clip


def write_splits(root, **splits):
    (root / "splits.json").write_text(json.dumps(splits))


@pytest.fixture
def eccv(tmp_path):
    """Clip a of six frames in the layout of ECCV 2018."""
    write_eccv_clip(tmp_path / "a", range(1, 7))
    write_splits(tmp_path, train=["a"])
    return tmp_path


@pytest.fixture
def sst(tmp_path):
    """Clip 0001 of six frames in the layout of SST-Sal."""
    for folder in ("frames", "saliency_maps", "optical_flow"):
        (tmp_path / folder).mkdir()
        for n in range(1, 7):
            picture = Image.fromarray(moving_disc(n, 32, 64))
            if folder == "saliency_maps":
                picture = picture.getchannel(1)
            picture.save(tmp_path / folder / f"0001_{n:04d}.png")
    write_splits(tmp_path, train=["0001"])
    return tmp_path


def found(root):
    """(kind, path) of each problem."""
    problems = check(root)["problems"]
    return [(problem["kind"], problem["detail"].partition(":")[0]) for problem in problems]


def usable(root, split="train"):
    return check(root)["splits"][split]["usable"]


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("layout", ["eccv", "sst"])
def test_a_clean_data_set_is_clean(layout, request):
    root = request.getfixturevalue(layout)
    report = check(root)
    assert report["clean"] and report["problems"] == []
    assert report["splits"] == {"train": {"clips": 1, "frames": 6, "usable": 6}}
    assert "no problems found" in summary(report)


FRAMES = {  # what becomes of a/0003.jpg
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: cut(path, 800),
    "no end": lambda path: cut(path, -2),
    "png": lambda path: (Image.new("RGB", (64, 32)).save(path, "PNG"), cut(path, -40)),
    "bmp": lambda path: (Image.new("RGB", (64, 32)).save(path, "BMP"), cut(path, -100)),
    "text": lambda path: path.write_text("no picture"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link": lambda path: (path.unlink(), path.symlink_to("gone.jpg")),
}


@pytest.mark.parametrize("damage", FRAMES)
def test_a_damaged_frame(eccv, damage):
    FRAMES[damage](eccv / "a/0003.jpg")
    assert found(eccv) == [("unreadable frame", "a/0003.jpg")] and usable(eccv) == 5


ARRAYS = {  # what is saved as a/0003_gt.npy
    "zero": np.zeros((16, 32)),
    "underflow": np.full((16, 32), 1e-300),
    "nan": np.eye(16, 32) * np.nan,
    "infinite": np.where(np.eye(16, 32), np.inf, 0).astype(np.float16),
    "overflow": np.eye(16, 32) * 1e300,
    "negative": np.eye(16, 32) - 0.1,
    "vector": np.arange(16.0),
    "scalar": np.array(1.0),
    "colour": np.random.rand(16, 32, 3),
    "nothing": np.zeros((0, 32)),
    "complex": np.eye(16, 32) * 1j,
    "pickle": np.array([print]),
}
MAPS = {  # what becomes of it
    **{name: lambda path, array=array: np.save(path, array) for name, array in ARRAYS.items()},
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: cut(path, -4),
    "header": lambda path: cut(path, 60),
    "magic": lambda path: cut(path, 5),
    "text": lambda path: path.write_text("no array at all"),
    "8 TB": lambda path: path.write_bytes(
        path.read_bytes().replace(b"(16, 32), }", b"(1000000, 2000000), }", 1)
    ),
}


@pytest.mark.parametrize("damage", MAPS)
def test_a_damaged_map(eccv, damage):
    MAPS[damage](eccv / "a/0003_gt.npy")
    assert found(eccv) == [("unusable ground truth", "a/0003_gt.npy")] and usable(eccv) == 5


@pytest.mark.parametrize("shape", [(16, 32), (1, 16, 32), (16, 32, 1)])
@pytest.mark.parametrize("dtype", [">f8", "f4", "f2", "u1", "i4"])
def test_every_form_of_a_map_is_fine(eccv, shape, dtype):
    disc = moving_disc(1, 16, 32)[..., 1] // 2
    np.save(eccv / "a/0003_gt.npy", np.asfortranarray(disc.astype(dtype).reshape(shape)))
    assert check(eccv)["clean"]


@pytest.mark.parametrize("size", range(0, 900, 60))
def test_files_cut_anywhere(eccv, size):
    """Frames of 900 bytes and more, maps of 2176."""
    for name in ("0002.jpg", "0003_gt.npy"):
        cut(eccv / "a" / name, size)
    problems = [("unreadable frame", "a/0002.jpg"), ("unusable ground truth", "a/0003_gt.npy")]
    assert found(eccv) == problems and usable(eccv) == 4


def test_the_layout_of_sst_sal(sst):
    (sst / "frames/0001_0003.png").write_bytes(b"")
    cut(sst / "saliency_maps/0001_0004.png", -40)
    (sst / "frames/0001_0006.png").unlink()
    (sst / "saliency_maps/0001_0002.png").unlink()
    (sst / "optical_flow/0001_0001.png").unlink()  # flow is optional
    (sst / "saliency_maps/0002_0001.png").write_bytes((sst / "frames/0001_0001.png").read_bytes())
    assert set(found(sst)) == {
        ("unreadable frame", "frames/0001_0003.png"),
        ("unusable ground truth", "saliency_maps/0001_0004.png"),
        ("ground truth without a frame", "saliency_maps/0001_0006.png"),
        ("no ground truth", "0001/0001_0002.png"),
        ("ground truth without a frame", "saliency_maps/0002_0001.png"),
    }
    assert usable(sst) == 2


def test_one_bright_pixel_is_a_map(sst):
    picture = np.zeros((320, 640), np.uint8)
    picture[100, 100] = 1
    for path in (sst / "saliency_maps").iterdir():
        Image.fromarray(picture).save(path)
    assert check(sst)["clean"]


def test_what_is_missing(eccv):
    (eccv / "a/0002_gt.npy").unlink()
    (eccv / "a/0004.jpg").unlink()
    assert found(eccv) == [
        ("ground truth without a frame", "a/0004_gt.npy"),
        ("no ground truth", "a/0002.jpg"),
        ("gap in the numbering", "a/0005.jpg comes after 0003.jpg"),
    ]
    assert check(eccv)["splits"]["train"] == {"clips": 1, "frames": 5, "usable": 4}


def test_every_fifth_frame_is_no_gap(tmp_path):
    write_eccv_clip(tmp_path / "a", range(1, 30, 5))
    write_splits(tmp_path, train=["a"])
    assert check(tmp_path)["clean"]


def test_clips_and_splits_that_disagree(eccv):
    write_eccv_clip(eccv / "b", [1])
    write_eccv_clip(eccv / "c", [1, 2])
    (eccv / "d").mkdir()
    write_splits(eccv, train=["a", "b", 7], val=["b", "gone", "d"], test=[])
    assert set(found(eccv)) == {
        ("clip in no split", "c"),
        ("clip listed more than once", "b"),
        *(("clip without frames", name) for name in ("7", "d", "gone")),
    }
    counts = {split: list(total.values())[1:] for split, total in check(eccv)["splits"].items()}
    assert counts == {"train": [7, 7], "val": [1, 1]}


def test_a_split_that_can_not_be_used_hides_no_problem_of_another(eccv):
    write_splits(eccv, train=["gone"], val=["a"])
    (eccv / "a/0003.jpg").write_bytes(b"")
    assert [kind for kind, _ in found(eccv)] == ["unusable split", "unreadable frame"]


def test_eccv_2018_needs_no_splits_file(tmp_path):
    for names in (split := eccv2018_split()).values():
        write_eccv_clip(tmp_path / names[0], [1, 2])
    problems = found(tmp_path)
    assert {kind for kind, _ in problems} == {"clip without frames"} and len(problems) == 104 - 3
    assert list(check(tmp_path)["splits"]) == list(split)


def write_fixations(path, *rows):
    path.write_text("\n".join(["frame,longitude,latitude,observer", *rows]) + "\n")


def test_fixations(eccv):
    path = eccv / "a/fixations.csv"
    write_fixations(path, "1,0,0,0", "6,-170,80,1")
    assert check(eccv)["clean"]
    write_fixations(path, "1,0,0,0", "7,0,0,0", "9,0,0,1", "9,0,0,2")
    problem = {"kind": "fixations without a frame", "detail": "a: 7 and 1 more"}
    assert check(eccv)["problems"] == [problem]
    write_fixations(path, "1,0,0,0", "2,0,north,0")
    assert found(eccv) == [("unusable split", "a/fixations.csv, line 3")]


def test_other_files_do_not_matter(eccv):
    for name in (".DS_Store", "a/Thumbs.db", "a/._0001.jpg", "a/.0001.1.partial.jpg", "a/note.txt"):
        (eccv / name).write_bytes(b"")
    write_eccv_clip(eccv / ".trash", [1])
    (eccv / "models").mkdir()
    assert check(eccv)["clean"]


def test_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="synthetic"):
        check(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "0001.jpg").write_text("")
    write_splits(tmp_path, train=["a"])
    with pytest.raises(InputError, match="there is no data set"):
        check(tmp_path)


def test_the_summary_is_short_and_the_json_complete(eccv):
    write_eccv_clip(eccv / "b", range(1, 11))
    write_splits(eccv, train=["a"], test=["b", "gone"])
    for path in sorted((eccv / "b").glob("*_gt.npy"))[1:]:
        path.write_bytes(b"")
    report = check(eccv)
    text = summary(report).splitlines()
    assert text[:2] == ["train: 1 clip, 6 frames, 6 usable", "test: 1 clip, 10 frames, 1 usable"]
    assert "9 × unusable ground truth" in text
    assert sum("_gt.npy: the file is empty" in line for line in text) == MAX_LISTED
    assert "    … and 4 more" in text and "problems found: 10" in text[-1]
    content = json.loads(json.dumps(report))
    assert content["root"] == str(eccv) and content["clean"] is False
    assert len(content["problems"]) == 10
