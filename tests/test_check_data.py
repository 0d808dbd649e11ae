"""The data check (--check): each kind of problem is found where it is."""

import json

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from datasets import check as datasets_check
from datasets.check import KINDS, MAX_LISTED, NO_SPLIT, check, summary
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
    return [(problem["kind"], problem["path"]) for problem in check(root)["problems"]]


def per_clip(report, split):
    clips = report["splits"][split]["per_clip"]
    return {name: tuple(counts.values()) for name, counts in clips.items()}


def usable(root, split="train"):
    return check(root)["splits"][split]["usable"]


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def save_picture(path, height=32, width=64, colour=None, **options):
    shape = (height, width, 3)
    picture = moving_disc(1, height, width) if colour is None else np.full(shape, colour, np.uint8)
    Image.fromarray(picture).save(path, **options)


@pytest.mark.parametrize("layout", ["eccv", "sst"])
def test_a_clean_data_set_is_clean(layout, request):
    root = request.getfixturevalue(layout)
    report = check(root)
    assert report["clean"] and report["problems"] == []
    assert per_clip(report, "train") == {{"eccv": "a", "sst": "0001"}[layout]: (6, 6)}
    assert "no problems found" in summary(report)


FRAMES = {  # what becomes of a/0003.jpg → kind
    "empty": (lambda path: path.write_bytes(b""), "unreadable"),
    "half": (lambda path: cut(path, 800), "unreadable"),
    "no end": (lambda path: cut(path, -2), "unreadable"),
    "png": (lambda path: (save_picture(path, format="PNG"), cut(path, -40)), "unreadable"),
    "bmp": (lambda path: (save_picture(path, format="BMP"), cut(path, -100)), "unreadable"),
    "text": (lambda path: path.write_text("no picture"), "unreadable"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "unreadable"),
    "link": (lambda path: (path.unlink(), path.symlink_to("gone.jpg")), "unreadable"),
    "black": (lambda path: save_picture(path, colour=0), "constant"),
    "red": (lambda path: save_picture(path, colour=(200, 0, 0)), "constant"),
    "size": (lambda path: save_picture(path, 30, 60), "other size"),
    "tiny": (lambda path: save_picture(path, 1, 2, 0), "constant"),
}


@pytest.mark.parametrize("damage", FRAMES)
def test_a_damaged_frame(eccv, damage):
    harm, kind = FRAMES[damage]
    harm(eccv / "a/0003.jpg")
    assert found(eccv)[0] == (kind, "a/0003.jpg")
    # As in training: a frame that can be read counts.
    assert usable(eccv) == (6 if kind in ("constant", "other size") else 5)


ARRAYS = {  # what is saved as a/0003_gt.npy → kind
    "zero": (np.zeros((16, 32)), "constant"),
    "underflow": (np.full((16, 32), 1e-300), "constant"),
    "one": (np.ones((16, 32), np.float32), "constant"),
    "nan": (np.eye(16, 32) * np.nan, "unusable map"),
    "infinite": (np.where(np.eye(16, 32), np.inf, 0).astype(np.float16), "unusable map"),
    "overflow": (np.eye(16, 32) * 1e300, "unusable map"),
    "negative": (np.eye(16, 32) - 0.1, "unusable map"),
    "vector": (np.arange(16.0), "unreadable"),
    "scalar": (np.array(1.0), "unreadable"),
    "colour": (np.random.rand(16, 32, 3), "unreadable"),
    "nothing": (np.zeros((0, 32)), "unreadable"),
    "complex": (np.eye(16, 32) * 1j, "unreadable"),
    "larger": (np.eye(18, 36), "other size"),
}


@pytest.mark.parametrize("damage", ARRAYS)
def test_an_unusable_map(eccv, damage):
    array, kind = ARRAYS[damage]
    np.save(eccv / "a/0003_gt.npy", array)
    assert found(eccv) == [(kind, "a/0003_gt.npy")]
    assert usable(eccv) == (6 if damage == "larger" else 5)


