"""Prediction over an endless stream: one map for each frame, in constant memory."""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from common.components import MOTIONS
from models.base import SaliencyModel
from video.background import map_in_background
from video.reader import Frame, frames_of
from video.spec import Spec

# Models of single frames take several at once: enough to keep a GPU busy, but no more pixels than
# a CPU can process without allocating memory for every layer.
FRAMES_AT_ONCE, PIXELS_AT_ONCE = 8, 8 * 240 * 480
THREADS = 4  # for computing different frames at the same time
EPSILON = 1e-6  # maps are clamped to [ε, 1 − ε] before their logits
MIN_OWN_SHARE = 0.5  # share of a frame's own map that smoothing keeps
MOVEMENT = 0.02  # difference from which a frame's own logits count where something moves
CELL, REACH = 8, 2  # pixels over which a difference is averaged; cells around it that it marks

Pair = tuple[Frame, Tensor]  # with its map (1, H, W)


class Batch(NamedTuple):
    """Clips of equal length that are computed together."""

    clips: list[list[Frame]]
    settled: int  # frames at the start of each clip whose maps are not used

    @property
    def frames(self) -> list[Frame]:
        """The frames whose maps are used, in order."""
        return [frame for clip in self.clips for frame in clip[self.settled :]]


@torch.inference_mode()
def predict(
    model: SaliencyModel,
    frames: Iterable[Frame] | Iterable[np.ndarray | Tensor],
    *,
    fps: float | None = None,
    live: bool = False,
) -> Iterator[tuple[Frame, Tensor]]:
    """Yield each frame of a stream with its saliency map, in order.

        for frame, saliency in predict(model, read_frames("clip.mp4", model.spec)):

    Clips of `clip_length` frames follow each other, each begun with a fresh memory. The maps of
    a clip's first `warm_up` frames are taken from the clip before; over the next `fade` frames
    the maps of that clip turn into its own, linearly. Before the first frame of the stream, that
    frame is repeated for a warm-up; with fade = 0, as SST-Sal's authors cut clips, it is not.

    Where the spec has a `smoothing` of s seconds, a frame's map is the sigmoid of the mean of the
    maps' logits over the frames at most s seconds before and after it, with weights
    exp(−|Δt| / s), and nowhere less than half of the frame's own map. Where the motion marks
    something that moves before a steady camera, the frame's own logit counts where it is higher.

    frames: objects with rgb (3, H, W) and motion (M, H, W), such as video.Frame; or pictures of
        any size, (H, W, 3) uint8 RGB arrays or frames' tensors (3, H, W) in [0, 1], of which
        video.Frames are made that hand each back as `picture`.
    fps: pictures a second; they are sampled at the rate of `model.spec`. None: all are.
    live: whether to look at each frame as soon as it is there; otherwise a model of single frames
        takes several at once.
    Yields: the frame and its map (1, H, W), float32 on the CPU. Live, the map of a video.Frame
        comes before the next one is taken, and that of a picture when the next picture that is
        sampled has come; it is smoothed over the frames before alone. A model with a memory gives
        the maps of a clip when the clip is full and the next frame has come, live or not.
    Raises ValueError for pictures of another shape or type and where there are none, and TypeError
    for what holds no frames.

    >>> from models import EquatorPrior
    >>> from video import Frame
    >>> still = Frame(1, 0.0, torch.zeros(3, 4, 8), torch.zeros(0, 4, 8))
    >>> [(frame.number, saliency.shape) for frame, saliency in predict(EquatorPrior(4, 8), [still])]
    [(1, torch.Size([1, 4, 8]))]
    """
    yield from predict_from(model, frames, 0, fps, live)


@torch.inference_mode()
def predict_from(
    model: SaliencyModel,
    frames: Iterable[Any],
    done: int,
    fps: float | None = None,
    live: bool = False,
) -> Iterator[Pair]:
    """Yield what `predict` yields, starting at the first frame without a map.

    done: number of existing maps, sampled or interpolated. Clips before are not computed.
    """
    spec = model.spec
    if isinstance(frames, (str, Path)):
        raise TypeError("predict takes frames, no path: give read_frames(path, model.spec)")
    if isinstance(frames, (np.ndarray, Tensor)) and frames.ndim == 3:
        raise TypeError(f"predict takes several pictures (N, H, W, 3), got {tuple(frames.shape)}")
    rest = iter(frames)
    first = list(islice(rest, 1))
    source: Iterable[Any] = chain(first, rest)
    if not first:
        raise ValueError("predict got no frame; give pictures or read_frames(path, model.spec)")
    if not hasattr(first[0], "rgb"):
        source = frames_of(source, spec, fps)
    batches = _batches(source, spec, 1 if live else FRAMES_AT_ONCE)
    if done:
        batches = _from_first_needed(batches, done, spec.smoothing)
    pairs = _stitched(_computed(model, batches, live), spec.fade)
    if spec.smoothing:
        marks = MOTIONS[spec.motion].marks_movement
        pairs = _smoothed(pairs, spec.smoothing, live, marks)
    yield from (pair for pair in pairs if _goes_beyond(pair[0], done))


def _goes_beyond(frame: Frame, done: int) -> bool:
    """Return whether a sampled frame or one of those up to the next is after the first `done`."""
    return not done or frame.number + max(1, len(frame.times)) > done + 1


