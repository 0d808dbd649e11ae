"""Linear interpolation of maps in time, from sampled frames to all frames."""

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from maps.attention import not_negative
from video.reader import Frame


def interpolate(
    maps: Iterable[tuple[Frame, Tensor]], covered: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, map) of all frames from the first sampled one, with maps (H, W) float32.

    maps: sampled frames with their maps, (1, H, W). covered: part of the sphere in the source,
    (H, W) bool; elsewhere maps become zero. After the last sampled frame, its map is repeated.
    """
    sampled, before = None, np.zeros(())  # the last sampled frame and its map
    for frame, saliency in maps:
        after = not_negative(saliency[0]).numpy()
        after = after if covered is None else after * covered
        if sampled:
            start, steps, change = sampled.seconds, len(sampled.times), after - before
            for k, seconds in enumerate(sampled.times):
                rising = start <= seconds < frame.seconds  # otherwise the clock of the file jumps
                share = (seconds - start) / (frame.seconds - start) if rising else k / steps
                yield sampled.number + k, before + np.float32(share) * change
        sampled, before = frame, after
    if sampled:
        for k in range(len(sampled.times)):
            yield sampled.number + k, before
