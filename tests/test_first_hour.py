"""A stranger's first hour: what once did not hold, or was missed.

Each test is named after it. What belongs to one script alone is tested beside the script.
"""

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import evaluate_video
import infer_video
import make_video
import models
from maps.saved import common_scale
from models import Spec
from prepare import synthetic
from prepare.records import tell_empty
from tests.clips import moving_disc, write_video
from tests.commands import ended
from video import read_frames
from video.decoding import probe
from video.writer import write_pictures
from views.overlay import Overlay

ROOT = Path(__file__).parents[1]
FAULTS = """
import startup, resource, torch
for n in range(20):
    if n == 14:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24) + torch.ones(1 << 24)  # glibc maps more than 32 MiB anew by default
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def infer(source, checkpoint, output, *more):
    words = ("--video_path", source, "--ckpt_path", checkpoint, "--output_dir", output, *more)
    return ended(infer_video.main, *words)


def paint(source, maps, output, *more):
    words = ("--original_video", source, "--saliency_dir", maps, "--output_path", output)
    return ended(make_video.main, *words, "--preset", "ultrafast", *more)


def record(folder):
    return json.loads((folder / "saliency.json").read_text())


def times(path):
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


@pytest.fixture
def frames(tmp_path):
    """A folder of 12 frames."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for n in range(12):
        Image.fromarray(moving_disc(n, 48, 96)).save(folder / f"{n + 1:04d}.png")
    return folder


@pytest.fixture
def still(tmp_path):
    Image.fromarray(moving_disc(3, 49, 97)).save(tmp_path / "still.png")
    return tmp_path / "still.png"


# 1


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_kept_for_the_next_frame():
    def faults(**variables):
        environment = {k: v for k, v in os.environ.items() if "MALLOC_" not in k} | variables
        command = [sys.executable, "-c", FAULTS]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return int(result.stdout)

    assert faults() < 2000
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 100_000  # as the user wishes


# 4


def test_a_folder_of_frames_does_not_become_slow_motion(frames, checkpoint, tmp_path):
    """It counted as 8 frames a second without a word."""
    code, _, text = infer(frames, checkpoint, tmp_path / "maps")
    assert code == 0 and "8 a second are assumed" in text and record(tmp_path / "maps")["fps"] == 8
    code, _, text = infer(frames, checkpoint, tmp_path / "new", "--fps", "30000/1001")
    assert code == 0 and "assumed" not in text
    # The maps' own rate is the overlay's, unless another is given.
    code, _, text = paint(frames, tmp_path / "new", tmp_path / "a.mp4")
    assert code == 0 and "assumed" not in text
    assert times(tmp_path / "a.mp4") == pytest.approx([n * 1001 / 30000 for n in range(12)])
    assert paint(frames, tmp_path / "new", tmp_path / "b.mp4", "--fps", 10)[0] == 0
    assert times(tmp_path / "b.mp4") == pytest.approx([n / 10 for n in range(12)])


def test_frames_of_a_folder_are_sampled_at_its_rate(frames):
    """Motion was that between frames a thirtieth of a second apart."""
    spec = Spec(height=24, width=48, fps=8.0, motion="difference")
    sampled = list(read_frames(frames, spec, Fraction(30)))
    assert [frame.number for frame in sampled] == [1, 5, 9]
    assert [frame.seconds for frame in sampled] == pytest.approx([0, 4 / 30, 8 / 30])
    assert [frame.number for frame in read_frames(frames, spec)] == list(range(1, 13))


def test_maps_at_another_rate_are_maps_of_another_run(frames, checkpoint, tmp_path):
    assert infer(frames, checkpoint, tmp_path / "maps", "--fps", 24)[0] == 0
    code, _, text = infer(frames, checkpoint, tmp_path / "maps", "--fps", 30)
    assert code == 2 and "fps 24.0" in text


def test_a_rate_is_for_frames_not_for_a_video(clip, checkpoint, tmp_path):
    code, _, text = infer(clip, checkpoint, tmp_path / "maps", "--fps", 25)
    assert code == 2 and "a frame rate of its own" in text
    assert not (tmp_path / "maps").exists()
    for wrong in ("0", "-3", "nan", "1/0", "fast", "1e9"):
        assert infer(clip, checkpoint, tmp_path / "maps", f"--fps={wrong}")[0] == 2


# 6


