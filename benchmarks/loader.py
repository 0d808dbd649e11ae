"""Measure training samples per second and core for a data set and copies of it.

    python -m benchmarks.loader [--data_root DATA] [--motion dis] [--workers 2]

The copies have the model's size: one has PNG frames and 16-bit maps, the other is packed
(prepare/pack.py). Samples include motion and map and are read in random order as by train_video.py,
in this process (CPU time) and by worker processes of a DataLoader. The data sets take turns; the
table shows medians. Without --data_root, a data set of 1920×960 JPEG frames and 256×128 maps is
generated.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from datasets.layouts import list_clips, read_truth
from datasets.rates import ClipRates
from datasets.splits import read_splits
from datasets.video_saliency import SaliencyVideos, collate
from models import Spec
from prepare.pack import pack_dataset, read_clip
from prepare.records import save_picture
from video.motion import MOTIONS
from video.pictures import FLOW_SUFFIX
from video.reader import sampling_step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, help="data set (default: a generated one)")
    add("--clips", type=int, default=4, help="generated clips of 50 frames")
    add("--split", default="train", help="split to read")
    add("--height", type=int, default=240, help="height of the model's frames; half their width")
    add("--motion", default="difference", choices=list(MOTIONS), help="motion image")
    add("--workers", type=int, default=2, help="processes of the DataLoader")
    add("--frames", type=int, default=200, help="frames to read in each measurement")
    add("--repeats", type=int, default=5, help="repeats of each measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spec = Spec(height=args.height, width=2 * args.height, motion=args.motion)
    with tempfile.TemporaryDirectory() as folder:
        root = args.data_root or made_up(Path(folder) / "data", args.clips)
        copy, packed = Path(folder) / "PNG copy", Path(folder) / "packed"
        flow = args.motion if MOTIONS[args.motion].channels == 3 else "none"
        for target, make in ((packed, pack_dataset), (copy, png_copy)):
            start = time.perf_counter()
            make(root, target, replace(spec, motion=flow), ClipRates(root))
            frames = sum(map(len, list_clips(target).values()))
            speed = frames / (time.perf_counter() - start)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            print(f"making the {target.name}: {speed:.0f}/s, {size / frames / 1e3:.0f} kB each")
        names = {root: "original", copy: "PNG copy", packed: "packed"}
        sets = {path: SaliencyVideos(path, args.split, spec, eight_bits=True) for path in names}
        speeds: dict[tuple, list[float]] = {}
        generator = torch.Generator().manual_seed(0)
        for _ in range(args.repeats):
            for path, data in sets.items():
                drawn = torch.randint(len(data), (args.frames,), generator=generator).tolist()
                items = Subset(data, drawn)
                start = time.process_time()
                for item in items:
                    collate([item])
                speed = len(drawn) / (time.process_time() - start)
                speeds.setdefault((path, "a second of one core"), []).append(speed)
                loader = DataLoader(items, 2, num_workers=args.workers, collate_fn=collate)
                batches = iter(loader)
                next(batches)  # starts the workers
                start = time.perf_counter()
                read = sum(len(batch["name"]) for batch in batches)
                speed = read / (time.perf_counter() - start)
                speeds.setdefault((path, f"a second with {args.workers} workers"), []).append(speed)
        for (path, unit), values in speeds.items():
            print(f"{names[path]}: {statistics.median(values):.0f} frames {unit}")


def png_copy(root: Path, output: Path, spec: Spec, rates: ClipRates) -> None:
    """Write frames and flow as PNG and maps, divided by their maximum, as float16."""
    size = spec.height, spec.width
    for name, files in list_clips(root).items():
        (output / name).mkdir(parents=True)
        for file, frame in read_clip(files, spec, sampling_step(rates.of(name), spec.fps), []):
            path = output / name / f"{file.number:04d}.png"
            save_picture(path, frame.rgb, compress_level=1)
            if spec.motion != "none":
                save_picture(
                    path.with_name(path.stem + FLOW_SUFFIX), frame.motion, compress_level=1
                )
            truth = read_truth(file.truth, *size)[0].numpy()
            np.save(path.with_name(f"{path.stem}_gt.npy"), truth.astype(np.float16))
    (output / "splits.json").write_text(json.dumps(read_splits(root)))


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