MAPS = {  # what becomes of a/0003_gt.npy → kind
    "empty": (lambda path: path.write_bytes(b""), "unreadable"),
    "short": (lambda path: cut(path, -4), "unreadable"),
    "header": (lambda path: cut(path, 60), "unreadable"),
    "magic": (lambda path: cut(path, 5), "unreadable"),
    "text": (lambda path: path.write_text("no array at all"), "unreadable"),
    "pickle": (lambda path: np.save(path, np.array([print]), allow_pickle=True), "unreadable"),
}


@pytest.mark.parametrize("damage", MAPS)
def test_a_damaged_map(eccv, damage):
    harm, kind = MAPS[damage]
    harm(eccv / "a/0003_gt.npy")
    assert found(eccv) == [(kind, "a/0003_gt.npy")]
    assert usable(eccv) == 5


def test_a_header_that_lies(eccv):
    """It announces 8 TB: nothing is allocated."""
    path = eccv / "a/0003_gt.npy"
    path.write_bytes(path.read_bytes().replace(b"(16, 32), }", b"(1000000, 2000000), }", 1))
    assert found(eccv) == [("unreadable", "a/0003_gt.npy")]


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
    assert found(eccv) == [("unreadable", "a/0002.jpg"), ("unreadable", "a/0003_gt.npy")]
    assert usable(eccv) == 4


SST = {  # what goes wrong in the layout of SST-Sal → kind, path
    "empty": (lambda path: path.write_bytes(b""), "unreadable", "frames/0001_0003.png"),
    "end": (lambda path: cut(path, -40), "unreadable", "saliency_maps/0001_0003.png"),
    "zero": (lambda path: save_picture(path, colour=0), "constant", "saliency_maps/0001_0003.png"),
    "map": (lambda path: save_picture(path, 30, 60), "other size", "saliency_maps/0001_0003.png"),
    "flow": (lambda path: save_picture(path, 30, 60), "other size", "optical_flow/0001_0003.png"),
    "no flow": (lambda path: path.write_text("-"), "unreadable", "optical_flow/0001_0003.png"),
    "csv": (lambda path: write_fixations(path, "1,0,99,0"), "fixations", "fixations/0001.csv"),
}


@pytest.mark.parametrize("damage", SST)
def test_the_layout_of_sst_sal(sst, damage):
    harm, kind, path = SST[damage]
    (sst / path).parent.mkdir(exist_ok=True)
    harm(sst / path)
    [(found_kind, found_path)] = found(sst)
    assert found_kind == kind and found_path.startswith(path)


def test_what_is_missing_in_the_layout_of_sst_sal(sst):
    (sst / "frames/0001_0006.png").unlink()
    (sst / "saliency_maps/0001_0002.png").unlink()
    (sst / "optical_flow/0001_0001.png").unlink()  # flow is optional
    (sst / "saliency_maps/0002_0001.png").write_bytes((sst / "frames/0001_0001.png").read_bytes())
    assert set(found(sst)) == {
        ("missing frame", "saliency_maps/0001_0006.png"),
        ("no ground truth", "frames/0001_0002.png"),
        ("missing frame", "saliency_maps/0002_0001.png"),
    }
    assert usable(sst) == 4


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
        ("missing frame", "a/0004_gt.npy"),
        ("no ground truth", "a/0002.jpg"),
        ("gap in the numbering", "a/0005.jpg"),
    ]
    assert per_clip(check(eccv), "train") == {"a": (5, 4)}


def test_every_fifth_frame_is_no_gap(tmp_path):
    write_eccv_clip(tmp_path / "a", range(1, 30, 5))
    write_splits(tmp_path, train=["a"])
    assert check(tmp_path)["clean"]