def shown(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("name", ["overlay.png", "overlay.jpg", "overlay.JPEG"])
def test_a_still_picture_becomes_a_picture(still, checkpoint, tmp_path, name):
    """It became a video of 0.1 s."""
    assert infer(still, checkpoint, tmp_path / "maps")[0] == 0
    code, text, _ = paint(still, tmp_path / "maps", tmp_path / name)
    assert code == 0 and name in text
    with Image.open(tmp_path / name) as image:
        assert image.format == ("PNG" if name.endswith("png") else "JPEG")
        assert image.size == (97, 49)  # odd sizes too
        said = image.info.get("xmp", b"").decode() + image.info.get("XML:com.adobe.xmp", "")
    said = dict(re.findall(r'GPano:(\w+)="(.*?)"', said))
    assert said["ProjectionType"] == "equirectangular"
    assert (said["FullPanoWidthPixels"], said["CroppedAreaImageHeightPixels"]) == ("97", "49")
    assert np.abs(shown(tmp_path / name).astype(int) - shown(still)).max() > 60


def test_a_picture_without_saliency_stays_as_it_is(still, checkpoint, tmp_path):
    assert infer(still, checkpoint, tmp_path / "maps")[0] == 0
    assert paint(still, tmp_path / "maps", tmp_path / "o.png", "--alpha", 0)[0] == 0
    assert np.array_equal(shown(tmp_path / "o.png"), shown(still))
    assert paint(still, tmp_path / "maps", tmp_path / "s.png", "--side_by_side")[0] == 0
    assert shown(tmp_path / "s.png").shape == (49, 194, 3)
    assert np.array_equal(shown(tmp_path / "s.png")[:, :97], shown(still))
    assert b"GPano" not in (tmp_path / "s.png").read_bytes()  # no panorama any more
    assert paint(still, tmp_path / "maps", tmp_path / "o.mp4")[0] == 0
    assert len(times(tmp_path / "o.mp4")) == 1


def test_a_video_does_not_become_a_picture(clip, checkpoint, frames, tmp_path):
    for source in (clip, frames):
        infer(source, checkpoint, tmp_path / source.stem)
        code, _, text = paint(source, tmp_path / source.stem, tmp_path / "o.png")
        assert code == 2 and "no still picture" in text
        assert not (tmp_path / "o.png").exists()


def test_the_output_has_a_name_where_none_is_given(still, clip, checkpoint, tmp_path, monkeypatch):
    for source, name in ((still, "still_overlay.png"), (clip, "clip_overlay.mp4")):
        infer(source, checkpoint, tmp_path / source.stem)
        monkeypatch.chdir(tmp_path)
        words = ("--original_video", source, "--saliency_dir", tmp_path / source.stem)
        code, text, _ = ended(make_video.main, *words)
        assert code == 0 and text.startswith(f"outputs/{name}: ")
        assert (tmp_path / "outputs" / name).is_file()


def test_the_demo_replaces_maps_of_another_clip_and_keeps_its_own(clip, checkpoint, tmp_path):
    """It told the user of --overwrite, which `make demo` does not have."""
    (tmp_path / "other").mkdir()
    other, maps = write_video(tmp_path / "other" / clip.name, frames=9), tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--overwrite", "other")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")}
    code, text, _ = infer(clip, checkpoint, maps, "--overwrite", "other")
    assert code == 0 and "(0 new" in text
    assert {path: path.stat().st_mtime_ns for path in maps.glob("sal_*")} == before
    code, text, _ = infer(other, checkpoint, maps, "--overwrite", "other")
    assert code == 0 and "(9 new" in text and len(list(maps.glob("sal_*"))) == 9
    assert "--overwrite other" in (ROOT / "Makefile").read_text()


