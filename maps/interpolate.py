"""Maps of all frames from those of the sampled ones, linear in time."""

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from maps.attention import not_negative
from video.reader import Frame


def interpolate(
    maps: Iterable[tuple[Frame, Tensor]], covered: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, map) of all frames from the first sampled one on; maps: (H, W) float32.

    maps: sampled frames with theirs, (1, H, W). covered: where the source shows something, (H, W)
    bool; elsewhere maps become zero. Between two of them, maps are interpolated
    linearly in time; after the last one, its map is repeated.
    """
    sampled, before = None, np.zeros(())  # the last sampled frame and its map
    for frame, saliency in maps:
        after = not_negative(saliency[0]).numpy()
        after = after if covered is None else after * covered
        if sampled:
            start, steps, change = sampled.seconds, len(sampled.times), after - before
            for k, seconds in enumerate(sampled.times):
                rising = start <= seconds < frame.seconds  # else the clock of the file jumps
                share = (seconds - start) / (frame.seconds - start) if rising else k / steps
                yield sampled.number + k, before + np.float32(share) * change
        sampled, before = frame, after
    if sampled:
        for k in range(len(sampled.times)):
            yield sampled.number + k, before
