"""Measure what the camera of `make_video.py --follow` shows, given folders of maps.

    python -m benchmarks.follow outputs/clip_saliency …
    python -m benchmarks.follow --heads nasrabadi_mmsys19_head_5hz.npz

A peak is a maximum within 15° of attention above the clip's mean map, at least a fifth as high as
the highest one; maps are averaged over half seconds. A peak appears if there was none within 20°
for three seconds. The command prints the share of peaks that are in view within three seconds, as
long as they last; the number of directions at least 30° apart that are held for two seconds; the
share of time in which the camera turns by more than a degree a second; its largest speed; and the
longest time for which it holds a view without a strong peak, a maximum of attention at least 0.3
times as high as the highest one at that time.

With --heads, the maps are made from the head directions of half of a video's viewers, and the share
of the other viewers' head directions in view is printed, too. For comparison, there are a camera
that looks straight ahead, the best camera that does not move, and the other viewers. Every third
video of the file is left out, since the settings of the camera were chosen on these.
"""

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from common.errors import InputError, counted, run_script
from common.files import MAX_ARRAY_BYTES, reading
from datasets.gaze import gaussian_map
from maps.folder import read_record
from maps.saved import map_path
from projection import directions, solid_angles
from projection.perspective import extent_of, to_plane
from projection.sphere import angles_of, direction_of, orientation
from video.pictures import read_picture
from views.follow import follow_path

ROWS, COLUMNS = 45, 90  # of the maps that are compared
SLOT = 0.5  # seconds
RATE = 5.0  # head directions a second
EXTENT = extent_of(90, 720, 1280)
PLACES = [(x, y) for x in range(-180, 180, 10) for y in range(-60, 70, 10)]  # in degrees
RAYS = directions(ROWS, COLUMNS, torch.float64).flatten(0, 1).numpy()
NEAR = math.cos(math.radians(15)) < RAYS @ RAYS.T  # within 15°
# The times and unit vectors at which each peak is seen, in the order of appearance.
Peaks = list[list[tuple[float, np.ndarray]]]


def densities(maps: list[np.ndarray], seconds: np.ndarray) -> np.ndarray:
    """Return attention per steradian in each SLOT: (S, ROWS · COLUMNS)."""
    slots = ((seconds - seconds[0]) / SLOT).astype(int)
    density = np.zeros((slots[-1] + 1, ROWS * COLUMNS))
    area = solid_angles(ROWS, COLUMNS).numpy()
    for slot, saliency in zip(slots, maps):
        small = cv2.resize(
            saliency.astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_AREA
        )
        density[slot] += (small / ((small * area).sum() or 1)).ravel()
    return density / np.bincount(slots, minlength=len(density)).clip(min=1)[:, None]


def maxima(values: np.ndarray, least: float) -> np.ndarray:
    """Return the unit vectors (K, 3) of maxima within 15° that are at least so high."""
    high = np.flatnonzero(values >= least)
    return RAYS[[cell for cell in high if values[cell] >= values[NEAR[cell]].max()]]


def find_peaks(density: np.ndarray) -> Peaks:
    """Return the peaks of a clip above its mean map."""
    above = density - density.mean(0)
    peaks: Peaks = []
    for slot, values in enumerate(above):
        for found in maxima(values, above.max() / 5):
            seen = (slot * SLOT, found)
            for peak in peaks:
                time, ray = peak[-1]
                if ray @ found > math.cos(math.radians(20)) and slot * SLOT - time <= 3:
                    peak.append(seen)
                    break
            else:
                peaks.append([seen])
    return peaks