def test_two_frames_of_one_number(eccv):
    (eccv / "a/3.jpg").write_bytes((eccv / "a/0003.jpg").read_bytes())
    (eccv / "a/3_gt.npy").write_bytes((eccv / "a/0003_gt.npy").read_bytes())
    [(kind, path)] = found(eccv)
    assert kind == "duplicate"
    assert path in ("a/3.jpg", "a/0003.jpg")


def test_frames_that_are_not_two_to_one_are_named_once(tmp_path):
    write_eccv_clip(tmp_path / "a", range(1, 5), height=32, width=60)
    write_splits(tmp_path, train=["a"])
    assert found(tmp_path) == [("other size", "a/0001.jpg")]
    assert "60×32" in check(tmp_path)["problems"][0]["detail"]


def test_clips_and_splits_that_disagree(eccv):
    write_eccv_clip(eccv / "b", [1])
    write_eccv_clip(eccv / "c", [1, 2])
    (eccv / "d").mkdir()
    write_splits(eccv, train=["a", "b", 7], val=["b", "gone", "d"], test=[])
    assert set(found(eccv)) == {("split", clip) for clip in ("7", "b", "c", "d", "gone")}
    report = check(eccv)
    assert per_clip(report, "train") == {"a": (6, 6), "b": (1, 1)}
    assert per_clip(report, "val") == {"b": (1, 1)} and per_clip(report, "test") == {}
    assert per_clip(report, NO_SPLIT) == {"c": (2, 2)}


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", b"\xff\xfe", '{"note": "ours"}'])
def test_files_are_looked_at_without_a_valid_split(eccv, content):
    (eccv / "splits.json").unlink()
    if content is not None:
        content = content.encode() if isinstance(content, str) else content
        (eccv / "splits.json").write_bytes(content)
    (eccv / "a/0003.jpg").write_bytes(b"")
    assert found(eccv) == [("split", "splits.json"), ("unreadable", "a/0003.jpg")]
    assert usable(eccv, NO_SPLIT) == 5


def test_eccv_2018_needs_no_splits_file(tmp_path):
    split = eccv2018_split()
    for names in split.values():
        write_eccv_clip(tmp_path / names[0], [1, 2])
    report = check(tmp_path)
    assert {problem["detail"] for problem in report["problems"]} == {"has no frames"}
    assert len(report["problems"]) == 104 - 3
    assert per_clip(report, "val") == {split["val"][0]: (2, 2)}


def write_fixations(path, *rows):
    path.write_text("\n".join(["frame,longitude,latitude,observer", *rows]) + "\n")


def test_fixations(eccv):
    path = eccv / "a/fixations.csv"
    write_fixations(path, "1,0,0,0", "6,-170,80,1")
    assert check(eccv)["clean"]
    write_fixations(path, "1,0,0,0", "7,0,0,0", "9,0,0,1", "9,0,0,2")
    [problem] = check(eccv)["problems"]
    assert (problem["kind"], problem["path"]) == ("fixations", "a")
    assert "2 frames" in problem["detail"] and "the first is 7" in problem["detail"]
    write_fixations(path, "1,0,0,0", "2,0,north,0")
    assert found(eccv) == [("fixations", "a/fixations.csv, line 3")]


def test_a_broken_vinfo_is_named_once(eccv):
    write_eccv_clip(eccv / "b", [1])
    write_splits(eccv, train=["a", "b"])
    (eccv / "vinfo.pkl").write_bytes(b"no pickle")
    assert found(eccv) == [("fixations", "vinfo.pkl")]


def test_other_files_do_not_matter(eccv):
    for name in (
        ".DS_Store",
        "a/Thumbs.db",
        "a/._0001.jpg",
        "a/.0001.1.partial.jpg",
        "a/notes.txt",
    ):
        (eccv / name).write_bytes(b"")
    write_eccv_clip(eccv / ".trash", [1])
    (eccv / "models").mkdir()
    assert check(eccv)["clean"]