def _batches(frames: Iterable[Frame], spec: Spec, most: int) -> Iterator[Batch]:
    """Yield batches of clips of a stream; single frames in batches of at most `most`."""
    length, warm_up, overlap = spec.clip_length, spec.warm_up, spec.warm_up + spec.fade
    if length == 1:
        stream = iter(frames)
        together = max(1, min(most, PIXELS_AT_ONCE // (spec.height * spec.width)))
        while clips := [[frame] for frame in islice(stream, together)]:
            yield Batch(clips, 0)
        return
    clip: list[Frame] = []
    settled = 0
    for frame in frames:
        if not clip and spec.fade:
            clip, settled = [frame] * warm_up, warm_up
        if len(clip) == length:
            yield Batch([clip], settled)
            clip, settled = clip[length - overlap :], warm_up
        clip.append(frame)
    if clip:
        yield Batch([clip], settled)


def _from_first_needed(batches: Iterator[Batch], done: int, seconds: float) -> Iterator[Batch]:
    """Yield batches from the first one after `done`, and those some seconds before."""
    near: list[Batch] = []
    for batch in batches:
        first = next((f for f in batch.frames if _goes_beyond(f, done)), None)
        now = first or batch.frames[-1]
        near = [b for b in near if seconds and abs(now.seconds - b.frames[-1].seconds) <= seconds]
        near.append(batch)
        if first:
            yield from near
            yield from batches


def _computed(
    model: SaliencyModel, batches: Iterator[Batch], live: bool
) -> Iterator[tuple[list[Frame], Tensor]]:
    """Yield the frames of each batch with their maps, (N, 1, H, W) float32 on the CPU.

    On a CPU, threads that compute different frames wait less for each other than threads that share
    the layers of one frame: with two, it takes nine tenths of the time. The maps are the same.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    dtype, mixed = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)

    @torch.inference_mode()
    def compute(batch: Batch) -> tuple[list[Frame], Tensor]:
        rgb = torch.stack([torch.stack([frame.rgb for frame in clip]) for clip in batch.clips])
        motion = torch.stack([torch.stack([f.motion for f in clip]) for clip in batch.clips])
        with torch.autocast(device.type, dtype, enabled=mixed):
            maps = model(rgb.to(device), motion.to(device))
        return batch.frames, maps.float().cpu()[:, batch.settled :].flatten(0, 1)

    number = torch.get_num_threads()
    threads = min(number, THREADS) if model.parallel and device.type == "cpu" and not live else 1
    if threads == 1:
        yield from map(compute, batches)
        return
    try:
        prepare = partial(torch.set_num_threads, number // threads)
        yield from map_in_background(compute, batches, threads, threads, prepare)
    finally:
        torch.set_num_threads(number)  # `prepare` has set it for threads that start later


def _stitched(computed: Iterable[tuple[list[Frame], Tensor]], fade: int) -> Iterator[Pair]:
    """Yield frames and maps, with a cross-fade where clips overlap."""
    shared: list[Pair] = []  # frames that the last clip shares with the next one
    for frames, maps in computed:
        for k, (_, before) in enumerate(shared):
            maps[k] = torch.lerp(before, maps[k], (k + 1) / (len(shared) + 1))
        pairs = list(zip(frames, maps))
        settled = max(0, len(pairs) - fade)
        yield from pairs[:settled]
        shared = pairs[settled:]
    yield from shared


def _movement(motion: Tensor) -> Tensor:
    """Return from 0 to 1 how much moves around each pixel: (1, H, W) → (1, H, W)."""
    cells = avg_pool2d(motion, CELL, ceil_mode=True)
    round_the_sphere = pad(cells, (REACH, REACH, 0, 0), mode="circular")
    near = max_pool2d(round_the_sphere, 2 * REACH + 1, stride=1, padding=(REACH, 0))
    return interpolate((near / MOVEMENT).clamp(max=1)[None], motion.shape[-2:], mode="bilinear")[0]


def _smoothed(
    pairs: Iterable[Pair], seconds: float, live: bool, marks_movement: bool
) -> Iterator[Pair]:
    """Yield frames with weighted means of the maps around them, see `predict`."""
    near: list[tuple[Frame, Tensor, Tensor]] = []  # frames, maps and logits that are still needed
    following = 0  # index in `near` of the frame whose mean comes next
    for pair in chain(pairs, [None]):
        if pair:
            near.append((*pair, pair[1].logit(eps=EPSILON)))
        while following < len(near):
            frame, own, own_logits = near[following]
            apart = [abs(other.seconds - frame.seconds) for other, *_ in near]
            if pair and not live and apart[-1] <= seconds:
                break  # the next frame may be near, too
            weights = [math.exp(-a / seconds) if a <= seconds else 0.0 for a in apart]
            mean = torch.zeros_like(own)
            for weight, (*_, logits) in zip(weights, near):
                mean.add_(logits, alpha=weight / sum(weights))
            if marks_movement:
                mean += _movement(frame.motion.cpu()) * (own_logits - mean).clamp(min=0)
            yield frame, torch.maximum(mean.sigmoid_(), MIN_OWN_SHARE * own)
            following += 1
            while following > 1 and abs(near[0][0].seconds - frame.seconds) > seconds:
                del near[0]
                following -= 1
