"""prepare.vr_eyetracking, prepare.salient360, …: small sets written in the formats of others."""

import json
import struct
import zlib
from multiprocessing import get_context
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from common.errors import InputError
from datasets import SaliencyVideos, check
from datasets.gaze import gaussian_map
from datasets.gaze_files import read_fixations_csv
from models import Spec
from prepare import d_sav360, pvs_hmem, salient360, vr_eyetracking
from tests.clips import moving_disc, write_video
from tests.commands import ended, refusal
from tests.trainings import server

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
    text = line(1, 0.5, 0.5) + line(3, 0.75, 0.75) + line(4, 0.25, 0.25)
    write_text(gaze / "p001/003._2017-10-13-10-28_ori_0.txt", text)
    write_text(gaze / "p012/003.txt", line(12, 0.5, 1.0))
    write_text(gaze / "p012/009.txt", line(1, 0.5, 0.5))
    return tmp_path


def test_vr_eyetracking(vr_eyetracking_files):
    code, printed, _ = import_vr_eyetracking(vr_eyetracking_files)
    root = vr_eyetracking_files / "out"
    assert code == 0 and "1 clip, 4 frames, 4 fixations" in printed
    assert "2 videos or gaze files have no counterpart: 007.mp4, 009.txt" in printed
    fixations = read_fixations_csv(root / "003/fixations.csv")
    assert fixations.frames.tolist() == [1, 1, 2, 4]  # every third frame is kept
    assert np.degrees(fixations.longitudes) == pytest.approx([0, 90, -90, 0])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45, -45, 90])
    assert fixations.observers.tolist() == [1, 1, 1, 12]
    truth = np.load(root / "003/0001_gt.npy")
    np.testing.assert_allclose(truth, gaussian_map(*fixations.at(1), 16, 32, 5), atol=1e-6)
    assert json.loads((root / "dataset.json").read_text()) == {"fps": {"003": 8.0}}
    assert check.check(root)["problems"] == [{"kind": "no ground truth", "detail": "003/0003.jpg"}]
    assert len(SaliencyVideos(root, "train", Spec(24, 48))) == 3


@pytest.mark.parametrize("text", [
    "",
    "frame,1,forward\n",
    "frame,x,f,0,0,e,0,0\n",
    "\x00\xff",
    f"frame,{'9' * 400},f,0,0,e,0,0",
])  # fmt: skip
def test_other_files_than_those_of_vr_eyetracking_are_named(vr_eyetracking_files, text):
    write_text(vr_eyetracking_files / "gaze/p001/003._2017-10-13-10-28_ori_0.txt", text)
    refusal(import_vr_eyetracking(vr_eyetracking_files), "003._2017-10-13-10-28_ori_0.txt")


def test_vr_eyetracking_without_a_pair_is_refused(vr_eyetracking_files):
    (vr_eyetracking_files / "videos/003.mp4").unlink()
    code, _, line = import_vr_eyetracking(vr_eyetracking_files)
    assert code == 2 and "1 videos and 2 gaze files have no name in common" in line


def import_pvs_hmem(folder, context=server):
    """context: of the child that reads the file, which starts at once."""
    paths = {"videos": folder / "videos", "gaze": folder / "gaze.mat", "output": folder / "out"}
    words = [word for option, path in paths.items() for word in (f"--{option}", path)]
    with mock.patch.object(pvs_hmem, "get_context", lambda method: context()):
        return ended(pvs_hmem.main, *words, *SMALL)


