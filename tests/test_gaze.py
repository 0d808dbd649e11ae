"""Fixations: maps against closed forms and the plain sum, and the files that hold gaze."""

import math
import os
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from common.errors import InputError
from datasets.gaze import fixation_map, gaussian_map
from datasets.gaze_files import (
    Fixations,
    read_fixations_csv,
    read_gaze_csv,
    read_vinfo,
    write_fixations_csv,
)
from projection import solid_angles
from tests.shared import shared

PI = math.pi


def grid(height, width):
    """Latitudes (H, 1) and longitudes (W,) of the pixel centres."""
    latitude = PI / 2 - (np.arange(height) + 0.5) * PI / height
    return latitude[:, None], (np.arange(width) + 0.5) * 2 * PI / width - PI


def plain_sum(longitudes, latitudes, height, width, sigma, weights=None):
    """Haversine formula, one exponential over the image a fixation, float64."""
    rows, columns = grid(height, width)
    total = np.zeros((height, width))
    weights = np.ones(len(longitudes)) if weights is None else weights
    for longitude, latitude, weight in zip(longitudes, latitudes, weights, strict=True):
        half = np.sin((rows - latitude) / 2) ** 2
        half = half + np.cos(rows) * math.cos(latitude) * np.sin((columns - longitude) / 2) ** 2
        distance = 2 * np.arcsin(np.sqrt(half.clip(0, 1)))
        total += weight * np.exp(-(distance**2) / (2 * math.radians(sigma) ** 2))
    return total


def random_fixations(number, seed=0):
    """Uniform on the sphere, the first ones exactly and nearly at the poles and the seam."""
    rng = np.random.default_rng(seed)
    longitude, latitude = rng.uniform(-PI, PI, number), np.arcsin(rng.uniform(-1, 1, number))
    latitude[:6] = PI / 2, -PI / 2, PI / 2 - 1e-3, -PI / 2 + 0.02, PI / 2 - 0.05, -PI / 2 + 1e-9
    longitude[6:9] = PI, -PI, PI - 1e-6
    return longitude, latitude


@pytest.mark.parametrize("size", [(60, 120), (31, 50), (128, 256), (240, 480)])
@pytest.mark.parametrize("sigma", [0.5, 3.34, 9, 30])
def test_equals_the_plain_sum(size, sigma):
    fixations = random_fixations(20)
    expected = plain_sum(*fixations, *size, sigma)
    error = np.abs(gaussian_map(*fixations, *size, sigma).numpy() - expected).max()
    assert error < 2e-5 * expected.max()


