"""Flat photographs with where people looked: `python -m recipes.flat_photos`.

What a network can learn before it sees the sphere (`CubeUNet(flat=True)`): a data set in the layout
of ECCV 2018 whose clips are one photograph each, of any shape. Its map is the photograph's
fixations, as recipes/gaze_sources.py weights them, blurred by a Gaussian of BLUR of its width.
"""

import argparse
import hashlib
import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from cli import InputError, run_script, write_json
from prepare.rendered import source_hash, write_clip, write_clips
from recipes.gaze_sources import LICENCES, Picture, read_sources
from video.reader import read_picture

BLUR = 0.03  # of the width; 3.34° where a photograph is 111° wide
MAP_WIDTH = 160  # pixels
RENDERER = "recipes.flat_photos", "recipes.gaze_sources"


def gaze_map(picture: Picture, height: int, width: int, blur: float = BLUR) -> np.ndarray:
    """Where people looked in a photograph: float32 (H, W) with maximum 1.

    blur: standard deviation as a share of the width. What it spreads beyond the edges is lost.
    """
    counts = np.zeros((height, width), np.float32)
    place = (picture.y * height).astype(int), (picture.x * width).astype(int)
    place = tuple(a.clip(0, n - 1) for a, n in zip(place, counts.shape, strict=True))
    np.add.at(counts, place, picture.weights.astype(np.float32))
    blurred = cv2.GaussianBlur(counts, (0, 0), blur * width, borderType=cv2.BORDER_CONSTANT)
    return blurred / blurred.max()


@lru_cache(maxsize=1)  # once in each process
def photographs_of(root: Path) -> dict[str, list[Picture]]:
    return {split: sources.photographs for split, sources in read_sources(root).items()}


def write_photograph(folder: Path, root: Path, split: str, index: int) -> None:
    """Write photograph `index` of a split of the sources below `root`."""
    picture = photographs_of(root)[split][index]
    columns = b"".join(column.tobytes() for column in (picture.x, picture.y, picture.weights))
    facts = {
        "photograph": str(picture.path.relative_to(root)),
        "fixations": hashlib.sha256(columns).hexdigest()[:12],
        "frames": 1,
        "renderer": source_hash(*RENDERER),
    }

    def render():
        image = read_picture(picture.path)
        height = max(1, round(MAP_WIDTH * image.shape[0] / image.shape[1]))
        yield image, gaze_map(picture, height, MAP_WIDTH).astype(np.float16)

    write_clip(folder, facts, render, quality=95)


def write_dataset(root: str | Path, sources: str | Path, workers: int = 1) -> None:
    """Write all photographs of some sources; those that are there already are kept.

    Raises InputError for bad sources and where they hold no photographs.
    """
    root, sources = Path(root), Path(sources).resolve()
    found = photographs_of(sources)
    if not found["train"]:
        raise InputError(f"{sources}: holds no photographs to train on; give more sources")
    root.mkdir(parents=True, exist_ok=True)
    (root / "splits.json").unlink(missing_ok=True)
    splits = {s: [f"{s}_{n:06d}" for n in range(len(p))] for s, p in found.items()}
    jobs = [
        (root / name, sources, split, index)
        for split, names in splits.items()
        for index, name in enumerate(names)
    ]
    write_clips(root, write_photograph, jobs, workers)
    there = {name: LICENCES[name] for name in LICENCES if (sources / name).is_dir()}
    write_json(root / "scenes.json", {"sources": there, "renderer": source_hash(*RENDERER)})
    write_json(root / "splits.json", splits)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.flat_photos",
        description="Make a data set of flat photographs with real fixations.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sources", required=True,
                        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    parser.add_argument("--output", default="flat_photos", help="folder of the data set")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args()
    if args.workers <= 0:
        raise InputError(f"--workers must be positive, got {args.workers}")
    write_dataset(args.output, args.sources, args.workers)


if __name__ == "__main__":
    run_script(main)
