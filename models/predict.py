"""A clip model over an endless stream: one map for each frame, in constant memory."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from models.base import SaliencyModel, Spec

# Of models that look at single frames: enough to fill a GPU's time, and no more pixels than a CPU
# works on without fetching fresh memory for every layer.
FRAMES_AT_ONCE, PIXELS_AT_ONCE = 8, 8 * 240 * 480


@torch.inference_mode()
def predict(model: SaliencyModel, frames: Iterable, skip: int = 0) -> Iterator[tuple[Any, Tensor]]:
    """Saliency maps of a stream of frames.

    Clips of `clip_length` frames follow each other, each begun with a fresh memory; the maps of
    its first `warm_up` frames are left to the clip before, and over the next `fade` frames
    that clip's maps turn into its own, linearly. Before the first frame of the stream that
    frame stands still for a warm-up. With fade = 0, though, clips are cut as SST-Sal's
    authors do, and the first one's maps are kept from its first frame on.

    frames: objects with rgb (3, H, W) and motion (M, H, W), such as datasets.Frame.
    skip: leaves out that many maps at the start, and the work on clips that only hold
        those; the others are the same as without it.
    Yields (frame, map) for each frame, in order; map: (1, H, W) float32 on the CPU.
    """
    spec = model.spec
    device = next(model.parameters(), torch.empty(0)).device
    made = 0  # maps so far, counting those that were left out
    held: Tensor | None = None  # the last clip's maps of the frames that it shares with the next
    for clips, settled, last in _batches(frames, spec):
        ends = spec.fade if not last else 0
        count = sum(len(clip) - settled for clip in clips) - ends
        if made + count + ends <= skip:
            made += count
            continue
        rgb, motion = (
            torch.stack([torch.stack([getattr(f, name) for f in clip]) for clip in clips])
            for name in ("rgb", "motion")
        )
        maps = model(rgb.to(device), motion.to(device)).float().cpu()[:, settled:].flatten(0, 1)
        if held is not None:
            share = torch.arange(1, len(held) + 1)[:, None, None, None] / (len(held) + 1)
            maps[: len(held)] = torch.lerp(held, maps[: len(held)], share)
        held = maps[count:] if ends else None
        shown = [frame for clip in clips for frame in clip[settled:]]
        for frame, saliency in zip(shown, maps[:count]):
            made += 1
            if made > skip:
                yield frame, saliency


def _batches(frames: Iterable, spec: Spec) -> Iterator[tuple[list[list], int, bool]]:
    """Batches of clips of equal length: clips, frames to drop from each, whether it is the last.

    Only single frames come in batches of more than one clip.
    """
    length, warm_up, fade = spec.clip_length, spec.warm_up, spec.fade
    overlap = warm_up + fade
    fitting = min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // (spec.height * spec.width))
    together = max(1, fitting) if length == 1 else 1
    clips: list[list] = []
    clip: list = []
    settled = 0
    for frame in frames:
        if not clip and not clips and fade:
            clip, settled = [frame] * warm_up, warm_up
        if len(clip) == length:
            clips, clip = [*clips, clip], clip[length - overlap :] if overlap else []
        if len(clips) == together:
            yield clips, settled, False
            clips, settled = [], warm_up
        clip.append(frame)
    if clips:
        yield clips, settled, False
    if clip:
        yield [clip], warm_up if clips else settled, True
