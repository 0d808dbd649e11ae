"""The problems of a data set, found file by file before a training run meets them.

Pictures are not decoded where their header, their end marker and their size suffice (see SMALL),
so 80,000 frames with their maps take less than two minutes. Damage inside a file that keeps its
beginning and its end is found only when it is decoded.
"""

import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise, repeat
from pathlib import Path

from tqdm import tqdm

from common.errors import InputError, counted
from datasets.layouts import ClipFixations, File, list_clips, read_map, read_truth, unbroken_runs
from datasets.splits import HOW_TO_GET_DATA, read_splits
from datasets.video_saliency import SaliencyVideos
from video.pictures import open_picture, read_picture

KINDS = {
    "split": "clips in two splits, in none or without frames, or a wrong splits.json; correct it",
    "missing frame": "ground truth without its frame; extract the frame again or delete the map",
    "missing ground truth": "frames that can be inputs but never targets",
    "unreadable": "empty, truncated or invalid files or shapes; delete them or make them again",
    "constant": "frames or maps of a single value; delete them",
    "unusable map": "NaN, infinite or negative values; make the maps again",
    "other size": "files that differ from others of their clip or are not 2:1; they are resized",
    "duplicate": "frames of one number in one clip; delete all but one",
    "gap": "jumps in the numbering; no training sample spans one",
    "fixations": "fixations that do not fit their clip; correct the file or make it again",
}
NO_SPLIT = "no split"
SHOWN = 5  # problems of a kind in the summary

Problem = tuple[str, Path | str, str]  # kind, path and detail

# File size of a picture, without its header, over the size of its pixels. That of a constant
# picture is at most 0.012 in JPEG (grey: 6 bits for each 8×8 block; 0.0091 in colour without
# subsampling) and 0.009 in compressed PNG. Photographic panoramas of 960×480 have 0.02 (JPEG
# quality 50) to 0.15 (95), and 0.38 to 0.6 in PNG.
SMALL = 0.02
TABLES = 1024  # bytes more between the scans of a progressive JPEG
FAINT = 4  # of 255 levels: a frame with no more contrast in any channel counts as constant
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82"}


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
    strays = {*root.glob("[!.]*/[0-9]*_gt.npy"), *root.glob("saliency_maps/[!.]*_[0-9]*")} - truths
    problems += [("missing frame", path, "has no frame") for path in sorted(strays)]
    counts, fixations = {}, ClipFixations(root)
    with ThreadPoolExecutor() as pool:
        for name, files in tqdm(clips.items(), "checking", unit="clip", dynamic_ncols=True):
            usable, clip_problems = _check_clip(files, pool)
            problems += [*clip_problems, *_fixation_problems(name, files, fixations)]
            counts[name] = {"frames": len(files), "usable": usable}
    unique = dict.fromkeys((k, str(p).removeprefix(f"{root}/"), d) for k, p, d in problems)
    totals = {}
    for split, names in splits.items():
        per_clip = {name: counts[name] for name in names}
        frames = sum(count["frames"] for count in per_clip.values())
        usable = sum(count["usable"] for count in per_clip.values())
        totals[split] = {
            "clips": len(names), "frames": frames, "usable": usable, "per_clip": per_clip
        }  # fmt: skip
    problem_list = [{"kind": k, "path": path, "detail": detail} for k, path, detail in unique]
    return {
        "root": str(root), "clean": not problems, "splits": totals, "problems": problem_list
    }  # fmt: skip