def test_make_clean_keeps_what_the_user_made(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in (".venv/bin", "outputs/infer", "outputs/demo_saliency", "video/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outputs/my_overlay.mp4").write_bytes(b"an hour of work")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["Makefile", "outputs", "outputs/infer", "outputs/my_overlay.mp4", "video"]


# 7


def test_each_maps_maximum_is_kept(clip, checkpoint, tmp_path):
    """The maps were divided by it, and it was lost."""
    maps = tmp_path / "maps"
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    peaks = [np.load(path).max() for path in sorted(maps.glob("*.npy"))]
    assert record(maps)["peaks"] == pytest.approx(peaks, rel=1e-4)
    assert len(set(record(maps)["peaks"])) > 3
    for path, peak in zip(sorted(maps.glob("*.png")), peaks, strict=True):
        with Image.open(path) as image:
            assert float(image.info["peak"]) == pytest.approx(peak, rel=1e-6)
            assert np.abs(np.array(image) * peak / 255 - np.load(path.with_suffix(".npy"))).max() \
                <= peak / 255  # fmt: skip
    # A run that was interrupted reads them again.
    before = record(maps)["peaks"]
    (maps / "sal_0016.png").unlink()
    assert infer(clip, checkpoint, maps, "--save_npy")[0] == 0
    assert record(maps)["peaks"] == before


def test_a_dull_scene_does_not_look_as_hot_as_a_lively_one(tmp_path):
    """Each map was shown on its own scale, and its brightness jumped."""
    maps = tmp_path / "maps"
    maps.mkdir()
    clip = write_video(tmp_path / "clip.mp4", frames=8)
    for n in range(1, 9):  # all maps look alike in 8 bits
        cv2.imwrite(str(maps / f"sal_{n:04d}.png"), np.full((24, 48), 255, np.uint8))
    facts = {"complete": True, "frame_count": 8, "width": 96, "height": 48,
             "video_bytes": clip.stat().st_size, "peaks": [0.5] * 6 + [0.05] * 2}  # fmt: skip
    (maps / "saliency.json").write_text(json.dumps(facts))

    def change(*more):
        """How far each overlay is from its frame."""
        assert paint(clip, maps, tmp_path / "o.mp4", "--crf", 0, *more)[0] == 0
        with av.open(str(tmp_path / "o.mp4")) as new, av.open(str(clip)) as old:
            pairs = zip(new.decode(video=0), old.decode(video=0), strict=True)
            return [np.abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() for a, b in pairs]

    lively, dull = change()[0], change()[-1]
    assert lively > 4 * dull > 0
    assert change("--scale", "frame")[-1] == pytest.approx(lively, rel=0.1)


def test_a_few_hot_moments_do_not_fade_all_others():
    factors = common_scale([0.5] * 99 + [5.0])
    assert factors == pytest.approx([1.0] * 99 + [10.0])
    assert common_scale([0.0, 0.0]) == [0.0, 0.0]


def test_peaks_of_second_rank_stay_visible():
    """Opacity was proportional to saliency; now half the saliency has three quarters of it."""
    overlay = Overlay("bone", 0.8, None, 8)
    values = np.array([[0, 64, 128, 255]], np.uint8)
    painted = overlay(np.zeros((1, 4, 3), np.uint8), values)[0, :, 0]
    colours = cv2.applyColorMap(values, cv2.COLORMAP_BONE)[0, :, 2]
    share = values[0] / 255
    assert np.abs(painted - 0.8 * share * (2 - share) * colours).max() <= 1


# 8


def test_pictures_in_memory_are_predicted_as_those_in_files(frames, checkpoint):
    model = models.load(checkpoint)
    pictures = [np.array(Image.open(path)) for path in sorted(frames.iterdir())]
    wanted = list(models.predict(model, read_frames(frames, model.spec, Fraction(30))))
    for given in (pictures, iter(pictures), [torch.from_numpy(p) for p in pictures]):
        found = list(models.predict(model, given, fps=30))
        for (frame, saliency), (known, truth) in zip(found, wanted, strict=True):
            assert (frame.number, frame.seconds) == (known.number, known.seconds)
            assert torch.equal(frame.rgb, known.rgb) and torch.equal(frame.motion, known.motion)
            assert torch.equal(saliency, truth)
    assert len(list(models.predict(model, pictures))) == 12  # no rate: all of them
    assert list(models.predict(model, [])) == []


def test_the_webcam_of_the_page_works(monkeypatch):
    """Six lines in docs/python.md: a camera that is unplugged after five pictures."""
    page = (ROOT / "docs/python.md").read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "camera" in c)
    assert len(code.split("camera = ")[1].strip().splitlines()) == 6
    pictures, drawn = [(True, moving_disc(n, 48, 96)) for n in range(5)] + [(False, None)], []
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: mock.Mock(read=lambda: pictures.pop(0)))
    monkeypatch.setattr(models, "load", lambda path: models.EquatorPrior(512, 1024))
    monkeypatch.setattr("matplotlib.pyplot.imshow", lambda image: drawn.append(image.shape))
    monkeypatch.setattr("matplotlib.pyplot.pause", lambda seconds: None)
    with pytest.raises(TypeError, match="subscriptable"):  # the camera is gone
        exec(code.replace("fps=30", "fps=8"), {})
    assert len(drawn) >= 3 and set(drawn) == {(512, 1024)}


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((48, 96, 3)),
        np.zeros((48, 96), np.uint8),
        torch.zeros(3, 48, 96, dtype=torch.uint8),
    ],
)
def test_pictures_of_another_kind_are_refused(checkpoint, picture):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        list(models.predict(models.load(checkpoint), [picture]))