def test_the_seam_is_no_edge():
    """A fixation at ±180° is that at 0° rolled by half a turn; every column's shift likewise."""
    middle = gaussian_map([0.0], [0.3], 60, 120, 5)
    for seam in (PI, -PI, 3 * PI):
        found = gaussian_map([seam], [0.3], 60, 120, 5)
        torch.testing.assert_close(found, middle.roll(60, 1), atol=1e-5, rtol=0)
    longitude, latitude = random_fixations(15)
    turned = gaussian_map(longitude + 7 * 2 * PI / 120, latitude, 60, 120, 5)
    still = gaussian_map(longitude, latitude, 60, 120, 5)
    torch.testing.assert_close(turned, still.roll(7, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("latitude, tolerance", [(0, 1e-4), (1, 1e-4), (1.5, 3e-3), (PI / 2, 3e-3)])
def test_integral_over_the_sphere(latitude, tolerance):
    """2π ∫ exp(−θ²/2σ²) sin θ dθ ≈ 2πσ² (1 − σ²/3); in rows h apart the sum of the values at the
    pixels' centres is h²/24σ², 0.2 %, off at a pole, where sin θ bends."""
    sigma = math.radians(3.34)
    one = gaussian_map([0.4], [latitude], 240, 480, 3.34).double()
    total = (one * solid_angles(240, 480, torch.float64)).sum().item()
    assert total == pytest.approx(2 * PI * sigma**2 * (1 - sigma**2 / 3), rel=tolerance)


def test_weights_are_linear():
    longitude, latitude = random_fixations(12)
    weights = np.linspace(0, 3, 12)
    weighted = gaussian_map(longitude, latitude, 60, 120, 9, weights)
    expected = plain_sum(longitude, latitude, 60, 120, 9, weights)
    np.testing.assert_allclose(weighted, expected, atol=2e-5 * expected.max())
    often = gaussian_map(np.tile(longitude, 1000), np.tile(latitude, 1000), 60, 120, 9)
    once = gaussian_map(longitude, latitude, 60, 120, 9)
    torch.testing.assert_close(often / 1000, once, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("video", ["PVS-HMEM_mute_Lion", "VR-EyeTracker_mono_059"])
def test_equals_the_maps_of_a_published_benchmark(video):
    """Fixations and maps as OpenSAL360 distributes them: a sigma of 5° fits them."""
    data = np.load(shared("data/gaze360/opensal360_validation_gt_3videos.npz"), allow_pickle=False)
    maps, rows = data[f"val_{video}_gauss60x120_every6"], data[f"val_{video}_fix"].astype(float)
    for frame in range(60, 600, 120):
        _, x, y, value = rows[rows[:, 0] == frame].T
        longitude, latitude = (x + 0.5) / 960 * PI - PI, PI / 2 - (y + 0.5) / 960 * PI
        ours = gaussian_map(longitude, latitude, 60, 120, 5, value).numpy()
        assert np.corrcoef(ours.ravel(), maps[frame // 6].ravel())[0, 1] > 0.999


def test_never_negative_and_empty_without_fixations():
    assert gaussian_map(*random_fixations(30), 60, 120, 1.5).min() >= 0
    assert gaussian_map([], [], 4, 8, 5).tolist() == fixation_map([], [], 4, 8).tolist()
    assert gaussian_map([], [], 4, 8, 5).abs().sum() == 0


def test_counts():
    """2×4 pixels of 90°: rows split at the equator, columns at −90°, 0°, 90°."""
    degrees = [(-135, 45), (-135, 80), (10, -1), (100, 1), (179.9, -89)]
    longitude, latitude = np.radians(degrees).T
    expected = [[2, 0, 0, 1], [0, 0, 1, 1]]
    assert fixation_map(longitude, latitude, 2, 4).tolist() == expected
    assert fixation_map(longitude, latitude, 2, 4).dtype == torch.float32


def test_counts_at_the_seam_and_the_poles():
    assert fixation_map([PI, -PI, 3 * PI], [0.1] * 3, 2, 4).tolist() == [[3, 0, 0, 0], [0] * 4]
    both = fixation_map([0.1, 0.1], [PI / 2, -PI / 2], 2, 4)
    assert both.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0]]
    assert fixation_map([0.0], [0.0], 2, 4).tolist() == [[0] * 4, [0, 0, 1, 0]]  # a corner
    just_west = math.nextafter(-PI, -4)
    assert fixation_map([just_west], [0.1], 2, 4).sum() == 1


def test_every_pixel_counts_its_own_centre():
    rows, columns = grid(7, 13)
    longitude, latitude = np.broadcast_to(columns, (7, 13)), np.broadcast_to(rows, (7, 13))
    assert (fixation_map(longitude.ravel(), latitude.ravel(), 7, 13) == 1).all()


@pytest.mark.parametrize("arguments, message", [
    (([0.0], [2.0], 4, 8, 5), "outside"),
    (([math.nan], [0.0], 4, 8, 5), "not finite"),
    (([0.0, 1.0], [0.0], 4, 8, 5), "equal length"),
    (([0.0], [0.0], 0, 8, 5), "at least one row"),
    (([0.0], [0.0], 4, 8, 0.0), "sigma"),
    (([0.0], [0.0], 4, 8, math.nan), "sigma"),
    (([0.0], [0.0], 4, 8, 5, [-1.0]), "weights"),
    (([0.0], [0.0], 4, 8, 5, [1.0, 1.0]), "weights"),
])  # fmt: skip
def test_what_is_no_fixation_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_map(*arguments)


GAZE = """Observer, time ,latitude,pupil,longitude
anna,0.0,10,3.1,-170
bob,0.04,-90,3.2,190
anna,0.08,0,,-360

"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_gaze(tmp_path):
    for text in (GAZE, "\ufeff" + GAZE, GAZE.replace("\n", "\r\n")):
        gaze = read_gaze_csv(write(tmp_path / "a.csv", text))
        assert gaze.seconds.tolist() == [0, 0.04, 0.08]
        assert np.degrees(gaze.longitudes) == pytest.approx([-170, -170, 0])
        assert np.degrees(gaze.latitudes) == pytest.approx([10, -90, 0])
        assert gaze.latitudes.min() == -PI / 2
        assert gaze.observers.tolist() == [0, 1, 0]
    text = "time,longitude,latitude,observer\n0,180,90,12\n0,-180,90,7\n"
    gaze = read_gaze_csv(write(tmp_path / "b.csv", text))
    assert gaze.observers.tolist() == [12, 7]
    assert gaze.longitudes.tolist() == [PI, -PI]


@pytest.mark.parametrize("row, message", [
    ("0,0,91,a", "latitude 91 is outside"),
    ("0,361,0,a", "longitude 361 is outside"),
    ("0,x,0,a", "could not convert .* 'x'"),
    ("nan,0,0,a", "time nan is outside"),
    ("0,inf,0,a", "longitude inf is outside"),
    ("0,0,,a", "could not convert"),
    ("0,0,0", ""),
    ("0,0,0,a,b", ""),
    ("0,0,0, ", "no observer"),
])  # fmt: skip
def test_bad_rows_of_gaze_are_named(tmp_path, row, message):
    path = write(tmp_path / "bad.csv", f"time,longitude,latitude,observer\n0,0,0,a\n{row}\n")
    with pytest.raises(InputError, match=f"bad.csv, line 3: {message}"):
        read_gaze_csv(path)


@pytest.mark.parametrize("text, message", [
    ("", "the file is empty"),
    ("time;longitude;latitude;observer\n", "there is no column time, longitude"),
    ("time,longitude,observer\n0,0,a\n", "there is no column latitude; expected CSV"),
    ("time,longitude,latitude,observer\n", "no gaze after"),
    ('time,longitude,latitude,observer\n0,"0,0,a\n', "unexpected end of data .*1 of 1 lines"),
])  # fmt: skip
def test_other_files_are_no_gaze(tmp_path, text, message):
    with pytest.raises(InputError, match=f"bad.csv.*: {message}"):
        read_gaze_csv(write(tmp_path / "bad.csv", text))


def test_a_binary_file_is_no_gaze(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(InputError, match="expected CSV in UTF-8"):
        read_gaze_csv(tmp_path / "bad.csv")


def test_fixations_survive_their_file(tmp_path):
    longitude, latitude = random_fixations(50)
    fixations = Fixations(np.arange(50) // 3 + 1, longitude, latitude, np.arange(50) % 7 - 1)
    write_fixations_csv(tmp_path / "fixations.csv", fixations)
    again = read_fixations_csv(tmp_path / "fixations.csv")
    assert again.frames.tolist() == fixations.frames.tolist()
    assert again.observers.tolist() == fixations.observers.tolist()
    assert again.frames.dtype == again.observers.dtype == np.int64
    np.testing.assert_allclose(again.longitudes, longitude, atol=1e-8)
    np.testing.assert_allclose(again.latitudes, latitude, atol=1e-8)
    nothing = Fixations(*(np.zeros(0, int), np.zeros(0), np.zeros(0), np.zeros(0, int)))
    write_fixations_csv(tmp_path / "none.csv", nothing)
    assert len(read_fixations_csv(tmp_path / "none.csv").frames) == 0


@pytest.mark.parametrize("frame", ["0", "-1", "1.5", "x", ""])
def test_bad_frame_numbers_are_named(tmp_path, frame):
    text = f"frame,longitude,latitude,observer\n{frame},0,0,1\n"
    with pytest.raises(InputError, match="line 2: "):
        read_fixations_csv(write(tmp_path / "f.csv", text))


def test_fixations_as_the_code_of_d_sav360_writes_them(tmp_path):
    text = "video,frame,u,v,id\n12,0,0.5,0.5,7\n12,8,0.75,0.25,9\n"
    fixations = read_fixations_csv(write(tmp_path / "f.csv", text))
    assert fixations.frames.tolist() == [0, 8] and fixations.observers.tolist() == [7, 9]
    assert np.degrees(fixations.longitudes) == pytest.approx([0, 90])
    assert np.degrees(fixations.latitudes) == pytest.approx([0, 45])
    for place in ("x,0.5", "0.5,-0.2"):
        with pytest.raises(InputError, match="line 2: "):
            read_fixations_csv(write(tmp_path / "f.csv", f"video,frame,u,v,id\n12,0,{place},7\n"))


def pickled(path, found, protocol=4):
    path.write_bytes(pickle.dumps(found, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_reads_vinfo(tmp_path, protocol):
    """x from the left and y from the top: (0.75, 0.25) is 90° to the right and 45° up."""
    points = np.array([(0.5, 0.5), (0.0, 1.0)], ">f4")
    pairs = [[np.float64(1.0), np.float32(0.0)], np.array([0.25, 0.5])]
    found = {
        "217": {"0001": [(0.75, 0.25)], "0003": points, "0002": []},
        "218": OrderedDict({"0012": pairs, "0013": np.asfortranarray(points)}),
        219: defaultdict(list, {7: [(0, 1)]}),
    }
    clips = read_vinfo(pickled(tmp_path / "vinfo.pkl", found, protocol))
    assert list(clips) == ["217", "218", "219"]
    assert clips["217"].frames.tolist() == [1, 3, 3]
    assert np.degrees(clips["217"].longitudes) == pytest.approx([90, 0, -180])
    assert np.degrees(clips["217"].latitudes) == pytest.approx([45, 0, -90])
    assert clips["218"].frames.tolist() == [12, 12, 13, 13]
    assert np.degrees(clips["218"].longitudes) == pytest.approx([180, -90, 0, -180])
    assert np.degrees(clips["218"].latitudes) == pytest.approx([90, 0, 0, -90])
    assert clips["219"].frames.tolist() == [7]
    assert (clips["217"].observers == -1).all()


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_vinfo_executes_nothing(tmp_path):
    found = {"217": {"0001": [(0.5, 0.5)]}, "218": Command(tmp_path / "made")}
    with pytest.raises(InputError, match=r"contains (posix|nt)\.mkdir.*no code in it was executed"):
        read_vinfo(pickled(tmp_path / "vinfo.pkl", found))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["builtins eval", "numpy.core.multiarray frombuffer"])
def test_vinfo_takes_only_the_names_on_the_list(tmp_path, name):
    home, function = name.split()
    path = tmp_path / "vinfo.pkl"
    path.write_bytes(f"c{home}\n{function}\n(S'1'\ntR.".encode())
    with pytest.raises(InputError, match=f"contains {home}.{function}"):
        read_vinfo(path)


@pytest.mark.parametrize("found", [
    [1, 2],
    {"217": [1]},
    {"217": {"x.jpg": [(0.5, 0.5)]}},
    {"217": {"0000": [(0.5, 0.5)]}},
    {"217": {"0001": [(960, 480)]}},
    {"217": {"0001": [(0.1, 0.2, 0.3)]}},
    {"217": {"0001": [(0.1, -0.2)]}},
    {"217": {"0001": [(0.1, math.nan)]}},
    {"217": {"0001": 7}},
    {"217": {f"{10**20}": [(0.5, 0.5)]}},
    {"217": {"0001": np.array(["a"], object)}},
    {"217": {"0001": np.array(["ab", "cd"])}},
])  # fmt: skip
def test_a_vinfo_of_another_structure_is_refused(tmp_path, found):
    with pytest.raises(InputError, match=r"vinfo.pkl: not {clip: .* use the vinfo.pkl of 360_Sal"):
        read_vinfo(pickled(tmp_path / "vinfo.pkl", found))


def test_a_damaged_vinfo_is_named(tmp_path):
    path = pickled(tmp_path / "vinfo.pkl", {"217": {"0001": np.zeros((3, 2))}})
    whole = path.read_bytes()
    for content in (b"no pickle", whole[:-30], whole.replace(b"K\x03K\x02", b"K\x63K\x02")):
        path.write_bytes(content)
        with pytest.raises(InputError, match="vinfo.pkl: .* or damaged"):
            read_vinfo(path)


def test_a_vinfo_nested_without_end_is_shown_briefly(tmp_path):
    nested = []
    nested.append(nested)
    deep = []
    for _ in range(300):
        deep = [deep]
    for found in (nested, deep):
        with pytest.raises(InputError, match="vinfo.pkl: ") as caught:
            read_vinfo(pickled(tmp_path / "vinfo.pkl", {"217": {"0001": found}}))
        assert len(str(caught.value)) < 400
