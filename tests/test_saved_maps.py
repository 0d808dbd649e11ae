"""Folders of maps: records, fingerprints, --overwrite, and whose files are replaced."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import models
from common.devices import choose_precision
from maps.folder import NEW_MAPS
from maps.saved import read_peak
from tests.clips import moving_disc, read_pixels, write_eccv_clip, write_video
from tests.commands import infer, paint, read_record, refusal
from video import read_frames

ROOT = Path(__file__).resolve().parents[1]


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_input_inside_the_output(checkpoint, tmp_path, more):
    """`--overwrite` with input = output deleted the user's pictures."""
    folder = write_eccv_clip(tmp_path / "sal")
    Image.open(folder / "0001.jpg").save(folder / "sal_0001.png")
    before = content(tmp_path)
    for clip, output in ((folder, folder), (folder / "0001.jpg", folder), (folder, tmp_path)):
        refusal(infer(clip, checkpoint, output, *more), "--output_dir")
    assert content(tmp_path) == before


def test_overwrite_keeps_the_old_maps_until_all_new_ones_are_there(checkpoint, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", frames=200, fps=8)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    out = tmp_path / "out"
    assert infer(write_video(tmp_path / "a.mp4", 3), checkpoint, out)[0] == 0
    before = content(out)
    refusal(infer(cut, checkpoint, out, "--overwrite"), "truncated")
    assert content(out).items() >= before.items()
    assert infer(whole, checkpoint, out, "--overwrite")[0] == 0
    assert len(list(out.glob("sal_*.png"))) == 200 and not (out / NEW_MAPS).exists()


def test_an_overwrite_that_is_killed_while_it_replaces(clip, checkpoint, tmp_path, monkeypatch):
    out, calls, replace = tmp_path / "out", [], os.replace
    assert infer(write_video(tmp_path / "a.mp4", 40), checkpoint, out)[0] == 0
    assert infer(clip, checkpoint, tmp_path / "right")[0] == 0

    def killed(source, target):
        calls.append(source)
        if NEW_MAPS in str(source) and ".partial" not in str(source) and len(calls) > 40:
            raise SystemExit(137)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 137
    assert not json.loads((out / "saliency.json").read_text())["complete"]
    monkeypatch.setattr(os, "replace", replace)
    assert infer(clip, checkpoint, out, "--overwrite")[0] == 0
    assert content(out) == content(tmp_path / "right")


def test_only_maps_that_we_wrote_are_deleted(clip, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    (out / "sal_mean.npy").write_bytes(b"the user's")
    (out / "sal_0001.npy").write_bytes(b"the user's")
    assert infer(write_video(tmp_path / "b.mp4", 3), checkpoint, out, "--overwrite")[0] == 0
    assert len(list(out.glob("sal_*.png"))) == 3
    assert {(out / f"sal_{name}.npy").read_bytes() for name in ("mean", "0001")} == {b"the user's"}
    code, _, line = infer(clip, checkpoint, out, "--overwrite", "--save_npy")
    assert code == 2 and "sal_0001.npy: not written by infer_video.py" in line
    (out / "saliency.json").unlink()
    code, _, line = infer(clip, checkpoint, out, "--overwrite")
    assert code == 2 and "sal_0001.png: not written by infer_video.py" in line


def test_maps_of_other_content_of_the_same_name_and_size(checkpoint, tmp_path):
    folders = [tmp_path / name / "217" for name in "ab"]
    for folder in folders:
        write_eccv_clip(folder)
    Image.fromarray(moving_disc(9, 32, 64)).save(folders[1] / "0003.jpg")
    for one, other in (folders, [folder / "0003.jpg" for folder in folders]):
        out = tmp_path / f"of {one.name}"
        assert infer(one, checkpoint, out)[0] == 0
        for found in (infer(other, checkpoint, out), paint(other, out, tmp_path / "o.mp4")):
            assert found[0] == 2 and "video" in found[2]
        assert paint(one, out, tmp_path / "o.mp4")[0] == 0
        (tmp_path / "o.mp4").unlink()


@pytest.mark.parametrize(
    "change",
    [{"frame_count": "23"}, {"frame_count": -5}, {"frame_count": 10**12}, {"unreadable": 5},
     {"unreadable": [[]]}, {"complete": 0}, {"fingerprint": 3}, {"npy": "yes"}],
)  # fmt: skip
def test_a_record_with_entries_of_another_type(clip, checkpoint, tmp_path, change):
    out = tmp_path / "out"
    assert infer(clip, checkpoint, out)[0] == 0
    facts = json.loads((out / "saliency.json").read_text())
    (out / "saliency.json").write_text(json.dumps(facts | change))
    start = time.monotonic()
    found = [paint(clip, out, tmp_path / "o.mp4"), infer(clip, checkpoint, out)]
    assert time.monotonic() - start < 20
    assert found[0][0] == (0 if change == {"unreadable": [[]]} else 2)


def test_maps_at_another_rate_are_maps_of_another_run(picture_folder, checkpoint, tmp_path):
    assert infer(picture_folder, checkpoint, tmp_path / "maps", "--fps", 24)[0] == 0
    refusal(infer(picture_folder, checkpoint, tmp_path / "maps", "--fps", 30), "fps 24.0")


def test_the_demo_replaces_maps_of_another_clip_and_keeps_its_own(clip, checkpoint, tmp_path):
    """It told the user of --overwrite, which `make demo` does not have."""
    (tmp_path / "other").mkdir()
    other, maps = write_video(tmp_path / "other" / clip.name, frames=9), tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--overwrite", "other")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")}
    code, text, _ = infer(clip, checkpoint, maps, "--overwrite", "other")
    assert code == 0 and "(none new)" in text
    assert {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")} == before
    code, text, _ = infer(other, checkpoint, maps, "--overwrite", "other")
    assert code == 0 and "(9 new" in text and len(list(maps.glob("sal_*"))) == 9
    assert '"$(VIDEO)" --overwrite' in (ROOT / "Makefile").read_text()
    assert '["--overwrite", "other"]' in (ROOT / "__main__.py").read_text()


def test_each_maps_maximum_is_kept(clip, checkpoint, tmp_path):
    """The maps were divided by it, and it was lost."""
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    peaks = [np.load(path).max() for path in sorted(maps.glob("*.npy"))]
    assert read_record(maps)["peaks"] == pytest.approx(peaks, rel=1e-4)
    assert len(set(read_record(maps)["peaks"])) > 3
    for path, peak in zip(sorted(maps.glob("*.png")), peaks, strict=True):
        with Image.open(path) as image:
            assert float(image.info["peak"]) == pytest.approx(peak, rel=1e-6)
            assert np.abs(np.array(image) * peak / 255 - np.load(path.with_suffix(".npy"))).max() \
                <= peak / 255  # fmt: skip
    # A run that was interrupted reads them again.
    before = read_record(maps)["peaks"]
    (maps / "sal_0016.png").unlink()
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    assert read_record(maps)["peaks"] == before


def test_maps_of_another_sampling_are_maps_of_another_run(clip, tmp_path):
    model = models.SSTSal(in_channels=3, hidden_channels=2, height=24, width=32)
    torch.nn.init.constant_(model.decoder["lstm"].conv["bias"], -1)  # the state is negative
    models.save(tmp_path / "sst.pth", model)
    reference = "--sampling", "reference"
    assert infer(clip, tmp_path / "sst.pth", tmp_path / "maps", *reference)[0] == 0
    refusal(infer(clip, tmp_path / "sst.pth", tmp_path / "maps"), "sampling reference")
    first = read_pixels(tmp_path / "maps/sal_0001.png")  # what was negative wrapped around to white
    raw = next(models.predict(models.load(tmp_path / "sst.pth", sampling="reference"),
        read_frames(clip, model.spec)))[1][0].numpy()  # fmt: skip
    assert raw.max() < 0
    assert np.abs(first / 255.0 - (raw - raw.min()) / (raw.max() - raw.min())).max() < 0.003


def test_maps_of_a_copied_folder_of_frames(picture_folder, checkpoint, tmp_path):
    """A copy, or one frame that was touched, was "another video (clipA), not of clipA"."""
    maps = tmp_path / "maps"
    assert infer(picture_folder, checkpoint, maps)[0] == 0
    frame = picture_folder / "0007.png"
    frame.touch()
    shutil.copytree(picture_folder, tmp_path / "copy/frames", copy_function=shutil.copyfile)
    for folder in (picture_folder, tmp_path / "copy/frames"):
        assert paint(folder, maps, tmp_path / "o.mp4")[0] == 0
        code, text, _ = infer(folder, checkpoint, maps)
        assert code == 0 and "(none new)" in text
    times = os.stat(frame).st_atime_ns, os.stat(frame).st_mtime_ns
    content = bytearray(frame.read_bytes())
    content[-20] ^= 1  # of the same name, size and time
    frame.write_bytes(content)
    os.utime(frame, ns=times)
    for code, _, text in (paint(picture_folder, maps, tmp_path / "o.mp4"),
                          infer(picture_folder, checkpoint, maps)):  # fmt: skip
        assert code == 2 and "another" in text


def test_maps_of_two_precisions_are_not_mixed(clip, checkpoint, tmp_path):
    """Six maps were in fp32, the others in bf16, without a word."""
    maps, missing = tmp_path / "maps", tmp_path / "maps/sal_0007.png"
    assert infer(clip, checkpoint, maps, "--precision", "fp32")[0] == 0
    missing.unlink()
    code, _, text = infer(clip, checkpoint, maps, "--precision", "bf16")
    assert code == 2 and "another run (precision float32)" in text and not missing.exists()
    assert infer(clip, checkpoint, maps, "--precision", "fp32")[0] == 0 and missing.exists()
    automatic = choose_precision("auto", torch.device("cpu"))
    assert infer(clip, checkpoint, tmp_path / "auto")[0] == 0
    assert f"torch.{read_record(tmp_path / 'auto')['precision']}" == str(automatic)


def test_the_preference_for_the_front_is_an_option(still, checkpoint, tmp_path):
    sums = {}
    for front in ("0", "1"):
        assert infer(still, checkpoint, tmp_path / front, "--front", front)[0] == 0
        columns = read_pixels(tmp_path / front / "sal_0001.png").sum(0)
        sums[front] = columns[30:50].sum() / columns.sum()
    assert sums["1"] > 1.5 * sums["0"]
    refusal(infer(still, checkpoint, tmp_path / "1", "--front", "0.5"), "front 1.0")
    models.save(tmp_path / "e.pth", models.EquatorPrior(10, 20))
    for network, front in ((checkpoint, "2"), (tmp_path / "e.pth", "1")):
        refusal(infer(still, network, tmp_path / "other", "--front", front), "front")


@pytest.mark.parametrize("wrong", ['"fps": NaN', '"fps": 0', '"peaks": [1, "2"]', '"peaks": [-1]'])
def test_a_record_with_nonsense_is_refused(still, checkpoint, tmp_path, wrong):
    maps = tmp_path / "maps"
    assert infer(still, checkpoint, maps)[0] == 0
    text = (maps / "saliency.json").read_text()
    name = wrong.split(":")[0]
    text = re.sub(rf"{name}: ([\d.]+|\[.*?\])", wrong, text, flags=re.DOTALL)
    (maps / "saliency.json").write_text(text)
    refusal(paint(still, maps, tmp_path / "o.png"), "saliency.json: not written by infer_video.py")


@pytest.mark.parametrize("text", ["1e300", "-1", "inf", "nan"])
def test_a_maximum_that_is_none_is_not_kept(tmp_path, text):
    kept = PngInfo()
    kept.add_text("peak", text)
    Image.new("L", (4, 2)).save(tmp_path / "sal_0001.png", pnginfo=kept)
    assert np.isnan(read_peak(tmp_path / "sal_0001.png"))