# 12


def test_one_map_is_not_1_maps(still, checkpoint, tmp_path):
    code, text, _ = infer(still, checkpoint, tmp_path / "maps")
    assert code == 0 and text.startswith("1 map in ")


def test_a_single_picture_needs_no_rate(still):
    assert not any("a second" in note for note in probe(still).notes)


def test_few_clips_leave_splits_empty_and_it_is_said(tmp_path):
    """evaluate then said "no clips for split 'test', only for ['train', 'val', 'test']"."""
    words = ("--clips", 2, "--frames", 1, "--height", 16, "--width", 32, "--workers", 1)
    code, text, _ = ended(synthetic.main, "--output", tmp_path / "data", *words)
    assert code == 0 and "note: 2 clips for 3 splits, so that val and test can't be used" in text
    tell_empty({"train": ["a"], "val": ["b"], "test": []})
    code, _, text = ended(evaluate_video.main, "--data_root", tmp_path / "data")
    assert code == 2 and "split 'test' has no clips; choose one that has: train" in text


def test_maps_of_another_sampling_are_maps_of_another_run(clip, tmp_path):
    model = models.SSTSal(in_channels=3, hidden_channels=2, height=24, width=32)
    torch.nn.init.constant_(model.decoder["lstm"].conv["bias"], -1)  # the state is negative
    models.save(tmp_path / "sst.pth", model)
    reference = "--sampling", "reference"
    assert infer(clip, tmp_path / "sst.pth", tmp_path / "maps", *reference)[0] == 0
    code, _, text = infer(clip, tmp_path / "sst.pth", tmp_path / "maps")
    assert code == 2 and "sampling reference" in text
    first = shown(tmp_path / "maps/sal_0001.png")  # what was negative wrapped around to white
    raw = next(models.predict(models.load(tmp_path / "sst.pth", sampling="reference"),
        read_frames(clip, model.spec)))[1][0].numpy()  # fmt: skip
    assert raw.max() < 0
    assert np.abs(first / 255.0 - (raw - raw.min()) / (raw.max() - raw.min())).max() < 0.003


def test_the_shipped_checkpoint_is_found_from_any_folder(still, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--video_path", still, "--output_dir", tmp_path / "maps")
    assert ended(infer_video.main, *words)[0] == 0


def test_a_library_that_wants_logs_does_not_hang_the_decoder(clip, tmp_path):
    """Older versions of torchvision, imported for RAFT, made FFmpeg's threads wait for Python."""
    picture = moving_disc(0, 48, 96)
    for use in (probe, lambda _: write_pictures(tmp_path / "a.mp4", [picture], 48, 96, 8)):
        av.logging.set_level(av.logging.ERROR)
        use(clip)
        assert av.logging.get_level() is None


@pytest.mark.parametrize("wrong", ['"fps": NaN', '"fps": 0', '"peaks": [1, "2"]', '"peaks": [-1]'])
def test_a_record_with_nonsense_is_refused(still, checkpoint, tmp_path, wrong):
    maps = tmp_path / "maps"
    assert infer(still, checkpoint, maps)[0] == 0
    text = (maps / "saliency.json").read_text()
    name = wrong.split(":")[0]
    text = re.sub(rf"{name}: ([\d.]+|\[.*?\])", wrong, text, flags=re.DOTALL)
    (maps / "saliency.json").write_text(text)
    code, _, line = paint(still, maps, tmp_path / "o.png")
    assert code == 2 and "fps or peaks are no such numbers" in line


@pytest.mark.parametrize("text", ["1e300", "-1", "inf", "nan"])
def test_a_maximum_that_is_none_is_not_kept(tmp_path, text):
    kept = PngInfo()
    kept.add_text("peak", text)
    Image.new("L", (4, 2)).save(tmp_path / "sal_0001.png", pnginfo=kept)
    assert np.isnan(infer_video.read_peak(tmp_path / "sal_0001.png"))
