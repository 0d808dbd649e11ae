"""A clip model over an endless stream: one map for each frame, in constant memory."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from models.base import SaliencyModel

FRAMES_AT_ONCE = 8  # of models that look at single frames; enough to fill a GPU's time


@torch.inference_mode()
def predict(model: SaliencyModel, frames: Iterable, skip: int = 0) -> Iterator[Tensor]:
    """Saliency maps of a stream of frames.

    frames: objects with rgb (3, H, W) and motion (M, H, W), such as datasets.Frame.
    skip: leaves out that many maps at the start, and the work on clips that only hold
        those; the others are the same as without it.
    Yields (1, H, W) on the CPU, float32, one for each frame, in order. Clips begin with the
    model's `warm_up` frames before the first one wanted (at the very start the first frame
    repeated), whose maps are dropped.
    """
    device = next(model.parameters()).device
    made = 0
    for clips in _batches(frames, model.spec.clip_length, model.spec.warm_up):
        new = [len(clip) - model.spec.warm_up for clip in clips]
        if made + sum(new) <= skip:
            made += sum(new)
            continue
        rgb, motion = (
            torch.stack([torch.stack([getattr(f, name) for f in clip]) for clip in clips])
            for name in ("rgb", "motion")
        )
        maps = model(rgb.to(device), motion.to(device)).float().cpu()
        for saliency in maps[:, model.spec.warm_up :].flatten(0, 1):
            made += 1
            if made > skip:
                yield saliency


def _batches(frames: Iterable, length: int, warm_up: int) -> Iterator[list[list]]:
    """Batches of clips of equal length that together hold each frame once after a warm-up."""
    clips: list[list] = []
    clip: list = []
    size = max(1, FRAMES_AT_ONCE // length)
    fresh = 0
    for frame in frames:
        clip = clip or [frame] * warm_up
        clip.append(frame)
        fresh += 1
        if len(clip) == length:
            clips.append(clip)
            clip = clip[length - warm_up :] if warm_up else []
            fresh = 0
        if len(clips) == size:
            yield clips
            clips = []
    if clips:
        yield clips
    if fresh:
        yield [clip]
