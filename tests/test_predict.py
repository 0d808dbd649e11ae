"""The way of frames through a model: windows, batches, live delay, smoothing, arrays."""

import math
import re
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import models
from models import SaliencyModel, Spec, predict
from models.predict import THREADS, predict_from
from tests.clips import moving_disc
from video import Frame, read_frames
from video.background import prefetch
from video.layout import rgb_array
from views.overlay import paint_picture

ROOT = Path(__file__).resolve().parents[1]
SAMPLED = 4  # pictures at 30 a second for each frame of a network at 8
HALF = 0.5  # seconds


VALUES = torch.rand(30, generator=torch.Generator().manual_seed(3)).clamp(0.01, 0.99).tolist()
UNEVEN = [n / 8 + 0.4 * (n > 10) + 0.05 * (n % 3) for n in range(30)]


class Echo(SaliencyModel):
    """Says for each frame which it is and how many frames it had seen in its clip."""

    name = "echo"

    def __init__(self, clip_length, warm_up, fade=0):
        super().__init__(Spec(clip_length=clip_length, warm_up=warm_up, fade=fade))
        self.device_of = nn.Parameter(torch.zeros(()))

    def forward(self, frames, motion):
        assert frames.shape[1] <= self.spec.clip_length
        seen = torch.arange(frames.shape[1]).expand(len(frames), -1)
        return torch.stack([frames[:, :, 0, 0, 0], seen.float()], dim=-1)[:, :, None, None]


def stream(count, taken):
    for number in range(count):
        taken.append(number)
        rgb, motion = torch.full((3, 1, 1), float(number)), torch.empty(0, 1, 1)
        yield SimpleNamespace(number=number, rgb=rgb, motion=motion, times=())


WINDOWS = [(1, 0, 0), (5, 0, 0), (20, 4, 0), (20, 4, 8), (3, 2, 0), (9, 4, 2), (20, 4, 3)]


@pytest.mark.parametrize("length, warm_up, fade", WINDOWS)
@pytest.mark.parametrize("count", [1, 7, 16, 20, 21, 53])
def test_one_map_for_each_frame_in_order_after_the_warm_up(length, warm_up, fade, count):
    pairs = list(predict(Echo(length, warm_up, fade), stream(count, [])))
    maps = [saliency for _, saliency in pairs]
    assert [frame.number for frame, _ in pairs] == list(range(count))
    assert [m[0, 0, 0].item() for m in maps] == pytest.approx(list(range(count)))
    settled = maps if fade else maps[warm_up:]
    assert all(m[0, 0, 1] >= warm_up for m in settled)


def test_clips_are_cut_as_published_without_fade():
    """Windows of 20 from frame 0, 16, 32 … with a fresh memory, four frames dropped."""
    seen = [m[0, 0, 1].item() for _, m in predict(Echo(20, 4), stream(50, []))]
    assert seen == [*range(20), *range(4, 20), *range(4, 18)]


def test_a_fade_of_n_frames_has_the_weights_k_over_n_plus_1():
    """In frames 8 to 15, and so on, a clip's map is 16 more than the next clip's."""
    seen = [m[0, 0, 1].item() for _, m in predict(Echo(20, 4, 8), stream(60, []))]
    old, new = [12, 13, 14, 15, 16, 17, 18, 19], [4, 5, 6, 7, 8, 9, 10, 11]
    faded = [((9 - k) * a + k * b) / 9 for k, a, b in zip(range(1, 9), old, new)]
    assert seen[:48] == pytest.approx([*range(4, 12), *faded * 5])


def test_the_stream_is_read_no_further_than_needed():
    taken: list[int] = []
    maps = predict(Echo(20, 4, 8), stream(10**9, taken))
    for made in range(100):
        next(maps)
        assert len(taken) <= made + 32


@pytest.mark.parametrize("height, together", [(40, 8), (240, 8), (320, 4), (512, 1), (1024, 1)])
def test_single_frames_come_in_batches_of_no_more_than_so_many_pixels(height, together):
    model, sizes = Echo(1, 0), []
    model.spec = replace(model.spec, height=height, width=2 * height)
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    assert len(list(predict(model, stream(17, [])))) == 17
    assert max(sizes) == sizes[0] == together


