"""A clip model over an endless stream: one map for each frame, in constant memory."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from models.base import SaliencyModel, Spec
from video.ahead import behind
from video.reader import frames_of

# Models that look at single frames take several at once: enough to keep a GPU busy, and no more
# pixels than a CPU works on without fetching fresh memory for every layer.
FRAMES_AT_ONCE, PIXELS_AT_ONCE = 8, 8 * 240 * 480
THREADS = 4  # that compute different frames of a model at once
EPSILON = 1e-6  # least distance of a map from 0 and 1 in its logits
LEAST = 0.5  # share of a frame's own map that smoothing keeps


@torch.inference_mode()
def predict(
    model: SaliencyModel,
    frames: Iterable,
    needed: Callable[[object], bool] = lambda frame: True,
    fps: float | None = None,
    live: bool = False,
) -> Iterator[tuple[object, Tensor]]:
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
    needed: called with a frame; frames at the start for which it is false are not yielded. Clips
        that hold only such frames are not computed; all other maps are the same as without it.
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
    frames = iter(frames)
    first = list(islice(frames, 1))
    frames = chain(first, frames)
    if first and not hasattr(first[0], "rgb"):
        frames = frames_of(frames, spec, fps)
    if not spec.smoothing:
        yield from _maps(model, frames, needed, live)
        return
    started = False
    maps = _maps(model, _from_before(frames, needed, spec.smoothing), lambda frame: True, live)
    for frame, saliency in _smoothed(maps, spec.smoothing, live):
        if started := started or needed(frame):
            yield frame, saliency


def _from_before(frames: Iterable, needed: Callable, seconds: float) -> Iterator:
    """Yield frames from at least some seconds before the first one that is needed.

    Frames are left out in whole batches, so that the others are computed as if these were there.
    """
    before: deque = deque()
    for frame in frames:
        before.append(frame)
        if needed(frame):
            break
        while frame.seconds - before[min(FRAMES_AT_ONCE, len(before) - 1)].seconds > seconds:
            for _ in range(FRAMES_AT_ONCE):
                before.popleft()
    yield from chain(before, frames)


def _smoothed(maps: Iterable, seconds: float, live: bool) -> Iterator[tuple[object, Tensor]]:
    """Yield each frame with the mean of the maps around it, as `predict` says.

    maps: frames, with their `seconds`, and maps. live: whether to look at earlier frames alone.
    """
    near: list[tuple[object, Tensor, Tensor]] = []  # frames, maps and logits still needed
    at = 0  # the next frame to be yielded, as its index in `near`
    for frame, saliency in chain(maps, [(None, None)]):
        if frame:
            near.append((frame, saliency, saliency.logit(eps=EPSILON)))
        while at < len(near):
            now, own, _ = near[at]
            apart = [abs(other.seconds - now.seconds) for other, *_ in near]
            if frame and not live and apart[-1] <= seconds:
                break  # the next frame may be near, too
            weights = [math.exp(-a / seconds) if a <= seconds else 0.0 for a in apart]
            mean = torch.zeros_like(own)
            for weight, (*_, logits) in zip(weights, near):
                mean.add_(logits, alpha=weight / sum(weights))
            yield now, torch.maximum(mean.sigmoid_(), LEAST * own)
            at += 1
            while at > 1 and abs(near[0][0].seconds - now.seconds) > seconds:
                near, at = near[1:], at - 1


def _maps(
    model: SaliencyModel, frames: Iterable, needed: Callable[[object], bool], live: bool
) -> Iterator[tuple[object, Tensor]]:
    """Yield each frame of a stream with the model's map, as `predict` does without smoothing."""
    held: Tensor | None = None  # the last clip's maps of the frames that it shares with the next
    started = False  # whether a needed frame has come
    for (clips, settled, last), maps in _computed(
        model, _from(frames, needed, model.spec, live), live
    ):
        shared = 0 if last else model.spec.fade
        settled_frames = [frame for clip in clips for frame in clip[settled:]]
        own = settled_frames[: len(settled_frames) - shared]
        if held is not None:
            share = torch.arange(1, len(held) + 1)[:, None, None, None] / (len(held) + 1)
            maps[: len(held)] = torch.lerp(held, maps[: len(held)], share)
        held = maps[len(own) :] if shared else None
        for frame, saliency in zip(own, maps):
            if started := started or needed(frame):
                yield frame, saliency


def _from(frames: Iterable, needed: Callable, spec: Spec, live: bool) -> Iterator[tuple]:
    """Yield the batches of a stream from the first one with a frame that is needed."""
    started = False
    for clips, settled, last in _batches(frames, spec, 1 if live else FRAMES_AT_ONCE):
        if started := started or any(needed(f) for clip in clips for f in clip[settled:]):
            yield clips, settled, last


def _computed(model: SaliencyModel, batches: Iterator[tuple], live: bool) -> Iterator[tuple]:
    """Yield each batch with its maps, (N, 1, H, W) float32 on the CPU.

    On a CPU, threads that compute different frames have less to wait for each other than threads
    that divide the layers of one frame: two need nine tenths of the time. The maps are the same.
    """
    device = next(chain(model.parameters(), model.buffers())).device
    mixed = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

    @torch.inference_mode()
    def compute(batch: tuple) -> tuple[tuple, Tensor]:
        clips, settled, _ = batch
        rgb, motion = (
            torch.stack([torch.stack([getattr(f, name) for f in clip]) for clip in clips])
            for name in ("rgb", "motion")
        )
        with torch.autocast(device.type, mixed[1], enabled=mixed[0]):
            maps = model(rgb.to(device), motion.to(device))
        return batch, maps.float().cpu()[:, settled:].flatten(0, 1)

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


def not_negative(maps: Tensor) -> Tensor:
    """Shift maps (..., H, W) with negative values, of SST-Sal's reference sampling, up to 0."""
    return maps - maps.amin((-2, -1), keepdim=True).clamp(max=0)


def _batches(frames: Iterable, spec: Spec, most: int) -> Iterator[tuple[list[list], int, bool]]:
    """Yield batches of clips of equal length, as (clips, settled, last), as soon as they are full.

    most: clips in a batch. Clips that share frames come alone, and not before the next frame.
    settled: the number of frames at the start of each clip whose maps are not used.
    last: whether the stream ends with this batch.
    """
    length, warm_up, fade = spec.clip_length, spec.warm_up, spec.fade
    overlap = warm_up + fade
    fitting = min(most, PIXELS_AT_ONCE // (spec.height * spec.width))
    together = max(1, fitting) if length == 1 else 1
    clips: list[list] = []
    clip: list = []
    settled = 0
    for frame in frames:
        if not clip and fade:
            clip, settled = [frame] * warm_up, warm_up
        if overlap and len(clip) == length:
            yield [clip], settled, False
            clip, settled = clip[length - overlap :], warm_up
        clip.append(frame)
        if not overlap and len(clip) == length:
            clips, clip = [*clips, clip], []
        if len(clips) == together:
            yield clips, 0, False
            clips = []
    if clips:
        yield clips, 0, False
    if clip:
        yield [clip], settled, True
