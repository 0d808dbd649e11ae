"""Training frames a second that are read from a data set and from its resized copy.

    python -m benchmarks.loader [--data_root DATA] [--motion dis] [--workers 2]

Both are read in random order, in turn, in this process and by the worker processes of a
DataLoader; medians of the repeats. Without --data_root, a data set of 1920×960 frames as JPEG
and 256×128 maps is made up.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from datasets.video_saliency import SaliencyVideos, collate
from models import Spec
from prepare.resize import resize_dataset
from video.motion import MOTIONS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, help="data set; made up if not given")
    add("--clips", type=int, default=4, help="clips of 50 frames that are made up")
    add("--split", default="train", help="split to read")
    add("--height", type=int, default=240, help="height of the model's frames; half their width")
    add("--motion", default="difference", choices=list(MOTIONS), help="motion channels")
    add("--workers", type=int, default=2, help="processes of the DataLoader")
    add("--frames", type=int, default=200, help="frames to read in each measurement")
    add("--repeats", type=int, default=5, help="repeats of each measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spec = Spec(height=args.height, width=2 * args.height, motion=args.motion)
    with tempfile.TemporaryDirectory() as folder:
        root = args.data_root or made_up(Path(folder) / "data", args.clips)
        small, start = Path(folder) / "small", time.perf_counter()
        flow = args.motion if MOTIONS[args.motion].channels == 3 else "none"
        resize_dataset(root, small, spec.height, spec.width, flow, args.workers)
        taken = time.perf_counter() - start
        frames = list(small.glob("*/*[0-9].png"))
        size = sum(path.stat().st_size for path in small.rglob("*") if path.is_file())
        print(
            f"resizing: {len(frames) / taken:.0f} frames/s, {size / len(frames) / 1e3:.0f} kB each"
        )
        sets = {path: SaliencyVideos(path, args.split, spec) for path in (root, small)}
        speeds: dict[tuple, list[float]] = {}
        generator = torch.Generator().manual_seed(0)
        for repeat in range(args.repeats + 1):
            for path, data in sets.items():
                drawn = torch.randint(len(data), (args.frames,), generator=generator).tolist()
                for workers in (0, args.workers):
                    loader = DataLoader(
                        Subset(data, drawn), 2, num_workers=workers, collate_fn=collate
                    )
                    batches = iter(loader)
                    next(batches)  # starts the workers
                    start = time.perf_counter()
                    read = sum(len(batch["name"]) for batch in batches)
                    if repeat:  # the first one only warms up
                        speed = read / (time.perf_counter() - start)
                        speeds.setdefault((path, workers), []).append(speed)
        for (path, workers), values in speeds.items():
            name = "resized" if path == small else "original"
            where = f"{workers} workers" if workers else "one process"
            print(f"{name}, {where}: {statistics.median(values):.0f} frames/s")


def made_up(root: Path, clips: int, frames: int = 50) -> Path:
    """Write clips of rotating panoramas with about as much detail as photographs."""
    random = np.random.default_rng(0)
    for clip in range(clips):
        (root / str(clip)).mkdir(parents=True)
        scales = [random.integers(0, 60, (15 * s, 30 * s, 3), np.uint8) for s in (1, 4, 16, 32)]
        panorama = sum(cv2.resize(scale, (1920, 960)) for scale in scales)
        for n in range(1, frames + 1):
            cv2.imwrite(str(root / f"{clip}/{n:04d}.jpg"), np.roll(panorama, 5 * n, axis=1))
            np.save(root / f"{clip}/{n:04d}_gt.npy", random.random((128, 256), np.float32))
    (root / "splits.json").write_text(json.dumps({"train": [str(n) for n in range(clips)]}))
    return root


if __name__ == "__main__":
    main()