def in_view(path: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return whether views towards (N, 2) in degrees hold unit vectors (…, N, 3): (…, N)."""
    cameras = torch.stack([orientation(*place) for place in np.radians(path).tolist()])
    u, v = to_plane(torch.einsum("...nk,nkc->...nc", torch.from_numpy(rays), cameras), EXTENT)
    return ((u.abs() <= 1) & (v.abs() <= 1)).numpy()


def measure(
    path: np.ndarray, seconds: np.ndarray, peaks: Peaks, density: np.ndarray
) -> dict[str, float]:
    """Return what a camera shows on a path (N, 2) in degrees."""
    shown = 0
    for peak in peaks:
        early = [(t, ray) for t, ray in peak if t <= peak[0][0] + 3]
        frames = [min(np.searchsorted(seconds, t + SLOT / 2), len(path) - 1) for t, _ in early]
        shown += in_view(path[frames], np.stack([ray for _, ray in early])).any()
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
    longest = empty = 0.0
    for step, fast, slot, place in zip(steps, speed > 1, (seconds / SLOT).astype(int), path):
        strong = [] if fast else maxima(density[slot], 0.3 * density[slot].max())
        seen = fast or in_view(np.tile(place, (len(strong), 1)), strong).any()
        empty = 0.0 if seen else empty + step
        longest = max(longest, empty)
    found = {"peaks": shown, "held": len(held), "moving": moving}
    return found | {"speed": speed.max(), "longest": longest}


def score_folder(folder: Path, cuts: bool) -> None:
    """Print what the camera shows, given the folder of a clip's maps.

    Raises InputError where these are not the maps of a clip as infer_video.py writes them.
    """
    record = read_record(folder)
    frames = [n for n, peak in enumerate(record.get("peaks", [])) if peak is not None]
    if not record.get("complete") or len(frames) < 2 or "fps" not in record:
        raise InputError(f"{folder}: not all maps of a video; run infer_video.py again")
    times = record["times"] or np.arange(len(record["peaks"])) / record["fps"]
    seconds = np.array(times, np.float64)[frames]
    if not (np.diff(seconds) > 0).all():
        raise InputError(f"{folder}: times do not increase; run infer_video.py again")
    maps = [read_picture(map_path(folder, n + 1, ".png"), "L") for n in frames]
    path = follow_path(maps, seconds.tolist(), cuts=cuts)
    seconds -= seconds[0]
    density = densities(maps, seconds)
    peaks = find_peaks(density)
    found = measure(path, seconds, peaks, density)
    print(
        f"{folder.name}: {found['peaks']} of {len(peaks)} peaks "
        f"({found['peaks'] / max(1, len(peaks)):.0%}), {counted(found['held'], 'direction')} in "
        f"{seconds[-1]:.0f} s, {found['moving']:.0%} of the time in motion, "
        f"at most {found['speed']:.1f}°/s; no view without a strong peak is held for more than "
        f"{found['longest']:.1f} s"
    )


def score_heads(file: Path, cuts: bool) -> None:
    """Print what cameras and viewers see, given (people, samples, 3) unit vectors by video.

    Raises InputError for a file of anything else.
    """
    rows: dict[str, list] = {}  # by who looks, a row for each video
    otherwise = "not head directions of four or more people by video ({}); see --help"
    with (
        reading(file, otherwise, MAX_ARRAY_BYTES),
        np.load(file, allow_pickle=False) as videos,
    ):
        chosen = [name for number, name in enumerate(videos) if number % 3]
        if not chosen:
            raise ValueError("no second video")
        for name in tqdm(chosen, "viewers", unit="video", leave=False):
            heads = videos[name].astype(np.float64, casting="same_kind")
            heads /= np.linalg.norm(heads, axis=-1, keepdims=True)
            if heads.shape[0] < 4 or heads.shape[1] < 2 or heads.shape[2:] != (3,):
                raise ValueError(f"{name}: of shape {heads.shape}")
            if not np.isfinite(heads).all():
                raise ValueError(f"{name}: not finite")
            heads = np.random.default_rng(0).permutation(heads)
            shown, others = heads[::2], heads[1::2]
            seconds = np.arange(heads.shape[1]) / RATE
            places = np.stack(angles_of(torch.from_numpy(shown)), axis=-1)
            maps = [gaussian_map(*at.T, 60, 120, 10.0).numpy() for at in places.swapaxes(0, 1)]
            density = densities(maps, seconds)
            peaks = find_peaks(density)
            fixed = [np.tile(place, (len(seconds), 1)) for place in PLACES]
            views = [in_view(path, shown).mean() for path in fixed]
            paths = {"straight ahead": [np.zeros((len(seconds), 2))]}
            paths["best direction"] = [fixed[int(np.argmax(views))]]
            paths["camera"] = [follow_path(maps, seconds.tolist(), cuts=cuts)]
            ways = np.stack(angles_of(torch.from_numpy(others)), axis=-1)
            paths["viewers"] = list(np.degrees(np.unwrap(ways, axis=1)))
            for camera, theirs in paths.items():
                seen = []
                for number, path in enumerate(theirs):
                    rest = np.delete(others, number, 0) if camera == "viewers" else others
                    found = measure(path, seconds, peaks, density)
                    part = found["peaks"] / len(peaks), in_view(path, rest).mean()
                    seen.append((*part, found["held"], found["moving"], found["longest"]))
                rows.setdefault(camera, []).append(np.mean(seen, axis=0))
    print(f"{len(chosen)} videos: peaks within 3 s, others' directions in view, directions held, "
        "time in motion, longest time without a strong peak")  # fmt: skip
    for camera, means in rows.items():
        share, gaze, held, moving, _ = np.mean(means, axis=0)
        longest = np.max(means, axis=0)[-1]
        print(f"{camera:15} {share:.1%}  {gaze:.1%}  {held:.1f}  {moving:.0%}  {longest:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("folders", type=Path, nargs="*", metavar="MAPS_DIR", help="folders of maps")
    add("--heads", type=Path, help=".npz file of head directions by video: (people, samples, 3) "
        "unit vectors, x to the right, y up, z ahead, five a second")  # fmt: skip
    add("--cuts", action="store_true", help="the camera may also jump")
    args = parser.parse_args()
    if not (args.folders or args.heads):
        parser.error("give folders of maps, or --heads")
    for folder in args.folders:
        score_folder(folder, args.cuts)
    if args.heads:
        score_heads(args.heads, args.cuts)


if __name__ == "__main__":
    run_script(main)
