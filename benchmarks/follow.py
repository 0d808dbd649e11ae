"""What the camera of `make_video.py --follow` shows of clips, given the folders of their maps.

    python -m benchmarks.follow outputs/clip_saliency …

A peak is a maximum, within 15°, of attention above the clip's own mean map, at least a fifth as
high as the highest one, in a map for each half second. It appears where there was none within 20°
for three seconds. Printed are the share of peaks of which the view holds the direction within three
seconds, as long as they last; the directions at least 30° apart that are held for two seconds; the
share of the time in which the camera turns by more than a degree a second; and its largest speed.
"""

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch

from projection import directions, solid_angles
from projection.perspective import extent_of, to_plane
from projection.sphere import direction_of, orientation
from video.pictures import read_picture
from views.follow import follow_path

ROWS, COLUMNS = 45, 90  # of the maps that are compared
SLOT = 0.5  # seconds


def find_peaks(maps: list[np.ndarray], seconds: np.ndarray) -> list[list[tuple[float, np.ndarray]]]:
    """Return the times and unit vectors at which each peak is seen, in the order of appearance."""
    slots = ((seconds - seconds[0]) / SLOT).astype(int)
    density = np.zeros((slots[-1] + 1, ROWS * COLUMNS))
    area = solid_angles(ROWS, COLUMNS).numpy()
    for slot, saliency in zip(slots, maps):
        small = cv2.resize(
            saliency.astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA
        )
        density[slot] += (small / ((small * area).sum() or 1)).ravel()
    density /= np.bincount(slots, minlength=len(density)).clip(min=1)[:, None]
    density -= density.mean(0)
    rays = directions(ROWS, COLUMNS, torch.float64).flatten(0, 1).numpy()
    near = rays @ rays.T > math.cos(math.radians(15))
    peaks: list[list[tuple[float, np.ndarray]]] = []
    for slot, values in enumerate(density):
        for cell in np.flatnonzero(values >= density.max() / 5):
            if values[cell] < values[near[cell]].max():
                continue
            seen = (slot * SLOT, rays[cell])
            for peak in peaks:
                time, ray = peak[-1]
                if ray @ rays[cell] > math.cos(math.radians(20)) and slot * SLOT - time <= 3:
                    peak.append(seen)
                    break
            else:
                peaks.append([seen])
    return peaks


def in_view(direction: np.ndarray, ray: np.ndarray, fov: float, size: tuple[int, int]) -> bool:
    """Return whether a view towards (longitude, latitude) in degrees holds a unit vector."""
    camera = orientation(*np.radians(direction))
    u, v = to_plane(torch.from_numpy(ray) @ camera, extent_of(fov, *size))
    return bool(u.abs() <= 1 and v.abs() <= 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="MAPS_DIR", help="folder of maps")
    parser.add_argument("--cuts", action="store_true", help="the camera may also jump")
    args = parser.parse_args()
    for folder in args.folders:
        record = json.loads((folder / "saliency.json").read_text(encoding="utf-8"))
        paths = sorted(folder.glob("sal_*.png"))
        maps = [read_picture(path, "L") for path in paths]
        seconds = np.array(record.get("times") or np.arange(len(maps)) / record["fps"])
        path = follow_path(maps, seconds.tolist(), 90, (720, 1280), args.cuts)
        seconds -= seconds[0]
        peaks = find_peaks(maps, seconds)
        shown = 0
        for peak in peaks:
            early = [(t, ray) for t, ray in peak if t <= peak[0][0] + 3]
            frames = [min(np.searchsorted(seconds, t + SLOT / 2), len(path) - 1) for t, _ in early]
            shown += any(
                in_view(path[k], ray, 90, (720, 1280)) for k, (_, ray) in zip(frames, early)
            )
        rays = direction_of(*torch.from_numpy(np.radians(path)).T).numpy()
        steps = np.diff(seconds)
        speed = np.degrees(np.linalg.norm(np.diff(rays, axis=0), axis=1)) / steps
        held: list[np.ndarray] = []
        for first, time in enumerate(seconds):
            part = rays[first : np.searchsorted(seconds, time + 2)]
            still = time + 2 <= seconds[-1] and (part @ part[0]).min() > math.cos(math.radians(2))
            if still and all(part[0] @ ray < math.cos(math.radians(30)) for ray in held):
                held.append(part[0])
        moving = steps[speed > 1].sum() / steps.sum()
        print(
            f"{folder.name}: {shown} of {len(peaks)} peaks ({shown / max(1, len(peaks)):.0%}), "
            f"{len(held)} directions in {seconds[-1]:.0f} s, {moving:.0%} of the time in motion, "
            f"at most {speed.max():.1f}°/s"
        )


if __name__ == "__main__":
    main()
