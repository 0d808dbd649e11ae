"""Exports: peaks, tiles and densities on maps with known answers, and their files."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import infer_video
import make_video
import models
from maps.attention import CAP_RADIUS, density, peaks, share, tiles
from maps.exports import export_path, write_maps, write_peaks, write_tiles
from maps.saved import write_map
from tests.clips import moving_disc, write_varying_video, write_video
from tests.commands import ROOT, ended, infer, read_record, refusal, written

H, W = 120, 240
PLACES = [  # (longitude, latitude) in degrees, none on a pixel's centre
    *[(12.34, 5.67), (-100.1, -47.3), (179.93, 10.2), (-179.98, -30.1), (180.0, 0.0)],
    *[(33.3, 89.7), (-120.0, 88.1), (7.0, -89.95), (0.0, 90.0), (150.0, -88.6)],
]


def directions_of(height, width):
    """Written once more here: x, y, z of all pixel centres, (3, H, W)."""
    latitude = np.radians(90 - (np.arange(height)[:, None] + 0.5) * 180 / height)
    longitude = np.radians((np.arange(width) + 0.5) * 360 / width - 180)
    return np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude) + 0 * longitude,
                     np.cos(latitude) * np.cos(longitude)])  # fmt: skip


def unit(longitude, latitude):
    a, b = math.radians(longitude), math.radians(latitude)
    return np.array([math.cos(b) * math.sin(a), math.sin(b), math.cos(b) * math.cos(a)])


def gaussian(longitude, latitude, degrees=6.0, height=H, width=W):
    """A Gaussian of the great-circle distance, maximum 1."""
    cosine = np.tensordot(unit(longitude, latitude), directions_of(height, width), 1)
    return np.exp(-0.5 * (np.degrees(np.arccos(cosine.clip(-1, 1))) / degrees) ** 2).astype("f4")


def degrees_between(a, b):
    return math.degrees(math.acos(min(1.0, float(unit(*a) @ unit(*b)))))


def bands(height, width, rows):
    """The solid angle of rows of pixels, from the difference of sines: (rows,)."""
    edges = np.sin(np.radians(90 - np.arange(height + 1) * 180 / height))
    return ((edges[:-1] - edges[1:]) * 2 * np.pi)[rows] / width


@pytest.mark.parametrize("place", PLACES)
def test_a_peak_is_found_to_its_pixel_over_the_seam_and_at_the_poles(place):
    ((longitude, latitude),) = peaks(gaussian(*place), 3)
    half_diagonal = 90 / H * 2**0.5 + 1e-6
    assert degrees_between(np.degrees([longitude, latitude]), place) < half_diagonal
    assert -math.pi <= longitude <= math.pi


@pytest.mark.parametrize("place", PLACES[2:9:3])
def test_peaks_are_ranked_and_distinct(place):
    longitude, latitude = place
    others = (longitude - 90, -latitude / 2), (longitude + 90, latitude / 2)
    saliency = gaussian(*place) + 0.5 * gaussian(*others[0]) + 0.25 * gaussian(*others[1])
    near = (longitude, latitude - math.copysign(7, latitude))  # within 10°, on the slope
    found = peaks(saliency + 0.2 * gaussian(*near, 1.5), 10)
    wanted = place, *others
    assert len(found) == 3
    for one, other in zip(found, wanted):
        assert degrees_between(np.degrees(one), other) < 180 / H


def test_a_map_that_is_the_same_everywhere_has_no_peak():
    assert peaks(np.zeros((H, W), "f4"), 5) == peaks(np.full((H, W), 0.3, "f4"), 5) == []


@pytest.mark.parametrize("place", PLACES[1:8:2])
def test_attention_within_ten_degrees_of_a_von_mises_fisher_distribution(place):
    kappa = 40.0
    cosine = np.tensordot(unit(*place), directions_of(240, 480), 1)
    saliency = 7 * np.exp(kappa * (cosine - 1))
    within = (1 - math.exp(-kappa * (1 - math.cos(CAP_RADIUS)))) / (1 - math.exp(-2 * kappa))
    assert share(saliency, *np.radians(place)) == pytest.approx(within, abs=5e-4)
    uniform = share(np.zeros((240, 480)), *np.radians(place))
    assert uniform == pytest.approx((1 - math.cos(CAP_RADIUS)) / 2, abs=5e-5)


@pytest.mark.parametrize("grid", [(6, 12), (7, 5), (1, 1), (50, 33)])
def test_tiles_are_exact_for_any_grid(grid):
    """sin φ + 1 integrates to (sin²/2 + sin) Δλ; a uniform map to areas."""
    rows, columns = grid
    edges = np.sin(np.radians(np.linspace(90, -90, rows + 1)))
    areas = (edges[:-1] - edges[1:])[:, None] / 2 / columns
    np.testing.assert_allclose(tiles(np.ones((20, 40)), *grid), areas * np.ones(columns), atol=1e-7)
    wanted = np.diff(-(edges**2 / 2 + edges))[:, None] / 2 / columns
    height = np.broadcast_to(directions_of(400, 8)[1], (400, 8))
    found = tiles(1 + height, *grid)
    np.testing.assert_allclose(found, wanted * np.ones(columns), atol=2e-5)
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_one_pixel_lies_in_its_tile_and_is_shared_by_two():
    saliency = np.zeros((12, 24))
    saliency[5, 0] = 3  # the equator's northern row, from −180° to −165°
    assert tiles(saliency, 6, 12)[2, 0] == 1
    np.testing.assert_allclose(tiles(saliency, 1, 36)[0, :3], [2 / 3, 1 / 3, 0], atol=1e-7)


def test_a_density_integrates_to_one_and_keeps_its_shape():
    maps = torch.from_numpy(np.stack([gaussian(*PLACES[k]) * 10.0**k for k in (0, 5)]))[:, None]
    found = density(maps)
    assert found.shape == (2, 1, H, W) and found.dtype == np.float32
    weights = bands(H, W, slice(None))[:, None]
    np.testing.assert_allclose((found * weights).sum((-2, -1)), 1, atol=1e-6)
    np.testing.assert_allclose(found[0, 0] / found.max((-2, -1))[0], maps[0, 0] / maps[0].max(),
                               atol=1e-6)  # fmt: skip


def test_a_map_of_zeros_is_uniform_as_a_density_and_none_else_is_taken():
    np.testing.assert_allclose(density(np.zeros((4, 8))), 1 / (4 * np.pi), rtol=1e-6)
    tiny = np.zeros((4, 8), "f4")
    tiny[1, 2] = 1e-44
    assert density(tiny)[1, 2] * bands(4, 8, 1) == pytest.approx(1)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="non-negative"):
            density(np.full((4, 8), wrong))


# Files.


def clip_of(maps):
    return [(n, (n - 1) / 8, saliency) for n, saliency in enumerate(maps, 1)]


def test_files_of_maps_of_which_one_is_missing(tmp_path):
    maps = [gaussian(0, 30), None, gaussian(90, -80)]
    write_peaks(tmp_path / "p.csv", clip_of(maps), 2)
    rows = table(tmp_path / "p.csv")
    assert [(r["time"], r["frame"], r["rank"]) for r in rows] == [("0.0000", "1", "1"),
                                                                 ("0.2500", "3", "1")]  # fmt: skip
    assert [float(rows[1][name]) for name in ("longitude", "latitude")] == pytest.approx(
        [90, -80], abs=90 / H + 1e-3
    )
    write_tiles(tmp_path / "t.npz", clip_of(maps), 3, 6, 12)
    with np.load(tmp_path / "t.npz") as found:
        assert found["tiles"].shape == (3, 6, 12) and found["tiles"].dtype == np.float32
        np.testing.assert_allclose(found["tiles"].sum((1, 2)), [1, np.nan, 1], atol=1e-6)
        assert found["time"].tolist() == [0, 0.125, 0.25]
        row, column = np.unravel_index(found["tiles"][2].argmax(), (6, 12))
        assert found["latitude"][row] > -80 > found["latitude"][row + 1]
        assert found["longitude"][column] <= 90 <= found["longitude"][column + 1]
    write_maps(tmp_path / "m.npy", clip_of(maps), 3, H, W)
    found = np.load(tmp_path / "m.npy", mmap_mode="r")
    assert isinstance(found, np.memmap) and found.shape == (3, H, W) and found.dtype == "f4"
    assert np.array_equal(found[2], maps[2]) and np.isnan(found[1]).all()


# The script.


ALL = ["p.csv", "t.npz", "m.npy"]


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def exports(folder, names=ALL):
    return [word for name in names for word in ("--export", folder / name)]


def no_network(monkeypatch):
    def forward(*_):
        raise AssertionError("the network runs")

    monkeypatch.setattr(models.CubeUNet, "forward", forward)
    monkeypatch.setattr(infer_video, "write_maps", forward)


def test_known_maps_that_are_already_there(clip, checkpoint, tmp_path, monkeypatch):
    out, n = tmp_path / "out", 4
    assert infer(clip, checkpoint, out, "--save_npy")[0] == 0
    place, record = (-179.6, 61.7), json.loads((out / "saliency.json").read_text())
    saliency = 0.02 * gaussian(*place, 12, 40, 80)
    write_map(out / f"sal_{n:04d}.png", saliency, save_npy=True)
    no_network(monkeypatch)
    before = written(out)
    more = "--peaks", 1, "--tiles", "9x18"
    code, printed, _ = infer(clip, checkpoint, out, *exports(tmp_path), *more)
    assert code == 0 and ".npy: 23 frames, 0.3 MB" in printed
    assert written(out) == before
    rows = table(tmp_path / "p.csv")
    assert len(rows) == 23 and [int(r["frame"]) for r in rows] == [*range(1, 24)]
    row = rows[n - 1]
    found = float(row["longitude"]), float(row["latitude"])
    assert degrees_between(found, place) < 3.2 and float(row["time"]) == 0.1
    assert float(row["share"]) == pytest.approx(1 - math.exp(-0.5 * (10 / 12) ** 2), abs=0.01)
    maps = np.load(tmp_path / "m.npy", mmap_mode="r")
    assert maps.shape == (23, 40, 80) and np.array_equal(maps[n - 1], saliency)
    assert np.array_equal(np.load(out / "sal_0009.npy"), maps[8])
    assert np.load(tmp_path / "t.npz")["tiles"].shape == (23, 9, 18)
    for path in out.glob("*.npy"):
        path.unlink()
    record["peaks"][n - 1] = float(saliency.max())
    (out / "saliency.json").write_text(json.dumps(record | {"npy": False}))
    assert infer(clip, checkpoint, out, *exports(tmp_path))[0] == 0  # from the PNGs
    steps = maps.max((1, 2)) / 255
    again = np.load(tmp_path / "m.npy")
    assert (np.abs(again[[0, 3, 9]] - maps[[0, 3, 9]]).max((1, 2)) < 0.51 * steps[[0, 3, 9]]).all()


def test_the_examples_of_the_page(clip, checkpoint, tmp_path, monkeypatch):
    page = (ROOT / "docs/exports.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = re.search(r"```sh\npython infer_video.py (.*?)```", page, re.DOTALL)[1]
    words = command.replace("\\\n", " ").replace("clip.mp4", str(clip)).split()
    assert ended(infer_video.main, *words, "--ckpt_path", checkpoint)[0] == 0
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert len(names["first"]) == len(names["steady"]) == 23
    shares = names["tiles"][0]
    assert shares[names["best"]].sum() >= 0.9 > shares[names["best"][:-1]].sum()
    assert names["brightest"] == names["maps"][0].max() > 0


def test_a_new_and_an_interrupted_run_export_the_same(clip, checkpoint, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert infer(clip, checkpoint, one, *exports(one))[0] == 0
    assert infer(clip, checkpoint, two)[0] == 0
    for number in (7, 20, 21, 22, 23):
        (two / f"sal_{number:04d}.png").unlink()
    (two / "saliency.json").write_text(json.dumps(read_record(two) | {"complete": False}))
    assert infer(clip, checkpoint, two, *exports(two))[0] == 0
    assert written(one) == written(two) and len(written(one)) == 23 + 1 + len(ALL) + 1


def test_a_table_of_another_clip_was_replaced(clip, checkpoint, tmp_path):
    other, table = write_video(tmp_path / "other.mp4", frames=3), tmp_path / "peaks.csv"
    assert infer(clip, checkpoint, tmp_path / "a", "--export", table)[0] == 0
    before = table.read_bytes()
    code, _, line = infer(other, checkpoint, tmp_path / "b", "--export", table)
    assert code == 2 and "peaks.csv: was not made from this clip" in line
    assert table.read_bytes() == before and not list((tmp_path / "b").glob("sal_*")), "too late"
    assert infer(clip, checkpoint, tmp_path / "a", "--export", table)[0] == 0
    assert infer(other, checkpoint, tmp_path / "b", "--export", table, "--overwrite")[0] == 0
    assert table.read_bytes() != before


def test_several_clips_have_their_own(clip, checkpoint, tmp_path):
    other = write_video(tmp_path / "other.mp4", frames=3)
    code, _, line = infer([clip, other], checkpoint, tmp_path / "out", *exports(tmp_path))
    assert code == 2 and "without a folder" in line and not (tmp_path / "out").exists()
    assert infer([clip, other], checkpoint, tmp_path / "out", "--export", "p.csv")[0] == 0
    for name, count in (("clip", 23), ("other", 3)):
        rows = table(tmp_path / "out" / name / "p.csv")
        assert {int(r["frame"]) for r in rows} == {*range(1, count + 1)}


def test_maps_of_another_run_are_not_exported(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    other = write_video(tmp_path / "other.mp4", frames=3)
    for more in ([other], [clip, "--normalise", "density"]):
        code, _, line = infer(more[0], checkpoint, out, *more[1:], *exports(tmp_path))
        assert code == 2 and "another run" in line and "--overwrite" in line
    assert not any((tmp_path / name).exists() for name in ALL)
    code, _, line = infer(clip, checkpoint, out, *exports(tmp_path), "--overwrite", "--normalise",
                          "density")  # fmt: skip
    assert code == 0 and np.load(tmp_path / "m.npy").shape == (23, 40, 80)


def test_names_that_are_no_exports(clip, checkpoint, tmp_path):
    for name in ("p.txt", "p"):
        code, _, line = infer(clip, checkpoint, tmp_path / "out", *exports(tmp_path, [name]))
        assert code == 2 and ".csv, .npz, .npy" in line
    assert export_path("sal_2024.csv")  # no name of a map
    for grid in ("6", "0x3", "6x", "axb"):
        refusal(infer(clip, checkpoint, tmp_path / "out", "--tiles", grid), "6x12")
    code, _, line = infer(clip, checkpoint, tmp_path / "out", "--export", "/proc/none/p.csv")
    assert code in (1, 2) and "/proc/none" in line


def test_a_picture_that_cannot_be_read_has_no_rows(checkpoint, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for n in range(1, 6):
        Image.fromarray(moving_disc(n, 32, 64)).save(folder / f"{n:04d}.jpg")
    (folder / "0003.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    for _ in range(2):  # the second time from the maps that are there
        code, printed, line = infer(folder, checkpoint, out, "--fps", 8, *exports(tmp_path))
        rows = table(tmp_path / "p.csv")
        assert {int(r["frame"]) for r in rows} == {1, 2, 4, 5}
        assert {r["time"] for r in rows} == {"0.0000", "0.1250", "0.3750", "0.5000"}
        maps = np.load(tmp_path / "m.npy")
        assert np.isnan(maps[2]).all() and np.isfinite(maps[[0, 1, 3, 4]]).all()
    assert code == 0 and "no map of 1 unreadable frame (3)" in line


def test_times_of_a_variable_frame_rate(checkpoint, tmp_path):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 30)).round(3)
    clip, out = write_varying_video(tmp_path / "a.mkv", times - times[0]), tmp_path / "out"
    for _ in range(2):
        assert infer(clip, checkpoint, out, *exports(tmp_path, ["t.npz"]))[0] == 0
        np.testing.assert_allclose(np.load(tmp_path / "t.npz")["time"], times - times[0], atol=2e-3)


def test_density_is_stated_and_what_png_and_peak_hold(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    words = "--normalise", "density", "--save_npy"
    assert infer(clip, checkpoint, out, *words, *exports(out))[0] == 0
    record = json.loads((out / "saliency.json").read_text())
    assert "steradian" in record["normalisation"]
    maps, weights = np.load(out / "m.npy"), bands(40, 80, slice(None))[:, None]
    np.testing.assert_allclose((maps * weights).sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(record["peaks"], maps.max((1, 2)), rtol=1e-4)
    for n in (1, 9):
        with Image.open(out / f"sal_{n:04d}.png") as image:
            assert float(image.info["peak"]) == pytest.approx(record["peaks"][n - 1], rel=1e-4)
            found = np.asarray(image) / 255 * float(image.info["peak"])
        assert np.array_equal(np.load(out / f"sal_{n:04d}.npy"), maps[n - 1])
        assert np.abs(found - maps[n - 1]).max() < 0.51 * maps[n - 1].max() / 255
    words = "--original_video", clip, "--saliency_dir", out, "--preset", "ultrafast"
    assert ended(make_video.main, *words, "--output_path", tmp_path / "o.mp4")[0] == 0


def test_maps_of_zeros_are_uniform_densities(clip, tmp_path):
    """SST-Sal subtracts each map's minimum: a constant map becomes zeros."""
    model = models.CubeUNet(height=40, width=80, base_channels=4)
    model.head.weight.data.zero_()
    model.head.bias.data.fill_(-200.0)
    models.save(tmp_path / "zero.pth", model)
    out = tmp_path / "out"
    words = "--normalise", "density", *exports(tmp_path)
    assert infer(clip, tmp_path / "zero.pth", out, *words)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "m.npy"), 1 / (4 * np.pi), rtol=1e-5)
    assert table(tmp_path / "p.csv") == []