@pytest.mark.parametrize("compressed", [False, True])
def test_pvs_hmem(tmp_path, compressed):
    """Two rows a frame, latitude and longitude of each person, upwards and to the left."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/Lion.mp4", frames=6, height=48, width=96, fps=24)
    write_video(tmp_path / "videos/Other.mp4", frames=2)
    matrix = np.full((12, 4), np.nan)
    matrix[0] = 0, 0, 45, 90
    matrix[1, :2] = -30, -120
    matrix[5, 2:] = 10, 20  # of the third frame, which belongs to the first of those kept
    matrix[6, 2:] = 90, 180
    savemat(tmp_path / "gaze.mat", {"Lion": matrix, "Dubai": matrix}, do_compression=compressed)
    code, printed, _ = import_pvs_hmem(tmp_path)
    root = tmp_path / "out"
    assert code == 0 and "1 clip, 2 frames, 5 fixations" in printed
    assert "2 videos or gaze files have no counterpart: Other.mp4, Dubai" in printed
    fixations = read_fixations_csv(root / "Lion/fixations.csv")
    assert fixations.frames.tolist() == [1, 1, 1, 1, 2]  # every third frame is kept
    assert np.degrees(fixations.longitudes) == pytest.approx([0, -90, 120, -20, -180])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45, -30, 10, 90])
    assert fixations.observers.tolist() == [0, 1, 0, 1, 1]
    truth = np.load(root / "Lion/0001_gt.npy")
    np.testing.assert_allclose(truth, gaussian_map(*fixations.at(1), 16, 32, 7), atol=1e-6)
    assert check.check(root)["problems"] == []


def test_other_files_than_that_of_pvs_hmem_are_named(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/Lion.mp4", frames=6, fps=24)
    nothing = np.full((12, 4), np.nan)
    for wrong in (nothing, np.zeros((12, 3)), np.zeros((0, 4)), "text"):
        savemat(tmp_path / "gaze.mat", {"Lion": wrong})
        refusal(import_pvs_hmem(tmp_path), "gaze.mat: 'Lion' is not gaze of PVS-HMEM")
    for wrong in (b"", b"MATLAB 5.0", b"\0" * 500):
        (tmp_path / "gaze.mat").write_bytes(wrong)
        refusal(import_pvs_hmem(tmp_path), "gaze.mat")
    savemat(tmp_path / "gaze.mat", {"Lion": np.full((12, 4), 1 + 2j)})
    code, _, line = import_pvs_hmem(tmp_path)  # the imaginary parts were left out, with a warning
    assert code == 2 and "'Lion' is not gaze of PVS-HMEM (Cannot cast" in line
    savemat(tmp_path / "gaze.mat", {"Dubai": np.zeros((12, 2))})
    assert "1 videos and 1 gaze files have no name in common" in refusal(import_pvs_hmem(tmp_path))


def test_impossible_directions_in_pvs_hmem_are_named_and_left_out(tmp_path):
    """One cost a video, and a latitude without a longitude was lost silently."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/Lion.mp4", frames=6, fps=24)
    matrix = np.zeros((12, 4))
    matrix[3, :2], matrix[5], matrix[7, 3] = (95, 0), np.nan, np.nan
    savemat(tmp_path / "gaze.mat", {"Lion": matrix})
    code, printed, errors = import_pvs_hmem(tmp_path)
    assert code == 0 and "20 fixations" in printed
    assert "2 invalid lines or files left out, the first: " in errors
    assert "gaze.mat, Lion, row 4, person 1: 95.0°, 0.0°" in errors
    savemat(tmp_path / "gaze.mat", {"Lion": np.tile([0, 181], (12, 2))})
    refusal(import_pvs_hmem(tmp_path), "(24 of 24 lines are invalid); export it again")


