"""A clip model over an endless stream: one map for each frame, in constant memory."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.base import SaliencyModel
from video.ahead import behind
from video.reader import Frame, frames_of
from video.spec import Spec

# Models that look at single frames take several at once: enough to keep a GPU busy, and no more
# pixels than a CPU works on without fetching fresh memory for every layer.
FRAMES_AT_ONCE, PIXELS_AT_ONCE = 8, 8 * 240 * 480
THREADS = 4  # that compute different frames of a model at once
EPSILON = 1e-6  # least distance of a map from 0 and 1 in its logits
LEAST = 0.5  # share of a frame's own map that smoothing keeps


class Batch(NamedTuple):
    """Clips of equal length that the model computes together."""

    clips: list[list[Frame]]
    settled: int  # frames at the start of each clip whose maps are not used
    last: bool  # whether the stream ends with this batch

    @property
    def frames(self) -> list[Frame]:
        """The frames whose maps are used, in order."""
        return [frame for clip in self.clips for frame in clip[self.settled :]]


@torch.inference_mode()
def predict(
    model: SaliencyModel,
    frames: Iterable[Frame] | Iterable[np.ndarray | Tensor],
    needed: Callable[[Frame], bool] = lambda frame: True,
    fps: float | None = None,
    live: bool = False,
) -> Iterator[tuple[Frame, Tensor]]:
    """Yield each frame of a stream with its saliency map, in order.

    Clips of `clip_length` frames follow each other, each begun with a fresh memory. The maps of
    a clip's first `warm_up` frames are taken from the clip before; over the next `fade` frames
    the maps of that clip turn into its own, linearly. Before the first frame of the stream, that
    frame is repeated for a warm-up. With fade = 0, clips are cut as SST-Sal's authors cut them,
    and the first clip's maps are kept from its first frame on.

    People look for a moment at what was there a moment ago. So where the spec has a `smoothing`
    of s seconds, a frame's map is the sigmoid of the mean of the maps' logits over the frames at
    most s seconds before and after it, with weights exp(−|Δt| / s). It is nowhere less than half
    of the frame's own map, so that what passes by quickly stays visible.

    frames: objects with rgb (3, H, W) and motion (M, H, W), such as video.Frame; or pictures of
        any size, (H, W, 3) uint8 RGB arrays or tensors, from a camera for example, of which
        video.Frames are made.
    needed: whether the map of a frame is wanted; the others are not yielded. Clips before the
        first such frame are not computed; all other maps are the same as without it.
    fps: pictures a second; they are sampled at the rate of `model.spec`. None: all are.
    live: whether to look at each frame as soon as it is there; else a model of single frames looks
        at up to 8 small ones at once, and on a CPU up to four threads compute different ones, which
        is faster.
    Yields: the frame and its map (1, H, W), float32 on the CPU. Live, the map of a video.Frame
        comes before the next one is taken, and that of a picture when the next picture that is
        sampled has come; it is smoothed over the frames before alone. A model with a memory gives
        the maps of a clip when the clip is full and the next frame has come, live or not.
    Raises ValueError for pictures of another shape or type.

    >>> from models import EquatorPrior
    >>> from video import Frame
    >>> still = Frame(1, 0.0, torch.zeros(3, 4, 8), torch.zeros(0, 4, 8))
    >>> [(frame.number, saliency.shape) for frame, saliency in predict(EquatorPrior(4, 8), [still])]
    [(1, torch.Size([1, 4, 8]))]
    """
    spec = model.spec
    rest = iter(frames)
    first = list(islice(rest, 1))
    source: Iterable[Any] = chain(first, rest)
    if first and not hasattr(first[0], "rgb"):
        source = frames_of(source, spec, fps)
    batches = _batches(source, spec, 1 if live else FRAMES_AT_ONCE)
    batches = _from_first_needed(batches, needed, spec.smoothing)
    smoother = Smoother(spec.smoothing, live)
    overlap: Tensor | None = None  # the last clip's maps of frames that it shares with the next
    for batch, maps in _computed(model, batches, live):
        if overlap is not None:
            share = torch.arange(1, len(overlap) + 1)[:, None, None, None] / (len(overlap) + 1)
            maps[: len(overlap)] = torch.lerp(overlap, maps[: len(overlap)], share)
        complete = len(maps) if batch.last else len(maps) - spec.fade
        overlap = maps[complete:] if complete < len(maps) else None
        for frame, saliency in zip(batch.frames[:complete], maps):
            yield from (pair for pair in smoother.add(frame, saliency) if needed(pair[0]))
    yield from (pair for pair in smoother.finish() if needed(pair[0]))


class Smoother:
    """Weighted means of the maps around each frame, as `predict` describes them.

    seconds: before and after a frame; with 0, maps stay as they are. live: only those before.
    """

    def __init__(self, seconds: float, live: bool):
        self.seconds, self.live = seconds, live
        self.near: list[tuple[Frame, Tensor, Tensor]] = []  # frames, maps and logits still needed
        self.next = 0  # index in `near` of the frame whose mean comes next

    def add(self, frame: Frame, saliency: Tensor) -> list[tuple[Frame, Tensor]]:
        """Take the next frame and its map; return the frames whose means are now complete."""
        if not self.seconds:
            return [(frame, saliency)]
        self.near.append((frame, saliency, saliency.logit(eps=EPSILON)))
        complete = []
        while self.next < len(self.near):
            apart = abs(frame.seconds - self.near[self.next][0].seconds)
            if not self.live and apart <= self.seconds:
                break  # the next frame may be near, too
            complete.append(self._mean())
        return complete

    def finish(self) -> list[tuple[Frame, Tensor]]:
        """Return the last frames and their means."""
        return [self._mean() for _ in range(self.next, len(self.near))]

    def _mean(self) -> tuple[Frame, Tensor]:
        """Return the next frame and its mean, and drop the frames that no later one is near to."""
        frame, own, _ = self.near[self.next]
        apart = [abs(other.seconds - frame.seconds) for other, *_ in self.near]
        weights = [math.exp(-a / self.seconds) if a <= self.seconds else 0.0 for a in apart]
        mean = torch.zeros_like(own)
        for weight, (*_, logits) in zip(weights, self.near):
            mean.add_(logits, alpha=weight / sum(weights))
        self.next += 1
        while self.next > 1 and abs(self.near[0][0].seconds - frame.seconds) > self.seconds:
            del self.near[0]
            self.next -= 1
        return frame, torch.maximum(mean.sigmoid_(), LEAST * own)


def _batches(frames: Iterable[Frame], spec: Spec, most: int) -> Iterator[Batch]:
    """Yield the clips of a stream in batches, as soon as they are full.

    most: clips in a batch. Clips that share frames come alone, and not before the next frame.
    """
    length, warm_up, fade = spec.clip_length, spec.warm_up, spec.fade
    overlap = warm_up + fade
    fitting = max(1, min(most, PIXELS_AT_ONCE // (spec.height * spec.width)))
    together = fitting if length == 1 else 1
    clips: list[list[Frame]] = []
    clip: list[Frame] = []
    settled = 0
    for frame in frames:
        if not clip and fade:
            clip, settled = [frame] * warm_up, warm_up
        if overlap and len(clip) == length:
            yield Batch([clip], settled, False)
            clip, settled = clip[length - overlap :], warm_up
        clip.append(frame)
        if not overlap and len(clip) == length:
            clips, clip = [*clips, clip], []
        if len(clips) == together:
            yield Batch(clips, 0, False)
            clips = []
    if clips:
        yield Batch(clips, 0, False)
    if clip:
        yield Batch([clip], settled, True)


def _from_first_needed(
    batches: Iterable[Batch], needed: Callable[[Frame], bool], seconds: float
) -> Iterator[Batch]:
    """Yield batches from the first with a needed frame, and those at most some seconds before.

    Whole batches are left out, so that the others are computed as if these were there.
    """
    before: deque[Batch] = deque(maxlen=None if seconds else 1)
    batches = iter(batches)
    for batch in batches:
        frame = next(filter(needed, batch.frames), None)
        before.append(batch)
        latest = frame or batch.frames[-1]
        while len(before) > 1 and abs(latest.seconds - before[0].frames[-1].seconds) > seconds:
            before.popleft()
        if frame:
            break
    else:
        return
    yield from chain(before, batches)


def _computed(
    model: SaliencyModel, batches: Iterator[Batch], live: bool
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield batches with the maps of their frames, (N, 1, H, W) float32 on the CPU.

    On a CPU, threads that compute different frames have less to wait for each other than threads
    that divide the layers of one frame: two need nine tenths of the time. The maps are the same.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    dtype, mixed = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)

    @torch.inference_mode()
    def compute(batch: Batch) -> tuple[Batch, Tensor]:
        rgb = torch.stack([torch.stack([frame.rgb for frame in clip]) for clip in batch.clips])
        motion = torch.stack([torch.stack([f.motion for f in clip]) for clip in batch.clips])
        with torch.autocast(device.type, dtype, enabled=mixed):
            maps = model(rgb.to(device), motion.to(device))
        return batch, maps.float().cpu()[:, batch.settled :].flatten(0, 1)

    number = torch.get_num_threads()
    threads = min(number, THREADS) if model.parallel and device.type == "cpu" and not live else 1
    first = list(islice(batches, threads))
    if len(first) < 2:
        yield from map(compute, chain(first, batches))
        return
    try:
        prepare = partial(torch.set_num_threads, number // threads)
        yield from behind(compute, chain(first, batches), threads, threads, prepare)
    finally:
        torch.set_num_threads(number)  # `prepare` sets it for all threads that start later
