"""How fast training data come, with the cache and without, and whether a train step waits.

    python -m benchmarks.loader [--data_root DATA] [--workers 2]

Frames a second of one process and of the train loop's loader; then train steps of CubeUNet, fed
by the loader and by one batch in memory, in turn in this process: medians of the repeats. The
first batches of each turn are waited for, as at the start of an epoch. Without --data_root,
pictures of 1920×960 and maps of 256×128 are made up.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from datasets.video_saliency import SaliencyVideos, collate
from losses import LOSSES
from models import CubeUNet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_root", type=Path, help="data set; made up if not given")
    add("--split", default="train", help="of it")
    add("--height", type=int, default=240, help="of the network's frames, twice as wide")
    add("--base_channels", type=int, default=32, help="of the network")
    add("--batch_size", type=int, default=2, help="frames a step")
    add("--workers", type=int, default=2, help="processes of the loader")
    add("--steps", type=int, default=8, help="of a turn")
    add("--repeats", type=int, default=7, help="of each turn")
    add("--frames", type=int, default=200, help="read to measure the loader alone")
    add("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in the loader's workers, until the train steps
    torch.manual_seed(0)
    model = CubeUNet(height=args.height, width=2 * args.height, base_channels=args.base_channels)
    with tempfile.TemporaryDirectory() as folder:
        root = args.data_root or made_up(Path(folder) / "data")
        files = SaliencyVideos(root, args.split, model.spec)
        start = time.perf_counter()
        cached = SaliencyVideos(root, args.split, model.spec, Path(folder) / "cache")
        frames = sum(map(len, cached.clips.values()))
        print(f"building the cache: {frames / (time.perf_counter() - start):.0f} frames/s")
        measure(model, {"files": files, "cache": cached}, args)


def measure(model: CubeUNet, data: dict[str, SaliencyVideos], args: argparse.Namespace) -> None:
    loaders = {}
    for name, source in data.items():
        drawn = torch.randint(len(source), (args.frames // 4,)).tolist()
        alone = args.frames // 4 / seconds(source[i] for i in drawn)
        loader = loader_of(source, args.frames // args.batch_size, args)
        next(iter(loader))  # starts the workers
        raw = len(loader) * args.batch_size / seconds(loader)
        print(f"{name}: {alone:.0f} frames/s in one process, {raw:.0f} from {args.workers} workers")
        loaders[name] = loader_of(source, args.steps, args)
    torch.set_num_threads(args.threads)
    step = train_step(model)
    batch = next(iter(loaders["cache"]))
    turns = {"memory": lambda: itertools.repeat(batch, args.steps)}
    turns |= {name: loader.__iter__ for name, loader in loaders.items()}
    times = {name: [] for name in turns}
    for repeat in range(args.repeats + 1):
        for name, batches in turns.items():
            taken = seconds(map(step, batches())) / args.steps
            if repeat:  # the first warms up
                times[name].append(taken)
    for name, values in times.items():
        share = statistics.median(m / v for m, v in zip(times["memory"], values, strict=True))
        print(
            f"train step from {name}: {statistics.median(values):.3f} s, "
            f"{share:.3f} of the speed from memory"
        )


def loader_of(data: SaliencyVideos, batches: int, args: argparse.Namespace) -> DataLoader:
    """As train_video.py reads, so many random batches."""
    sampler = RandomSampler(data, replacement=True, num_samples=batches * args.batch_size)
    return DataLoader(
        data,
        args.batch_size,
        sampler=sampler,
        num_workers=args.workers,
        collate_fn=collate,
        persistent_workers=args.workers > 0,
    )


def train_step(model: CubeUNet):
    model.train()
    loss_of = LOSSES[model.spec.loss]()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step(batch: dict) -> float:
        loss = loss_of(model(batch["frames"], batch["motion"]), batch["target"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def seconds(work) -> float:
    """Time to go through an iterable."""
    start = time.perf_counter()
    for _ in work:
        pass
    return time.perf_counter() - start


def made_up(root: Path, clips: int = 4, frames: int = 50) -> Path:
    """Clips of panoramas that turn, with as much detail as photographs have."""
    random = np.random.default_rng(0)
    for clip in range(clips):
        (root / str(clip)).mkdir(parents=True)
        scales = [random.integers(0, 60, (15 * s, 30 * s, 3), np.uint8) for s in (1, 4, 16, 32)]
        panorama = sum(cv2.resize(scale, (1920, 960)) for scale in scales)
        for n in range(1, frames + 1):
            cv2.imwrite(str(root / f"{clip}/{n:04d}.jpg"), np.roll(panorama, 5 * n, axis=1))
            saliency = random.random((128, 256), np.float32)
            np.save(root / f"{clip}/{n:04d}_gt.npy", saliency)
    (root / "splits.json").write_text(json.dumps({"train": [str(n) for n in range(clips)]}))
    return root


if __name__ == "__main__":
    main()