def test_a_matlab_file_of_zeros_took_gigabytes(tmp_path):
    """A compressed matrix is a thousand times as large as its file, and its sizes may be false."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/Lion.mp4", frames=6, fps=24)
    savemat(tmp_path / "gaze.mat", {"Lion": np.zeros((80_000, 116), np.uint8)}, do_compression=True)
    refusal(import_pvs_hmem(tmp_path), "gaze.mat: not a MATLAB file (a matrix is too")
    sizes = 14, 0xFFFFFF80, 6, 8, 6, 0, 5, 8, 1, 1, 1 | 4 << 16, 0x6E6F694C, 9, 0xFFFFFF00
    packed = zlib.compress(struct.pack("<14I", *sizes) + bytes(64))  # "Lion", 1×1, of 4 GB
    begin = b"MATLAB".ljust(124) + b"\0\1IM" + struct.pack("<2I", 15, len(packed))
    (tmp_path / "gaze.mat").write_bytes(begin + packed)
    refusal(import_pvs_hmem(tmp_path), "gaze.mat: not a MATLAB file (MemoryError)")


@pytest.mark.slow
def test_one_damaged_byte_ended_python_inside_scipy(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/Lion.mp4", frames=6, fps=24)
    savemat(tmp_path / "gaze.mat", {"Lion": np.zeros((12, 4))})
    content = bytearray((tmp_path / "gaze.mat").read_bytes())
    content[176] = 255  # the type of the matrix's numbers
    (tmp_path / "gaze.mat").write_bytes(content)
    refusal(import_pvs_hmem(tmp_path, lambda: get_context("spawn")), "gaze.mat: not a MATLAB file")


def import_d_sav360(folder, *more):
    words = ("--videos", folder / "videos", "--gaze", folder / "gaze_data")
    return ended(d_sav360.main, *words, "--output", folder / "out", *SMALL, *more)


HEADER = "t,video,id,frame,u,v,head,fixation,valid_fix_classification\n"


@pytest.mark.parametrize("yes, no", [("1", "0"), ("True", "False")])
def test_d_sav360(tmp_path, yes, no):
    for name in ("0001", "0002"):
        (tmp_path / f"videos/{name}").mkdir(parents=True)
    write_video(tmp_path / "videos/0001/0001.mp4", frames=12, height=48, width=96, fps=24)
    write_video(tmp_path / "videos/0002/0002.mp4", frames=2)
    row = "{},1,{},{},{},{},,{},{}\n".format  # time, person, frame, u, v, fixation, valid
    rows = [
        row(0.0, "ana", 0, 0.5, 0.5, yes, yes),  # no gaze
        row(0.01, "ana", 0, 0.75, 0.25, yes, yes),
        row(0.1, "ana", 2, 0.8, 0.25, yes, yes),  # goes on in the time of the first frame
        row(0.13, "ana", 3, 0.25, 0.75, yes, yes),  # and in that of the next
        row(0.26, "ana", 6, 0.3, 0.3, no, yes),
        row(0.27, "ana", 6, 0.3, 0.3, yes, no),
        row(0.28, "ana", 7, "", "", no, no),
        row(0.29, "ana", 8, 0.5, 0.5, yes, yes),
        row(0.01, "ben", 0, 0.0, 1.0, yes, yes),
        row(0.02, "ben", 0, 0.1, 0.1, no, yes),
        row(0.03, "ben", 1, 0.5, 0.75, yes, yes),
    ]
    write_text(tmp_path / "gaze_data/a.csv", HEADER + "".join(reversed(rows)))
    write_text(tmp_path / "gaze_data/b.csv", HEADER + "0,7,ana,1,0.5,0.5,,1,1\n")
    code, printed, error = import_d_sav360(tmp_path)
    assert code == 0 and "1 clip, 4 frames, 5 fixations" in printed, error
    assert "2 videos or gaze files have no counterpart: 0002.mp4, b.csv" in printed
    fixations = read_fixations_csv(tmp_path / "out/0001/fixations.csv")
    places = {
        (frame, round(np.degrees(x)), round(np.degrees(y)))
        for frame, x, y in zip(*fixations[:3], strict=True)
    }
    assert places == {(1, 90, 45), (1, -180, -90), (1, 0, -45), (2, -90, -45), (3, 0, 0)}
    assert len(set(fixations.observers)) == 2
    truth = np.load(tmp_path / "out/0001/0002_gt.npy")
    np.testing.assert_allclose(truth, gaussian_map(*fixations.at(2), 16, 32, 5), atol=1e-6)


def test_bad_lines_of_d_sav360_are_named_and_left_out(tmp_path):
    """One cost the data set; a place outside the picture and an empty frame were lost silently."""
    (tmp_path / "videos/0001").mkdir(parents=True)
    write_video(tmp_path / "videos/0001/0001.mp4", frames=40, fps=24)
    row = "{},1,ana,{},{},0.5,,{seen},{seen}\n".format
    good = [row(n / 24, n, 0.6, seen=1) + row(n / 24, n, "", seen=0) for n in range(38)]
    bad = ["0,1,ana", "\n", row(1.6, 39, 1.6, seen=1), row(1.6, "", 0.5, seen=0)]
    bad += [row(1.6, 39, "", seen=1), row(1.6, 1.5, 0.5, seen=1)]
    write_text(tmp_path / "gaze_data/a.csv", HEADER + "".join(good + bad[1:] + bad[:1]))
    code, printed, errors = import_d_sav360(tmp_path)
    assert code == 0 and "14 frames, 38 fixations" in printed
    assert "6 invalid lines or files left out, the first: " in errors
    assert "a.csv, line 78: it is blank" in errors
    write_text(tmp_path / "gaze_data/a.csv", HEADER + "".join(good[:20] + bad))
    refusal(import_d_sav360(tmp_path), "are invalid); export it again")


def test_other_files_than_those_of_d_sav360_are_named(tmp_path):
    (tmp_path / "videos/0001").mkdir(parents=True)
    write_video(tmp_path / "videos/0001/0001.mp4", frames=2)
    far = HEADER + "0,1,a,1e300,0.5,0.5,,1,1\n"  # it was accepted
    for text in ("", "video,id\n1,2\n", HEADER + "0,1,a,x,0.5,0.5,,1,1\n", "\x00\xff", far):
        write_text(tmp_path / "gaze_data/a.csv", text)
        refusal(import_d_sav360(tmp_path), "a.csv")
    write_text(tmp_path / "gaze_data/a.csv", HEADER + "0,7,ana,1,0.5,0.5,,1,1\n")
    assert "1 videos and 1 gaze files have no name in common" in refusal(import_d_sav360(tmp_path))


def write_maps(path, maps):
    path.parent.mkdir(parents=True, exist_ok=True)
    maps.astype("<f4").tofile(path)


def import_salient360(folder, *more):
    words = ("--source", folder / "set", "--output", folder / "out", *SMALL, *more)
    return ended(salient360.main, *words)


def test_images_of_salient360(tmp_path):
    source, maps = tmp_path / "set", np.random.default_rng(0).random((2, 32, 64))
    (source / "Stimuli").mkdir(parents=True)
    for number in (5, 50, 51):
        picture = Image.fromarray(moving_disc(number, 48, 96))
        picture.save(source / f"Stimuli/P{number}_96x48.jpg")
    for number, saliency in zip((5, 50), maps):
        write_maps(source / f"HE/SalMaps/HEsalmap_{number}_64x32_32b.bin", saliency)
    text = "Idx, longitude, latitude, start\n0, 0.5, 0.5, 0\n1, 0.75, 0.25, 0.3\n0, 0, 1, 0"
    write_text(source / "HE/Scanpaths/L/HEscanpath_50.txt", text)
    write_text(source / "HE/Scanpaths/R/HEscanpath_50.txt", text)
    code, printed, _ = import_salient360(tmp_path)
    root = tmp_path / "out"
    assert code == 0 and "2 clips, 2 frames, 3 fixations" in printed
    assert "1 without fixations in HE/Scanpaths/L: P5_96x48.jpg" in printed
    assert "1 videos or gaze files have no counterpart: P51_96x48.jpg" in printed
    expected = maps[1].reshape(16, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(np.load(root / "P50_96x48/0001_gt.npy"), expected, rtol=1e-4)
    fixations = read_fixations_csv(root / "P50_96x48/fixations.csv")
    assert np.degrees(fixations.longitudes) == pytest.approx([0, 90, -180])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45, -90])
    assert len(np.unique(fixations.observers[:2])) == 1 != len(np.unique(fixations.observers))
    assert check.check(root)["problems"] == []


def test_videos_of_salient360(tmp_path):
    source, maps = tmp_path / "set", np.random.default_rng(0).random((11, 8, 16)) + 1
    maps[:, 4, [4, 8]] += 5  # where people look
    (source / "Stimuli").mkdir(parents=True)
    write_video(source / "Stimuli/3_Clip.mp4", frames=12, height=48, width=96, fps=24)
    write_maps(source / "HE/SalMaps/3_Clip_16x8x11_32b.bin", maps)
    text = "0,0.5,0.5,0,0.2,0,4\n1,0.25,0.5,0.2,0.1,7,8\n0,0.5,0.5,0,0.5,0,11\n"
    write_text(source / "HE/Scanpaths/L/3_Clip_fixations.csv", text)
    code, _, _ = import_salient360(tmp_path, "--gt_height", 8)
    root = tmp_path / "out"
    assert code == 0
    for number, frame in enumerate((0, 3, 6, 9), 1):  # of the video, from 0
        truth = np.load(root / f"3_Clip/{number:04d}_gt.npy")
        np.testing.assert_allclose(truth, maps[frame], rtol=1e-6)
    fixations = read_fixations_csv(root / "3_Clip/fixations.csv")
    assert fixations.frames.tolist() == [1, 1, 2, 2, 3, 4]
    assert check.check(root)["problems"] == []


@pytest.mark.parametrize("frames", ["nan,4", "0,1e300", "inf,4", "0," + "9" * 400])
def test_a_fixation_of_a_frame_that_no_video_has_was_accepted(tmp_path, frames):
    path = tmp_path / "a.csv"
    path.write_text(f"0,0.5,0.5,0,0.2,{frames}\n")
    with pytest.raises(InputError, match="a.csv, line 1: a frame that no video has"):
        salient360.read_scanpaths(path)


@pytest.mark.parametrize("name", ["HEsalmap_5_64x32.bin", "HEsalmap_5_128x64_32b.bin"])
def test_other_maps_than_their_names_state_are_refused(tmp_path, name):
    source = tmp_path / "set"
    (source / "Stimuli").mkdir(parents=True)
    Image.fromarray(moving_disc(0, 48, 96)).save(source / "Stimuli/P5.png")
    write_maps(source / f"HE/SalMaps/{name}", np.ones((32, 64)))
    refusal(import_salient360(tmp_path), name)