@pytest.mark.parametrize("done", [0, 1, 12, 15, 16, 34, 51, 52])
def test_going_on_gives_the_same_maps(done):
    for model in (Echo(20, 4), Echo(1, 0), Echo(20, 4, 8)):
        whole = list(predict(model, stream(53, [])))
        rest = list(predict_from(model, stream(53, []), done))
        assert [frame.number for frame, _ in rest] == list(range(done + (done > 0), 53))
        for (frame, a), (other, b) in zip(whole[-len(rest) :], rest):
            assert frame.number == other.number and torch.equal(a, b)


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_threads_that_compute_different_frames_change_no_map(threads):
    """In order, in mixed precision too, and the threads of whoever calls stay as many."""
    model, number = (
        models.CubeUNet(height=40, width=80, base_channels=2).eval(),
        torch.get_num_threads(),
    )
    torch.manual_seed(0)
    frames = [Frame(n, n / 8, torch.rand(3, 40, 80), torch.rand(1, 40, 80)) for n in range(1, 60)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = [model(f.rgb[None, None], f.motion[None, None])[0, 0].float() for f in frames]
        try:
            torch.set_num_threads(threads)
            found = list(predict(model, frames))
            assert torch.get_num_threads() == threads
            with pytest.raises(ValueError, match="expected 3"):
                list(
                    predict(model, [*frames[:32], *(replace(f, motion=f.rgb) for f in frames[32:])])
                )
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(number)
    assert [frame for frame, _ in found] == frames
    for (_, saliency), map_alone in zip(found, wanted, strict=True):
        torch.testing.assert_close(saliency, map_alone, atol=0.01, rtol=0)


def test_a_model_of_ones_own_is_called_by_one_thread_at_a_time():
    class Own(Echo):
        busy = False

        def forward(self, frames, motion):
            assert not self.busy
            self.busy = True
            time.sleep(0.002)
            self.busy = False
            return super().forward(frames, motion)

    assert len(list(predict(Own(1, 0), stream(50, [])))) == 50


def delays(model, given, **options):
    """The number of pictures taken after the one whose map comes, for all but the stream's end."""
    taken = 0

    def counted():
        nonlocal taken
        for item in given:
            taken += 1
            yield item

    pairs = models.predict(model, counted(), **options)
    return [taken - frame.number for frame, _ in pairs if taken < len(given)]


def pictures(height, count):
    return [np.full((height, 2 * height, 3), n % 256, np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def u_net():
    return models.CubeUNet(height=40, width=80, base_channels=1).eval()


def test_a_map_of_the_u_net_comes_one_frame_later(u_net):
    assert set(delays(u_net, pictures(40, 20), live=True)) == {1}
    assert set(delays(u_net, pictures(40, 20), live=True, fps=30)) == {SAMPLED}
    frames = [Frame(n, n / 8, torch.zeros(3, 40, 80), torch.zeros(1, 40, 80)) for n in range(1, 12)]
    assert set(delays(u_net, frames, live=True)) == {0}
    # Where nobody waits for a map: eight at once by each thread, and eight that wait for one.
    threads = min(torch.get_num_threads(), THREADS)
    assert max(delays(u_net, pictures(40, 80))) == 8 * (threads + (threads > 1))


def test_maps_are_the_same_live(u_net):
    given = [moving_disc(n, 40, 80) for n in range(19)]
    one, other = (list(models.predict(u_net, given, live=live)) for live in (False, True))
    for (frame, saliency), (same, found) in zip(one, other, strict=True):
        assert frame.number == same.number
        torch.testing.assert_close(saliency, found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampling, least, most", [("seamless", 6, 17), ("reference", 2, 21)])
def test_a_map_of_sst_sal_comes_when_its_clip_is_full(sampling, least, most):
    model = models.SSTSal(3, 1, sampling=sampling, height=8, width=16).eval()
    for options, step in (({}, 1), ({"fps": 30}, SAMPLED)):
        found = delays(model, pictures(8, 120), live=True, **options)
        assert (min(found), max(found)) == (least * step, most * step)
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8").replace("\n", " ")
    assert f"{least} to {most}" in page


class Given(models.SaliencyModel):
    """A model whose map is the first channel of the frame."""

    name = "given"

    def __init__(self, smoothing=0.0, height=4):
        super().__init__(models.Spec(height=height, width=2 * height, smoothing=smoothing))
        self.register_buffer("nothing", torch.zeros(1))

    def forward(self, frames, motion):
        return frames[:, :, :1]


def frames(values, times=None, height=4):
    times = times or [n / 8 for n in range(len(values))]
    size = height, 2 * height
    return [
        Frame(n, seconds, torch.full((3, *size), value), torch.zeros(0, *size))
        for n, (value, seconds) in enumerate(zip(values, times, strict=True), start=1)
    ]


def maps(given, smoothing=HALF, **options):
    pairs = models.predict(Given(smoothing), given, **options)
    return {frame.number: saliency[0, 0, 0].item() for frame, saliency in pairs}


def logit(p):
    return math.log(p / (1 - p))


def expected(given, number, ahead=HALF):
    """By hand: the weighted mean of the logits of frames at most half a second away.

    At least half of its own map.
    """
    now = given[number - 1].seconds
    near = [f for f in given if now - HALF <= f.seconds <= now + ahead]
    weights = [math.exp(-abs(f.seconds - now) / HALF) for f in near]
    values = [f.rgb[0, 0, 0].item() for f in near]
    mean = sum(w * logit(value) for w, value in zip(weights, values)) / sum(weights)
    return max(1 / (1 + math.exp(-mean)), given[number - 1].rgb[0, 0, 0].item() / 2)


@pytest.mark.parametrize("times", [None, UNEVEN])
@pytest.mark.parametrize("live", [False, True])
def test_a_map_is_the_mean_of_logits_around_its_frame(times, live):
    given = frames(VALUES, times)
    found = maps(given, live=live)
    assert list(found) == list(range(1, 31))
    for number in (1, 2, 9, 12, 20, 29, 30):
        by_hand = expected(given, number, ahead=0.0 if live else HALF)
        assert found[number] == pytest.approx(by_hand, abs=1e-5)


def test_what_passes_by_quickly_keeps_half_of_its_height():
    """Bright in one frame of nine: the mean of logits alone would be 0.025."""
    found = maps(frames([0.01] * 8 + [0.9] + [0.01] * 8))
    assert found[9] == pytest.approx(0.45, abs=1e-4)
    assert found[8] < 0.03


@pytest.mark.parametrize("column", [3, 30])  # at the seam, and elsewhere
def test_what_moves_before_a_steady_camera_keeps_its_own_logit(column):
    """Bright in one frame of nine, and only around `column` is there motion in it."""
    given = frames([0.01] * 8 + [0.9] + [0.01] * 8, height=32)
    motion = torch.zeros(1, 32, 64)
    motion[:, 8:16, column // 8 * 8 : column // 8 * 8 + 8] = 0.02
    given = [replace(f, motion=motion if f.number == 9 else 0 * motion) for f in given]
    model = Given(HALF, height=32)
    for name, at_motion in (("steady_difference", 0.9), ("difference", 0.45)):
        model.spec = replace(model.spec, motion=name)
        found = dict((f.number, m[0]) for f, m in models.predict(model, given))
        assert found[9][12, column].item() == pytest.approx(at_motion, abs=1e-4)
        opposite = found[9][12, (column + 32) % 64].item()
        assert opposite == pytest.approx(0.45, abs=1e-4)
        assert found[9][12, column - 12].item() == pytest.approx(at_motion, abs=1e-4)
        assert found[8].max() < 0.03


def test_a_still_and_a_model_without_smoothing_keep_their_maps():
    assert maps(frames([0.3]))[1] == pytest.approx(0.3, abs=1e-6)
    assert maps(frames(VALUES), smoothing=0.0)[7] == pytest.approx(VALUES[6], abs=1e-6)


def test_frames_that_are_not_needed_change_nothing():
    """Those before are computed as far as the others need them, and not yielded."""
    given, whole, taken = frames(VALUES), maps(frames(VALUES)), []

    class Counting(Given):
        def forward(self, frames, motion):
            taken.extend(frames.flatten(0, 1)[:, 0, 0, 0].tolist())
            return super().forward(frames, motion)

    pairs = predict_from(Counting(HALF), given, 24)
    part = {frame.number: saliency[0, 0, 0].item() for frame, saliency in pairs}
    assert part == {number: whole[number] for number in range(25, 31)}
    assert taken == pytest.approx(VALUES[16:])  # the third batch of eight and what follows


def test_memory_is_bounded_even_when_the_clock_of_a_file_jumps():
    """A clock that goes back by an hour: at most the frames of a second are held."""
    times = [3600 + n / 8 for n in range(40)] + [n / 8 for n in range(60)]
    alive = []

    def stream():
        for number, seconds in enumerate(times, start=1):
            frame = Frame(number, seconds, torch.full((3, 4, 8), 0.5), torch.zeros(0, 4, 8))
            alive.append(number)
            yield frame

    late = 0
    for frame, _ in models.predict(Given(HALF), stream()):
        late = max(late, alive[-1] - frame.number)
    assert frame.number == 100
    assert late <= 8 + 5  # a batch, and half a second


@pytest.mark.parametrize("wrong", [{"smoothing": -1}, {"smoothing": 11}])
def test_other_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="smoothing must be from 0 to 10"):
        models.Spec(**wrong)


def test_models_with_a_memory_of_their_own_are_refused():
    with pytest.raises(ValueError, match="models of single frames"):
        models.Spec(clip_length=20, smoothing=HALF)


def test_pictures_in_memory_are_predicted_as_those_in_files(picture_folder, checkpoint):
    model = models.load(checkpoint)
    pictures = [np.array(Image.open(path)) for path in sorted(picture_folder.iterdir())]
    wanted = list(models.predict(model, read_frames(picture_folder, model.spec, Fraction(30))))
    for given in (pictures, iter(pictures), [torch.from_numpy(p) for p in pictures]):
        found = list(models.predict(model, given, fps=30))
        for (frame, saliency), (known, truth) in zip(found, wanted, strict=True):
            assert (frame.number, frame.seconds) == (known.number, known.seconds)
            assert torch.equal(frame.rgb, known.rgb) and torch.equal(frame.motion, known.motion)
            assert torch.equal(saliency, truth)
    assert len(list(models.predict(model, pictures))) == 12  # no rate: all of them
    with pytest.raises(ValueError, match=r"no frame; give pictures or read_frames\("):
        list(models.predict(model, []))


def test_a_map_over_the_picture_that_was_given_took_four_lines_of_opencv(clip, checkpoint):
    """predict handed back a small tensor alone, which paint_picture did not take."""
    model = models.load(checkpoint)
    pictures = [moving_disc(n, 48, 96) for n in range(8)]
    for n, (frame, saliency) in enumerate(models.predict(model, pictures)):
        assert frame.picture is pictures[n]
        assert paint_picture(frame.picture, saliency).shape == (48, 96, 3)
    tensors = [frame.rgb for frame in read_frames(clip, model.spec)]
    for frame, saliency in models.predict(model, tensors):
        assert frame.picture is tensors[frame.number - 1]
        painted = paint_picture(frame.rgb, saliency)
        assert np.array_equal(painted, paint_picture(rgb_array(frame.rgb), saliency))
        assert painted.shape == (model.spec.height, model.spec.width, 3)


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
    exec(code.replace("fps=30", "fps=8"), {})
    assert drawn == [(48, 96, 3)] * 5 and not pictures


@pytest.mark.parametrize("picture", [
    np.zeros((48, 96, 3)),
    np.zeros((48, 96), np.uint8),
    np.zeros((48, 96, 4), np.uint8),
    np.zeros((1, 48, 96, 3), np.uint8),
    np.zeros((0, 96, 3), np.uint8),
    np.zeros((3, 48, 96), np.float32),
    torch.zeros(3, 48, 96, dtype=torch.uint8),
])  # fmt: skip
def test_errors_on_pictures_were_those_of_pyav(checkpoint, picture):
    """ "Unexpected numpy array shape" said neither which is right nor which was given."""
    words = r"pictures are \(H, W, 3\) uint8 RGB, or .*; got \w+ of shape \(\d+, "
    with pytest.raises(ValueError, match=words):
        list(models.predict(models.load(checkpoint), [picture]))
    with pytest.raises(ValueError, match=words):
        paint_picture(picture, torch.zeros(1, 4, 8))


def test_motion_is_computed_in_float32_beside_a_network_in_bfloat16(clip, checkpoint, monkeypatch):
    """Mixed precision holds in the network's thread; motion was rounded to bfloat16 like it."""
    model, seen = models.load(checkpoint), []
    with torch.autocast("cpu", torch.bfloat16):
        for frame, _ in models.predict(model, prefetch(read_frames(clip, model.spec))):
            seen.append(frame.motion)
    wanted = [frame.motion for frame in read_frames(clip, model.spec)]
    assert all(map(torch.equal, seen, wanted)) and seen[1].max() > 0


@pytest.mark.parametrize("given", ["clip.mp4", Path("clip.mp4")])
def test_a_path_is_answered_with_the_call_that_reads_it(given):
    with pytest.raises(TypeError, match=r"read_frames\(path, model.spec\)"):
        next(models.predict(models.EquatorPrior(4, 8), given))


def test_one_picture_is_no_stream():
    with pytest.raises(TypeError, match=r"\(N, H, W, 3\), got \(4, 8, 3\)"):
        next(models.predict(models.EquatorPrior(4, 8), np.zeros((4, 8, 3), np.uint8)))
