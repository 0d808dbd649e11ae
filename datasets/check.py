"""The problems of a data set, found file by file before a training run meets them.

Pictures are not decoded where their header, their end marker and their size suffice (see SMALL),
so 80,000 frames with their maps take less than two minutes. Damage inside a file that keeps its
beginning and its end is found only when it is decoded.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cli import InputError
from datasets.layouts import (
    HOW_TO_GET_DATA,
    ClipFixations,
    File,
    eccv2018_split,
    list_clips,
    unbroken_runs,
)

KINDS = {
    "split": "clips in two splits, in none or without frames, or a wrong splits.json; correct it",
    "missing frame": "ground truth without its frame; extract the frame again or delete the map",
    "missing ground truth": "frames that can be inputs but never targets",
    "unreadable": "empty, truncated or invalid files; delete them or make them again",
    "constant": "frames or maps of a single value; delete them",
    "unusable map": "NaN, infinite or negative values, or a wrong shape; make the maps again",
    "other size": "files that differ from others of their clip or are not 2:1; they are resized",
    "duplicate": "frames of one number in one clip; delete all but one",
    "gap": "jumps in the numbering; no training sample spans one",
    "fixations": "fixations that do not fit their clip; correct the file or make it again",
}
NO_SPLIT = "no split"
SHOWN = 5  # problems of a kind in the summary

# File size of a picture, without its header, over the size of its pixels. That of a constant
# picture is at most 0.012 in JPEG (grey: 6 bits for each 8×8 block; 0.0091 in colour without
# subsampling) and 0.009 in compressed PNG. Photographic panoramas of 960×480 have 0.02 (JPEG
# quality 50) to 0.15 (95), and 0.38 to 0.6 in PNG.
SMALL = 0.02
TABLES = 1024  # bytes more between the scans of a progressive JPEG
FAINT = 4  # of 255 levels: a frame with no more contrast in any channel counts as constant
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82"}
TAIL = 1024  # bytes in which the end marker is searched for; some writers pad


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
    clips = {name: files for name, files in list_clips(root, _names(root)).items() if files}
    if not clips:
        raise InputError(f"{root}: there is no data set; {HOW_TO_GET_DATA}")
    problems: list[tuple[str, Path | str, str]] = []
    splits = _splits(root, list(clips), problems)
    truths = {file.truth for files in clips.values() for file in files}
    strays = {*root.glob("[!.]*/[0-9]*_gt.npy"), *root.glob("saliency_maps/[!.]*_[0-9]*")} - truths
    problems += [("missing frame", path, "has no frame") for path in sorted(strays)]
    counts, fixations = {}, ClipFixations(root)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, files in tqdm(clips.items(), "checking", unit="clip", dynamic_ncols=True):
            sizes, usable, found = zip(*pool.map(_check_frame, files))
            problems += sum(found, [])
            problems += _clip_problems(files, sizes)
            problems += _fixation_problems(name, files, fixations)
            counts[name] = {"frames": len(files), "usable": sum(usable)}
    unique = dict.fromkeys((k, str(p).removeprefix(f"{root}/"), d) for k, p, d in problems)
    return {
        "root": str(root),
        "clean": not problems,
        "splits": {
            split: {
                "clips": len(names),
                **{key: sum(counts[n][key] for n in names) for key in ("frames", "usable")},
                "per_clip": {name: counts[name] for name in names},
            }
            for split, names in splits.items()
        },
        "problems": [{"kind": k, "path": path, "detail": detail} for k, path, detail in unique],
    }


def summary(report: dict) -> str:
    """Return the result of `check` as text: splits, the first problems of each kind, advice."""
    lines = [f"{'split':<12}{'clips':>8}{'frames':>10}{'with usable ground truth':>28}"]
    for split, total in report["splits"].items():
        usable = f"{total['usable']} ({total['usable'] / max(1, total['frames']):.1%})"
        lines.append(f"{split:<12}{total['clips']:>8}{total['frames']:>10}{usable:>28}")
    for kind, meaning in KINDS.items():
        found = [problem for problem in report["problems"] if problem["kind"] == kind]
        if found:
            lines += ["", f"{len(found)} × {kind}: {meaning}"]
            lines += [f"    {problem['path']}: {problem['detail']}" for problem in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"    … and {len(found) - SHOWN} more")
    end = f"{report['root']}: no problems found; the data set is ready for use"
    if report["problems"]:
        end = (
            f"{report['root']}: problems found: {len(report['problems'])}; correct what you can "
            "and check again; training skips or resizes the rest and counts it"
        )
    return "\n".join([*lines, "", end])


def _names(root: Path) -> list[str]:
    """Return the names of all clips on disk, whatever their split."""
    if (root / "frames").is_dir():
        return sorted({path.stem.rpartition("_")[0] for path in (root / "frames").glob("[!.]*")})
    return sorted(path.name for path in root.glob("[!.]*") if path.is_dir())


def _splits(root: Path, names: list[str], problems: list) -> dict[str, list[str]]:
    """Return the existing clips by split; those in none are in NO_SPLIT."""
    path, splits = root / "splits.json", eccv2018_split()
    if path.exists():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            splits = {split: clips for split, clips in content.items() if isinstance(clips, list)}
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            problems.append(("split", path, f'expected {{"train": [clips], …}} ({error})'))
            return {NO_SPLIT: names}
    elif set(names).isdisjoint(sum(splits.values(), [])):
        problems.append(("split", path, 'it is missing; expected {"train": [clips], …}'))
        return {NO_SPLIT: names}
    splits = {split: [str(clip) for clip in clips] for split, clips in splits.items()}
    homes = Counter(clip for clips in splits.values() for clip in set(clips))
    left = [name for name in names if name not in homes]
    problems += [("split", clip, f"is in {n} splits") for clip, n in homes.items() if n > 1]
    problems += [("split", clip, "has no frames") for clip in homes if clip not in names]
    problems += [("split", name, "is in no split") for name in left]
    existing = {split: [n for n in names if n in clips] for split, clips in splits.items()}
    return existing | ({NO_SPLIT: left} if left else {})


def _check_frame(file: File) -> tuple[dict[str, tuple], bool, list[tuple]]:
    """Return the sizes of a frame's files by kind, whether it is usable, and its problems."""
    sizes, problems = {}, []
    for kind, path in ("frame", file.picture), ("map", file.truth), ("flow", file.flow):
        if path is None:
            continue
        try:
            checker = _check_array if path.suffix == ".npy" else _check_picture
            size, problem = checker(path, kind)
        except Exception as error:  # a damaged file can fail in any way, which is the finding
            length = path.stat().st_size if path.exists() else 0
            cause = " ".join(str(error.__cause__ or error).split())
            size, problem = None, ("unreadable", f"{length} bytes; {cause}")
        if size:
            sizes[kind] = path, size
        if problem:
            problems.append((problem[0], path, problem[1]))
    usable = "frame" in sizes and "map" in sizes and file.truth not in {p for _, p, _ in problems}
    if file.truth is None:
        problems.append(("missing ground truth", file.picture, "has no map"))
    return sizes, usable, problems


