"""The problems of a data set, found file by file before a training run meets them.

Every file is decoded once, on all cores: a frame of 3840×1920 with its map takes a core 0.15 s.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.errors import InputError, counted
from datasets.layouts import (
    ClipFixations,
    File,
    find_layout,
    list_clips,
    naming_problems,
    read_map,
)
from datasets.splits import HOW_TO_GET_DATA, read_splits
from video.pictures import read_picture

KINDS = {
    "split": "clips in two splits, in none or without frames, or a wrong splits.json; correct it",
    "missing frame": "ground truth without its frame; extract the frame again or delete the map",
    "no ground truth": "frames that can be inputs but never targets",
    "unreadable": "empty, truncated or invalid files or shapes; delete them or make them again",
    "constant": "frames or maps of a single value; delete them",
    "unusable map": "NaN, infinite or negative values; make the maps again",
    "other size": "files that differ from others of their clip or are not 2:1; they are resized",
    "duplicate": "frames of one number in one clip; delete all but one",
    "gap in the numbering": "jumps in the numbering; no training sample spans one",
    "fixations": "fixations that do not fit their clip; correct the file or make it again",
}
NO_SPLIT = "no split"
MAX_LISTED = 5  # problems of a kind in the summary
MIN_CONTRAST = 4  # levels of 255: a frame that differs by no more from its first pixel is constant

Problem = tuple[str, Path | str, str]  # kind, path and detail


def check(root: str | Path) -> dict:
    """Return the problems of a data set in one of the layouts of datasets/layouts.py.

    Returns:
        root      the data set
        clean     whether there are no problems
        splits    by split, or NO_SPLIT: clips, frames and usable frames, in all and per_clip;
                  a frame is usable if it is readable and its ground truth can be a target
        problems  list of {"kind": one of KINDS, "path": relative to the root, "detail": …}
    Raises InputError where there is no data set.
    """
    root = Path(root)
    clips = {name: files for name, files in list_clips(root).items() if files}
    if not clips:
        raise InputError(f"{root}: there is no data set; {HOW_TO_GET_DATA}")
    splits, problems = _splits(root, list(clips))
    truths = {file.truth for files in clips.values() for file in files}
    strays = set(find_layout(root).truths(root)) - truths
    problems += [("missing frame", path, "has no frame") for path in sorted(strays)]
    counts, fixations = {}, ClipFixations(root)
    with ThreadPoolExecutor() as pool:
        for name, files in tqdm(clips.items(), "checking", unit="clip", dynamic_ncols=True):
            usable, clip_problems = _check_clip(files, pool)
            problems += [*clip_problems, *_fixation_problems(name, files, fixations)]
            counts[name] = {"frames": len(files), "usable": usable}
    totals = {}
    for split, names in splits.items():
        per_clip = {name: counts[name] for name in names}
        sums = {key: sum(c[key] for c in per_clip.values()) for key in ("frames", "usable")}
        totals[split] = {"clips": len(names), **sums, "per_clip": per_clip}
    unique = dict.fromkeys((kind, str(p).removeprefix(f"{root}/"), d) for kind, p, d in problems)
    entries = [dict(zip(("kind", "path", "detail"), problem)) for problem in unique]
    return {"root": str(root), "clean": not unique, "splits": totals, "problems": entries}


def summary(report: dict) -> str:
    """Return the result of `check` as text: splits, the first problems of each kind, advice."""
    lines = []
    for split, total in report["splits"].items():
        clips, frames = counted(total["clips"], "clip"), counted(total["frames"], "frame")
        lines.append(f"{split}: {clips}, {frames}, {total['usable']} usable")
    for kind, meaning in KINDS.items():
        problems = [problem for problem in report["problems"] if problem["kind"] == kind]
        if problems:
            lines += ["", f"{len(problems)} × {kind}: {meaning}"]
            lines += [f"    {p['path']}: {p['detail']}" for p in problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            lines.append(f"    … and {len(problems) - MAX_LISTED} more")
    end = "no problems found; the data set is ready for use"
    if count := len(report["problems"]):
        end = f"problems found: {count}; training skips or resizes what is not corrected"
    return "\n".join([*lines, "", f"{report['root']}: {end}"])


def _splits(root: Path, names: list[str]) -> tuple[dict[str, list[str]], list[Problem]]:
    """Return the existing clips by split, those in none in NO_SPLIT, and the problems."""
    try:
        splits = read_splits(root)
    except InputError as error:
        detail = str(error).partition(": ")[2]
        return {NO_SPLIT: names}, [("split", root / "splits.json", detail)]
    listed = Counter(sum(splits.values(), []))
    alone = [name for name in names if name not in listed]
    problems: list[Problem] = [
        *(("split", clip, f"is listed {n} times") for clip, n in listed.items() if n > 1),
        *(("split", clip, "has no frames") for clip in listed if clip not in names),
        *(("split", clip, "is in no split") for clip in alone),
    ]
    existing = {split: [n for n in names if n in clips] for split, clips in splits.items()}
    return existing | ({NO_SPLIT: alone} if alone else {}), problems


def _check_clip(files: list[File], pool: ThreadPoolExecutor) -> tuple[int, list[Problem]]:
    """Return the number of usable frames of a clip, and its problems."""
    problems: list[Problem] = []
    usable: set[Path] = set()
    for kind in ("picture", "truth", "flow"):
        paths = [path for file in files if (path := getattr(file, kind))]
        results = list(zip(paths, pool.map(_check_file, paths, repeat(kind))))
        problems += [(problem, path, detail) for path, (_, problem, detail) in results if problem]
        sizes = {path: size for path, (size, *_) in results if size}
        problems += _other_sizes(kind, sizes)
        usable |= sizes.keys()
    problems += naming_problems(files)
    return sum({file.picture, file.truth} <= usable for file in files), problems


def _check_file(path: Path, kind: str) -> tuple[tuple[int, int] | None, str, str]:
    """Return the size of a file, None if it is unusable, with kind and detail of its problem.

    A constant picture is usable, as in training; a constant truth is not; flow may be constant.
    """
    try:
        values = read_map(path) if kind == "truth" else read_picture(path)
    except InputError as error:
        return None, "unreadable", str(error).removeprefix(f"{path}: ")
    size, detail = values.shape[:2], f"its values range from {values.min():g} to {values.max():g}"
    if not (values.min() >= 0 and values.max() < np.inf):
        return None, "unusable map", detail
    contrast = cv2.absdiff(values, np.broadcast_to(values[0, 0], values.shape)).max()
    if kind == "truth" and contrast == 0:
        return None, "constant", detail
    if kind == "picture" and contrast <= MIN_CONTRAST:
        return size, "constant", detail
    return size, "", ""


def _other_sizes(kind: str, sizes: dict[Path, tuple[int, int]]) -> Iterator[Problem]:
    """Yield the files of another size than most of their kind, and a clip that is not 2:1."""
    for (height, width), _ in Counter(sizes.values()).most_common(1):
        if kind == "picture" and width != 2 * height:
            detail = f"the clip is {width}×{height}, not 2:1; taken as stretched"
            yield "other size", next(iter(sizes)), detail
        for path, size in sizes.items():
            if size != (height, width):
                detail = f"{size[1]}×{size[0]}, where most of the clip have {width}×{height}"
                yield "other size", path, detail


def _fixation_problems(name: str, files: list[File], fixations: ClipFixations) -> Iterator[Problem]:
    """Yield an invalid file of fixations, or a clip with fixations in frames that do not exist."""
    try:
        clip_fixations = fixations.of(name)
    except InputError as error:
        path, _, detail = str(error).partition(": ")
        yield "fixations", path, detail
        return
    frames = set(clip_fixations.frames.tolist()) if clip_fixations else set()
    for problem in clip_fixations.problems if clip_fixations else ():
        yield "fixations", name, f"{problem}; it is skipped"
    if absent := frames - {file.number for file in files}:
        detail = f"{len(absent)} frames have fixations but do not exist, the first is {min(absent)}"
        yield "fixations", name, detail
