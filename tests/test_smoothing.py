"""Steadier maps: the mean of logits around each frame, with weights that are known."""

import math
from dataclasses import replace

import pytest
import torch

import models
from video import Frame

HALF = 0.5  # seconds


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
    """By hand: the weighted mean of the logits of frames at most half a second away."""
    now = given[number - 1].seconds
    near = [f for f in given if now - HALF <= f.seconds <= now + ahead]
    weights = [math.exp(-abs(f.seconds - now) / HALF) for f in near]
    values = [f.rgb[0, 0, 0].item() for f in near]
    mean = sum(w * logit(value) for w, value in zip(weights, values)) / sum(weights)
    return max(1 / (1 + math.exp(-mean)), given[number - 1].rgb[0, 0, 0].item() / 2)


VALUES = torch.rand(30, generator=torch.Generator().manual_seed(3)).clamp(0.01, 0.99).tolist()
UNEVEN = [n / 8 + 0.4 * (n > 10) + 0.05 * (n % 3) for n in range(30)]


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

    pairs = models.predict(Counting(HALF), given, needed=lambda frame: frame.number >= 25)
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


def test_a_checkpoint_keeps_it(tmp_path):
    model = models.CubeUNet(height=40, width=80, base_channels=1)
    model.spec = replace(model.spec, smoothing=HALF)
    models.save(tmp_path / "net.pth", model)
    assert models.load(tmp_path / "net.pth").spec.smoothing == HALF


@pytest.mark.parametrize("wrong", [{"smoothing": -1}, {"smoothing": 11}, {"smoothing": "a"}])
def test_other_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="smoothing is from 0 to 10"):
        models.Spec(**wrong)


def test_models_with_a_memory_of_their_own_are_refused():
    with pytest.raises(ValueError, match="models of single frames"):
        models.Spec(clip_length=20, smoothing=HALF)