def check_targets(data: SaliencyVideos) -> None:
    """Raise InputError where a split has too little ground truth, or too little that is usable.

    Fewer than 1 % of the frames, or fewer than half of about 64 maps spread over the split.
    """
    files = [file for clip in data.clips.values() for file in clip]
    announced = sum(file.truth is not None for file in files)
    split = f"{data.root}: split '{data.split}'"
    see = "'python evaluate_video.py --check' lists what is wrong"
    if announced < 0.01 * len(files):
        raise InputError(f"{split}: {announced} of {len(files)} frames have ground truth; {see}")
    tried = usable = 0
    for sample in data.samples[:: max(1, len(data) * data.spec.clip_length // 64)]:
        for path in filter(None, (file.truth for file in sample.files)):
            tried += 1
            with suppress(InputError):
                read_truth(path, data.spec.height, data.spec.width)
                usable += 1
    if 2 * usable < tried:
        raise InputError(f"{split}: {usable} of {tried} maps that were tried are usable; {see}")


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
            lines += [f"    {problem['path']}: {problem['detail']}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"    … and {len(problems) - SHOWN} more")
    end = "no problems found; the data set is ready for use"
    if count := len(report["problems"]):
        end = f"problems found: {count}; correct what you can and check again; training skips or "
        end += "resizes the rest and counts it"
    return "\n".join([*lines, "", f"{report['root']}: {end}"])


def _splits(root: Path, names: list[str]) -> tuple[dict[str, list[str]], list[Problem]]:
    """Return the existing clips by split, those in none in NO_SPLIT, and the problems."""
    try:
        splits = read_splits(root)
    except InputError as error:
        detail = str(error).partition(": ")[2]
        return {NO_SPLIT: names}, [("split", root / "splits.json", detail)]
    details = []
    homes = Counter(clip for clips in splits.values() for clip in set(clips))
    details += [(clip, f"is in {n} splits") for clip, n in homes.items() if n > 1]
    for split, clips in splits.items():
        counts = Counter(clips).items()
        details += [(clip, f"{n} times in '{split}'") for clip, n in counts if n > 1]
    details += [(clip, "has no frames") for clip in homes if clip not in names]
    existing = {split: [n for n in names if n in clips] for split, clips in splits.items()}
    if alone := [name for name in names if name not in homes]:
        details += [(name, "is in no split") for name in alone]
        existing[NO_SPLIT] = alone
    return existing, [("split", clip, detail) for clip, detail in details]


def _check_clip(files: list[File], pool: ThreadPoolExecutor) -> tuple[int, list[Problem]]:
    """Return the number of usable frames of a clip, and its problems."""
    problems: list[Problem] = []
    usable: set[Path] = set()
    for kind in ("picture", "truth", "flow"):
        paths = [path for file in files if (path := getattr(file, kind))]
        results = list(pool.map(_check_file, paths, repeat(kind)))
        sizes = {path: size for path, (size, _) in zip(paths, results) if size}
        problems += [problem for _, problem in results if problem]
        problems += _other_sizes(kind, sizes)
        usable |= sizes.keys()
    absent = [file.picture for file in files if file.truth is None]
    problems += [("missing ground truth", path, "has no map") for path in absent]
    for before, after in pairwise(files):
        if before.number == after.number:
            problems.append(("duplicate", after.picture, f"numbered as {before.picture.name}"))
    for run, next_run in pairwise(unbroken_runs(files)):
        problems.append(("gap", next_run[0].picture, f"comes after {run[-1].picture.name}"))
    return sum({file.picture, file.truth} <= usable for file in files), problems


def _other_sizes(kind: str, sizes: dict[Path, tuple[int, int]]) -> Iterator[Problem]:
    """Yield the files of another size than most of their kind, and a clip that is not 2:1."""
    if not sizes:
        return
    [((height, width), _)] = Counter(sizes.values()).most_common(1)
    if kind == "picture" and width != 2 * height:
        detail = f"the clip is {width}×{height}, not 2:1; taken as stretched"
        yield "other size", next(iter(sizes)), detail
    for path, size in sizes.items():
        if size != (height, width):
            detail = f"{size[1]}×{size[0]}, where most of the clip have {width}×{height}"
            yield "other size", path, detail


def _check_file(path: Path, kind: str) -> tuple[tuple[int, int] | None, Problem | None]:
    """Return the size of a file, None if it is unusable, and its problem or None.

    kind: "picture", "truth" or "flow". A constant picture is usable, as in training; a constant
        truth is not.
    """
    try:
        if path.suffix != ".npy" and (size := _varied(path, kind)):
            return size, None
        values = read_map(path)[..., None] if kind == "truth" else read_picture(path)
    except InputError as error:
        return None, ("unreadable", path, str(error).removeprefix(f"{path}: "))
    ranges = zip(values.min((0, 1)).tolist(), values.max((0, 1)).tolist())
    low, high = max(ranges, key=lambda limits: limits[1] - limits[0])
    size, detail = values.shape[:2], f"its values range from {low:g} to {high:g}"
    if not 0 <= low <= high < math.inf:
        return None, ("unusable map", path, detail)
    if kind == "truth" and low == high:
        return None, ("constant", path, detail)
    if kind == "picture" and high - low <= FAINT:
        return size, ("constant", path, detail)
    return size, None


def _varied(path: Path, kind: str) -> tuple[int, int] | None:
    """Return height and width of a picture that need not be decoded, None for any other.

    Its end marker is there, and its file is too large for a constant picture; a flow picture may
    be constant. Grey of more than 8 bits and formats without an end marker are always decoded.
    Raises InputError for a damaged file.
    """
    with open_picture(path) as image:
        end = ENDS.get(image.format or "")
        if end is None or image.mode.startswith(("I", "F")):
            return None
        pixels = image.height * image.width * len(image.getbands())
        content = image.fp.read() if image.fp else b""  # all but the header, which PIL has read
        if end not in content:
            raise ValueError("truncated: its end marker is missing")
        varied = SMALL * pixels + TABLES < len(content) < pixels
        return (image.height, image.width) if varied or kind == "flow" else None


def _fixation_problems(name: str, files: list[File], fixations: ClipFixations) -> Iterator[Problem]:
    """Yield an invalid file of fixations, or a clip with fixations in frames that do not exist."""
    try:
        clip_fixations = fixations.of(name)
    except InputError as error:
        path, _, detail = str(error).partition(": ")
        yield "fixations", path, detail
        return
    frames = clip_fixations.frames.tolist() if clip_fixations else []
    if absent := set(frames) - {file.number for file in files}:
        detail = f"{len(absent)} frames have fixations but do not exist, the first is {min(absent)}"
        yield "fixations", name, detail