def _check_picture(path: Path, kind: str) -> tuple[tuple[int, int], tuple[str, str] | None]:
    """Return height and width of a picture, and its problem or None. Raises any error if damaged.

    A picture is decoded where it may be constant, or where its end can't be known otherwise.
    """
    with open(path, "rb") as file, Image.open(file) as image:
        size, end = (image.height, image.width), ENDS.get(image.format)
        uncompressed = image.height * image.width * len(image.getbands())
        header = file.tell()  # PIL has read up to the first pixels
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TAIL))
        whole = end is not None and end in file.read()
    if end and not whole and end not in path.read_bytes():
        raise ValueError("truncated: its end marker is missing")
    if whole and (kind == "flow" or SMALL * uncompressed + TABLES < length - header < uncompressed):
        return size, None
    for scale in (8, 1):  # a JPEG is decoded at an eighth of its size first, which is fast
        with Image.open(path) as image:
            image.draft("RGB", tuple(max(1, side // scale) for side in image.size))
            ranges = image.convert("RGB").getextrema()
        contrast = max(high - low for low, high in ranges)
        if contrast > FAINT:
            return size, None
    if kind == "flow" or (kind == "map" and contrast > 0):
        return size, None
    return size, ("constant", f"its contrast is {contrast} of 255 levels")


def _check_array(path: Path, kind: str) -> tuple[tuple[int, ...] | None, tuple[str, str] | None]:
    """Return height and width of the map in a .npy file, and its problem or None."""
    values = np.load(path, allow_pickle=False)
    size = np.squeeze(values).shape
    if len(size) != 2 or not values.size or values.dtype.kind not in "fiu":
        return None, ("unusable map", f"{values.shape} of {values.dtype} is not a map (H, W)")
    with np.errstate(over="ignore"):
        low, high = np.float32(values.min()), np.float32(values.max())  # as training reads them
    if not (np.isfinite(low) and np.isfinite(high) and low >= 0):
        return size, ("unusable map", f"its values range from {low:g} to {high:g}")
    return size, ("constant", f"all values are {high:g}") if low == high else None


def _clip_problems(files: list[File], sizes: Sequence[dict[str, tuple]]) -> Iterator[tuple]:
    """Yield files of another size than most of their kind, duplicates and gaps."""
    for kind in ("frame", "map", "flow"):
        found = [size[kind] for size in sizes if kind in size]
        if not found:
            continue
        usual = height, width = Counter(size for _, size in found).most_common(1)[0][0]
        first = next(path for path, size in found if size == usual)
        if kind == "frame" and width != 2 * height:
            yield "other size", first, f"the clip is {width}×{height}, not 2:1; taken as stretched"
        for path, size in found:
            if size != usual:
                detail = f"{size[1]}×{size[0]}, where most of the clip have {width}×{height}"
                yield "other size", path, detail
    for before, after in zip(files, files[1:]):
        if before.number == after.number:
            yield "duplicate", after.picture, f"has the number of {before.picture.name}"
    runs = unbroken_runs(list({file.number: file for file in files}.values()))
    for before, after in zip(runs, runs[1:]):
        yield "gap", after[0].picture, f"comes after {before[-1].picture.name}"


def _fixation_problems(clip: str, files: list[File], fixations: ClipFixations) -> Iterator[tuple]:
    try:
        known = fixations.of(clip)
    except Exception as error:  # as for pictures and maps
        path, _, detail = str(error).partition(": ")
        yield "fixations", path, detail
        return
    absent = set(known.frames.tolist() if known else []) - {file.number for file in files}
    if absent:
        detail = f"{len(absent)} frames have fixations but do not exist, the first is {min(absent)}"
        yield "fixations", clip, detail
