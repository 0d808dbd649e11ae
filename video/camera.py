"""Stand-in until the branch projection is merged."""

import numpy as np

from projection import directions


def follow_path(maps, seconds):
    grid = directions(*maps.shape[1:]).numpy()
    out = []
    mean = 0
    for m in maps:
        w = m.astype(float) ** 4
        mean = 0.97 * mean + 0.03 * (w[..., None] * grid).sum((0, 1)) / w.sum()
        out.append([np.degrees(np.arctan2(mean[0], mean[2])),
                    np.degrees(np.arctan2(mean[1], np.hypot(mean[0], mean[2])))])
    return np.array(out)