ENCODINGS = [
    *({"format": "JPEG", "quality": quality} for quality in (50, 95, 100)),
    {"format": "JPEG", "quality": 100, "subsampling": 0},
    {"format": "JPEG", "quality": 95, "progressive": True, "subsampling": 0},
    {"format": "JPEG", "quality": 95, "icc_profile": bytes(30_000)},
    *({"format": "PNG", "compress_level": level} for level in (0, 1, 9)),
    {"format": "BMP"},
    {"format": "TIFF"},
    {"format": "WEBP", "quality": 90},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("colour", [0, (90, 120, 200)], ids=["black", "blue"])
def test_a_constant_frame_is_found_in_any_encoding(tmp_path, encoding, colour):
    write_eccv_clip(tmp_path / "a", [1])
    write_splits(tmp_path, train=["a"])
    save_picture(tmp_path / "a/0001.jpg", 480, 960, colour, **encoding)
    assert found(tmp_path) == [("constant", "a/0001.jpg")]


@pytest.mark.parametrize("end", ["whole", "padding", "more", "cut"])
def test_the_end_of_a_large_frame(tmp_path, end):
    write_eccv_clip(tmp_path / "a", [1])
    write_splits(tmp_path, train=["a"])
    path = tmp_path / "a/0001.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (240, 480, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=75)
    content = path.read_bytes()
    after = {"padding": bytes(100), "more": bytes(5000), "whole": b""}
    path.write_bytes(content[:-5000] if end == "cut" else content + after[end])
    assert found(tmp_path) == ([("unreadable", "a/0001.jpg")] if end == "cut" else [])


def test_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="synthetic"):
        check(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("")
    (tmp_path / "0001.jpg").write_text("")
    with pytest.raises(InputError, match="there is no data set"):
        check(tmp_path)


def test_the_summary_is_short_and_the_json_complete(eccv):
    write_eccv_clip(eccv / "b", range(1, 11))
    write_splits(eccv, train=["a"], test=["b", "gone"])
    for path in (eccv / "b").glob("*_gt.npy"):
        path.write_bytes(b"")
    report = check(eccv)
    text = summary(report).splitlines()
    assert text[:2] == [
        "train: 1 clip, 6 frames, 6 usable",
        "test: 1 clip, 10 frames, 0 usable",
    ]
    assert any(line.startswith("10 × unreadable: ") for line in text)
    assert sum("_gt.npy: the file is empty" in line for line in text) == MAX_LISTED
    assert "    … and 5 more" in text and "problems found: 11" in text[-1]
    content = json.loads(json.dumps(report))
    assert content["root"] == str(eccv) and content["clean"] is False
    assert len(content["problems"]) == 11
    assert content["splits"]["test"]["per_clip"] == {"b": {"frames": 10, "usable": 0}}
    assert {problem["kind"] for problem in content["problems"]} <= set(KINDS)


def test_the_check_reads_ground_truth_of_16_bits(tmp_path):
    """`--check` found nothing wrong with maps that were read as white."""
    for folder in ("frames", "saliency_maps"):
        (tmp_path / folder).mkdir()
    for n in (1, 2):
        Image.fromarray(moving_disc(n, 24, 48)).save(tmp_path / f"frames/a_{n:04d}.png")
        dark = np.full((24, 48), 700, np.uint16)
        dark[:, 10 * n : 10 * n + 9] = 900
        Image.fromarray(dark).save(tmp_path / f"saliency_maps/a_{n:04d}.png")
    (tmp_path / "splits.json").write_text('{"test": ["a"]}')
    assert datasets_check.check(tmp_path)["clean"]
    flat = Image.fromarray(np.full((24, 48), 700, np.uint16))
    flat.save(tmp_path / "saliency_maps/a_0002.png")
    problems = datasets_check.check(tmp_path)["problems"]
    assert [(p["kind"], p["path"]) for p in problems] == [("constant", "saliency_maps/a_0002.png")]
