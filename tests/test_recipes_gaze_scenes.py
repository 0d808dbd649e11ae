"""Gaze scenes: photographs and fixations on the sphere, their sources, splits and files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import InputError
from datasets import SaliencyVideos
from datasets.gaze_files import read_fixations_csv
from models import Spec
from models.equator_prior import gaze_density
from prepare import synthetic
from projection import directions, solid_angles
from recipes import gaze_scenes, gaze_sources
from recipes.collages import (
    fixated,
)
from recipes.gaze_scenes import BASE, EMPTY, Attention, render, write_dataset
from recipes.gaze_sources import Picture, read_sources
from recipes.patches import Canvas, Outline, Patch, pose
from recipes.people import Detector
from tests.commands import written
from tests.scenes import write_clips, write_photographs
from tests.shared import shared
from tests.trainings import server
from video.pictures import read_picture

HARD = Outline(16, 1e-3, 0.0, np.zeros(3))  # opaque nearly to the edges
SPEC = Spec(height=24, width=48, clip_length=2, motion="difference")


def patch(longitude, latitude, field=40.0, roll=0.0, aspect=0.75, outline=HARD):
    """Angles in degrees; the field is the horizontal one."""
    extent = math.tan(math.radians(field / 2)) * np.array([1, aspect])
    return Patch(pose(*np.radians([longitude, latitude, roll])), extent, outline)


def direction(longitude, latitude):
    """Of degrees: (3,)."""
    longitude, latitude = math.radians(longitude), math.radians(latitude)
    across = math.cos(latitude)
    x, z = across * math.sin(longitude), across * math.cos(longitude)
    return np.array([x, math.sin(latitude), z])


def rays(height, width):
    return directions(height, width, torch.float32).numpy()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_photographs(root / "osie")
    write_clips(root / "hevc33_video", ("Clip", "Kimono", "ParkScene"))
    people = {"osie/images/001.jpg": [[0.2, 0.1, 0.7, 0.9]]}
    (root / "people.json").write_text(json.dumps(people))
    return root


# Geometry


@pytest.mark.parametrize("where, u, v, expected", [
    ((0, 0), 0, 0, (0, 0)),
    ((30, 0), 1, 0, (50, 0)),
    ((175, 0), 1, 0, (-165, 0)),  # beyond the seam
    ((-175, 10), 0, 0, (-175, 10)),
    ((20, 80, 40, 0, 1), 0, -1, (-160, 80)),  # 20° up from 80° is beyond the pole
    ((20, -80, 40, 0, 1), 0, 1, (-160, -80)),
    ((10, 90, 40, 0, 1), 0, 1, (10, 70)),  # the pole itself: "down" is towards its longitude
    ((0, 0, 40, 90, 1), 0, -1, (20, 0)),  # rolled clockwise: the top is on the right
])  # fmt: skip
def test_a_place_of_a_photograph_is_at_the_predicted_direction(where, u, v, expected):
    there = patch(*where).directions(np.array([float(u)]), np.array([float(v)]))[0]
    assert there == pytest.approx(direction(*expected), abs=1e-12)


def test_projection_undoes_placing_and_nothing_is_seen_behind():
    tilted, rng = patch(170, 60, 90, 25), np.random.default_rng(0)
    u, v = rng.uniform(-1, 1, (2, 50))
    for found, given in zip(tilted.project(tilted.directions(u, v)), (u, v), strict=True):
        assert found == pytest.approx(given, abs=1e-12)
    assert (tilted.opacity(-tilted.directions(u, v)) == 0).all()
    assert tilted.opacity(-tilted.directions(np.zeros(1), np.zeros(1))) == 0  # the antipode


@pytest.mark.parametrize("where", [(0, 0), (178, 5), (-100, 70, 60, 30), (60, -88, 60)])
def test_what_was_fixated_and_its_fixation_land_at_the_same_direction(where):
    """Over the seam and the poles, too: a white spot on black at (0.7, 0.4) of the picture."""
    image = np.zeros((90, 120, 3), np.uint8)
    image[34:38, 82:86] = 255
    for mirror in (1, -1):
        canvas, there = Canvas(rays(180, 360)), patch(*where)
        canvas.put(there, np.ascontiguousarray(image[:, ::mirror]))
        one = Picture(Path(), np.array([0.7]), np.array([0.4]), np.array([1.0]))
        u, v, *_ = fixated(one, mirror, there.solid_angle)
        light = canvas.light[..., :1].astype(np.float64) * np.cos(
            np.linspace(math.pi / 2, -math.pi / 2, 180)
        ).reshape(-1, 1, 1)
        middle = (light * canvas.rays).sum(axis=(0, 1))
        middle /= np.linalg.norm(middle)
        assert math.degrees(math.acos(min(1, middle @ there.directions(u, v)[0]))) < 0.6


# Attention


@pytest.mark.parametrize("longitude, latitude", [(0, 0), (179, 8), (-120, -15)])
def test_attention_peaks_at_the_fixation_of_a_single_photograph(longitude, latitude):
    there, weights = direction(longitude, latitude)[None], np.array([patch(0, 0).solid_angle])
    density, _, _ = Attention(90).density(there, weights, np.zeros((45, 90), np.float32))
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert abs(90 - (row + 0.5) * 2 - latitude) <= 2  # the prior pulls it towards the equator
    assert abs((column + 0.5) * 2 - 180 - longitude) <= 1
    assert density.max() == 1


def test_mean_content_of_a_photograph_is_one():
    """∫ content = its solid angle, wherever it lies and however often it was fixated."""
    areas = solid_angles(128, 256, torch.float64).numpy()
    prior = gaze_density(128, 1).numpy()
    for where, count in (((170, 0, 80), 30), ((0, 85, 60), 200)):
        there, rng = patch(*where), np.random.default_rng(0)
        one = Picture(Path(), *rng.random((2, count)), rng.uniform(1, 2, count))
        u, v, weights, _ = fixated(one, 1, there.solid_angle)
        assert weights.sum() == pytest.approx(there.solid_angle)
        left = np.zeros((128, 256), np.float32)
        density, _, _ = Attention(128).density(there.directions(u, v), weights, left)
        content = density / prior  # up to one factor, which the base fixes
        content = content / content.min() * BASE - BASE
        assert (content * areas).sum() == pytest.approx(there.solid_angle, rel=0.01)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_attention_to_an_empty_world_is_the_prior_over_latitude(power):
    nothing = np.zeros((0, 3)), np.zeros(0), np.ones((32, 64), np.float32)
    density, _, rest = Attention(64).density(*nothing, power)
    prior = gaze_density(64, 1).numpy()
    prior = (prior / prior.max()) ** power
    assert density == pytest.approx(np.broadcast_to(prior, (64, 128)), rel=1e-5)
    areas = solid_angles(64, 128, torch.float64).numpy()
    assert rest.sum() == pytest.approx((BASE + EMPTY) * (prior * areas * 128).sum())


# People


def test_fixations_on_people_keep_their_weight_at_any_latitude(tmp_path):
    """One on somebody and one beside them at −60°: as dense as the prior to either power."""
    box = np.array([[0.4, 0.2, 0.6, 0.9]])
    one = Picture(Path(), np.array([0.5, 0.1]), np.array([0.5, 0.5]), np.ones(2), box)
    assert one.on_people().tolist() == [True, False]
    assert Picture(Path(), np.zeros(2), np.zeros(2), np.ones(2)).on_people().tolist() == [False] * 2
    there = np.stack([direction(90, -60), direction(-90, -60)])
    powers = np.array([gaze_scenes.ON_PEOPLE, 1.0])
    left = np.zeros((128, 256), np.float32)
    density, shares, _ = Attention(128).density(there, np.ones(2), left, 1.0, powers)
    prior = gaze_density(128, 1).numpy()[:, 0]
    ratio = np.interp(-60, np.linspace(-89.3, 89.3, 128), prior[::-1] / prior.max())
    assert shares[1] / shares[0] == pytest.approx(ratio ** (1 - gaze_scenes.ON_PEOPLE), rel=0.05)
    halves = density[:, 128:].max(), density[:, :128].max()
    assert halves[1] / halves[0] == pytest.approx(shares[1] / shares[0], rel=0.3)
    lift = Attention(128).lift(there, np.ones(2), left, 1.0, powers)
    row = int(128 * 150 / 180)
    assert lift.min() == 1 and lift[row, 64] == pytest.approx(1, abs=0.01)
    assert lift[row, 192] == pytest.approx(ratio ** (gaze_scenes.ON_PEOPLE - 1), rel=0.05)


def test_people_of_a_photograph_are_found():
    """With the real detector, where it is at hand: one woman in the middle of a clip's frame."""
    detector = Detector(shared("teachers/detectors/fastestdet.onnx"), 0.35)
    picture = read_picture(shared("data/osie/images") / "1001.jpg")
    boxes = np.array(detector(picture)).reshape(-1, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    assert detector(np.full((60, 80, 3), 90, np.uint8)) == []


class Cells:
    """A detector's network that finds one class, a quarter of the picture large, in its middle."""

    def __init__(self, channel):
        self.cells = np.zeros((1, 85, 22, 22), np.float32)
        self.cells[0, [0, channel], 11, 11] = 1

    def setInput(self, blob):  # noqa: N802
        assert blob.shape == (1, 3, 352, 352)

    def forward(self):
        return self.cells


@pytest.mark.parametrize("channel, found", [(5, 1), (6, 1), (7, 0), (13, 1), (18, 0), (22, 1),
                                            (37, 1), (39, 0), (42, 1), (61, 0)])  # fmt: skip
def test_riders_animals_and_balls_count_as_people(channel, found):
    """Of COCO's classes: no car, bench, racket nor chair."""
    detector = Detector.__new__(Detector)
    detector.score, detector.network = 0.35, Cells(channel)
    boxes = detector(np.zeros((60, 80, 3), np.uint8))
    assert len(boxes) == found and boxes in ([], [[0.25, 0.25, 0.75, 0.75]])


# Scenes


def test_frames_are_valid_and_reproducible(root):
    sources = read_sources(root, root / "people.json")["train"]
    one, two, other = (list(render(seed, sources, 24)) for seed in (3, 3, 11))
    assert {frames[0][2] is None for frames in (one, other)} == {True, False}  # one is a mosaic
    for frame, again in zip(one, two, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(frame, again, strict=True))
        image, density, lift, longitudes, latitudes = frame
        assert lift is None or (lift.shape == (128, 256) and lift.min() == 1)
        assert image.shape == (24, 48, 3) and image.dtype == np.uint8
        assert density.shape == (128, 256) and density.dtype == np.float16
        assert density.min() > 0 and density.max() == 1
        assert 20 < len(longitudes) < 200 and abs(latitudes).max() <= math.pi / 2
    assert (one[0][0] != other[0][0]).any()


# Files


@pytest.mark.slow
def test_data_set_does_not_depend_on_workers_and_is_read(root, tmp_path, monkeypatch):
    context = server()  # its processes start at once
    monkeypatch.setattr(synthetic.multiprocessing, "get_context", lambda _: context)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, workers in ((one, 1), (two, 2)):
        write_dataset(folder, root, root / "people.json", 3, 5, 24, "train", workers)
    assert written(one) == written(two)
    splits = json.loads((one / "splits.json").read_text())
    assert splits == {"train": [f"scene_{n:06d}" for n in (1, 2, 3)]}
    about = json.loads((one / "scenes.json").read_text())
    assert set(about["sources"]) == {"osie", "hevc33_video"} and about["seed"] == 5
    data = SaliencyVideos(one, "train", SPEC)
    assert len(data) == 3 and not data.irregular
    for item in (data[0], data[2]):
        assert item["valid"].all() and not item["irregular"]
        assert item["target"].amax((-2, -1)).eq(1).all()
        assert (item["fixations"].sum((-2, -1)) > 20).all()
    fixations = read_fixations_csv(one / "scene_000002" / "fixations.csv")
    assert set(fixations.frames) == {1, 2} and (fixations.observers == -1).all()

    before = written(one)
    record = one / "scene_000001" / "prepared.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "complete": False}))
    kept = (one / "scene_000002" / "0001.jpg").stat().st_ino
    write_dataset(one, root, root / "people.json", 3, 5, 24, "train")
    assert written(one) == before
    assert (one / "scene_000002" / "0001.jpg").stat().st_ino == kept


# Sources


def test_splits_of_the_real_sources():
    """The last 50 photographs of OSIE and five clips are for testing; nothing is in two splits."""
    splits = read_sources(shared("data"))
    paths = {
        name: {p.path for p in [*part.photographs, *sum(part.clips, [])]}
        for name, part in splits.items()
    }
    assert not (paths["train"] & paths["val"] or paths["train"] & paths["test"])
    assert not paths["val"] & paths["test"]
    with np.load(shared("data/osie/fixations.npz"), allow_pickle=False) as file:
        names = file["names"]
    assert [p.path.name for p in splits["test"].photographs] == names[600:].tolist()
    counts = {name: (len(part.photographs), len(part.clips)) for name, part in splits.items()}
    assert counts == {"train": (1660, 22), "val": (130, 2), "test": (50, 5)}
    clips = {clip[0].path.name.split("_")[0] for clip in splits["test"].clips}
    assert clips == {"Kimono", "RaceHorsesC", "FourPeople", "BQMall", "PeopleOnStreet"}
    assert not any("RaceHorsesD" in str(path) for path in paths["train"] | paths["val"])


def test_positions_recorded_at_another_width_are_corrected():
    """467, 319 in 1024×768, shown 512 wide: 0.912, 0.831. The second clip is right as it is."""
    x, y = np.array([467 / 1024, 0.1, 0.95]), np.array([319 / 768, 0.2, 0.3])
    right_x, right_y = gaze_sources._corrected(x, y, np.array([0, 0, 1]))
    assert right_x == pytest.approx([467 / 512, 0.2, 0.95])
    assert right_y == pytest.approx([319 / 384, 0.4, 0.3])


def test_weights_halve_the_preference_for_places():
    """Half of the fixations in one of 64 cells, c times as many as the mean: weight 1/√c."""
    grid = (np.arange(64) + 0.5) / 64
    even_x, even_y = (a.ravel() for a in np.meshgrid(grid, grid))
    many = np.full(4096, 9 / 16)  # the middle of a cell
    x, y = np.concatenate([even_x, many]), np.concatenate([even_y, many])
    everyone = np.ones(len(x))
    weights = gaze_sources._weights(even_x, even_y, np.ones(4096))
    assert weights == pytest.approx(np.ones(4096))
    assert gaze_sources._weights(x, y, everyone)[-1] == pytest.approx(
        ((8192 + 64) / 64 / (64 + 4096 + 1)) ** 0.5, rel=0.1
    )
    assert gaze_sources._weights(x, y, 1.0 * (np.arange(len(x)) >= 4096)).max() == 2


def test_first_fixations_and_the_onset_of_clips_are_left_out(root):
    part = read_sources(root)["train"]
    assert [len(p.x) for p in part.photographs] == [18] * 4  # of 20; two people
    assert [p.path.stem for p in part.clips[0]] == [f"Clip_{n}" for n in range(2, 6)]
    with np.load(root / "hevc33_video" / "fixations.npz", allow_pickle=False) as file:
        begin, x = file["time_ms"][:40], file["x"][:40]
    live = (begin <= 500 + 250) & (begin + 300 >= 500 - 250)
    assert part.clips[0][0].x == pytest.approx(x[live])


def drop(columns, key):
    del columns[key]


BAD = {
    "order is not a file": lambda c: drop(c, "order"),
    "image exceeds its 4 names": lambda c: c.update(image=c["image"] + 1),
    "x holds values outside": lambda c: c.update(x=c["x"] * 100),
    "y holds values": lambda c: c.update(y=np.full_like(c["y"], np.nan)),
    "image, order, x, y differ in length": lambda c: c.update(y=c["y"][1:]),
    "not a readable": lambda c: c.update(names=np.array([{}] * 4)),  # only as a pickle
    "and 1 more": lambda c: c.update(names=np.array(["000.jpg", "001.jpg", "x.jpg", "y.jpg"])),
    "no fixation on 003.jpg": lambda c: c.update(image=c["image"].clip(max=2)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_photographs_are_refused(message, tmp_path):
    columns = write_photographs(tmp_path / "osie")
    BAD[message](columns)
    np.savez(tmp_path / "osie" / "fixations.npz", **columns)
    with pytest.raises(InputError, match=message) as error:
        read_sources(tmp_path)
    assert "osie" in str(error.value)


def write_map(path: Path, rows: slice, columns: slice):
    """A map of 192×256 that is white in these rows and columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((192, 256), np.uint8)
    picture[rows, columns] = 255
    Image.fromarray(picture).save(path)


def test_maps_count_as_the_fixations_of_eight_people(tmp_path):
    """Of their own photographs, and added to the fixations of others. A cell is 8×8 pixels."""
    write_photographs(tmp_path / "eyecrowd", 50)
    picture = tmp_path / "emod" / "images" / "a.jpg"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (256, 192), "grey").save(picture)
    write_map(tmp_path / "emod" / "maps" / "a.png", slice(0, 8), slice(240, 256))
    write_map(tmp_path / "emod" / "eyecrowd_extra_maps" / "003.png", slice(96, 104), slice(8, 16))
    photographs = read_sources(tmp_path)["train"].photographs
    own = next(photograph for photograph in photographs if photograph.path == picture)
    assert own.x == pytest.approx([30.5 / 32, 31.5 / 32])
    assert own.y == pytest.approx([0.5 / 24] * 2)
    assert own.weights[0] == own.weights[1]
    third = next(photograph for photograph in photographs if photograph.path.name == "003.jpg")
    assert len(third.x) == 18 + 1  # two people, without their first fixations
    assert (third.x[-1], third.y[-1]) == pytest.approx((1.5 / 32, 12.5 / 24))
    assert third.weights[-1] > 10 * third.weights[:-1].max()  # 120 fixations in a frequent place
