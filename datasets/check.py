"""What is wrong with a data set, file by file, before a training run meets it.

datasets/check_files.py looks at the files, without decoding pictures: 80,000 frames with their
maps are to take less than a minute.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from cli import InputError
from datasets.check_files import Look, Seen
from datasets.layouts import (
    HOW_TO_GET_DATA,
    PICTURE,
    ClipFixations,
    File,
    eccv2018_split,
    list_clips,
    unbroken_runs,
)

KINDS = {
    "split": "clips in two splits or in none, or no valid splits.json; correct it",
    "missing clip": "in a split but not there; get it, or take it out of splits.json",
    "missing frame": "ground truth without its frame; extract the frame again or delete the map",
    "missing ground truth": "frames that can be inputs but never targets",
    "empty": "files of 0 bytes; delete them or make them again",
    "truncated": "files that end too early; delete them or make them again",
    "unreadable": "files that are not what their names say; delete them or make them again",
    "constant": "frames that show nothing, maps that say nothing; delete them",
    "not finite": "maps with NaN or infinite values; delete them or make them again",
    "negative": "maps with negative values; delete them or make them again",
    "mismatched": "of another size or shape than expected; make them again unless it is meant",
    "duplicate": "frames of one number in one clip; delete all but one",
    "gap": "jumps in the numbering; no run of frames for training spans one",
    "fixations": "fixations that don't fit their clip; correct the file or make it again",
}
NO_SPLIT = "no split"
SHOWN = 5  # problems of a kind on the screen

BATCH = 64  # frames that a thread looks at in a row; one by one, handing over takes as long


class Problem(NamedTuple):
    kind: str  # one of KINDS
    path: str  # relative to the root
    detail: str


class Counts(NamedTuple):
    frames: int  # of a clip
    usable: int  # of them: readable, with a ground truth that can be a target


@dataclass
class Report:
    """What `check` found. splits: the clips that are there, by split or NO_SPLIT, by name."""

    root: Path
    splits: dict[str, dict[str, Counts]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict:
        """Everything, as JSON can hold it."""
        return {
            "root": str(self.root),
            "clean": self.clean,
            "splits": {
                split: {
                    "clips": len(clips),
                    "frames": sum(counts.frames for counts in clips.values()),
                    "usable": sum(counts.usable for counts in clips.values()),
                    "per_clip": {name: counts._asdict() for name, counts in clips.items()},
                }
                for split, clips in self.splits.items()
            },
            "problems": [problem._asdict() for problem in self.problems],
        }

    def text(self) -> str:
        """For the screen: the splits, the first problems of each kind, and what to do."""
        lines = [f"{'split':<12}{'clips':>8}{'frames':>10}{'with usable ground truth':>28}"]
        for split, total in self.as_dict()["splits"].items():
            usable = f"{total['usable']} ({total['usable'] / max(1, total['frames']):.1%})"
            lines.append(f"{split:<12}{total['clips']:>8}{total['frames']:>10}{usable:>28}")
        for kind, meaning in KINDS.items():
            found = [problem for problem in self.problems if problem.kind == kind]
            if found:
                lines += ["", f"{len(found)} × {kind}: {meaning}"]
                lines += [f"    {path}: {detail}" for _, path, detail in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"    … and {len(found) - SHOWN} more")
        end = f"{self.root}: nothing is wrong; it is ready for use"
        if self.problems:
            end = (
                f"{self.root}: problems found: {len(self.problems)}; mend what you can and check "
                "again, what is left will be skipped or resized, and counted"
            )
        return "\n".join([*lines, "", end])


def check(root: str | Path, workers: int | None = None) -> Report:
    """Look at every file of a data set in one of the layouts of layouts.py.

    workers: threads; one for each core if None. More pay only where files are slow to come.
    Raises InputError where there is no data set. Whatever is in one is reported.
    """
    root = Path(root)
    stray_truths = _clips_there(root) if root.is_dir() else {}
    if not stray_truths:
        raise InputError(f"{root}: no data set is there; {HOW_TO_GET_DATA}")
    report, fixations, counts = Report(root), ClipFixations(root), {}
    splits = _splits(root, list(stray_truths), report.problems)
    clips = list_clips(root, list(stray_truths))
    total = sum(map(len, clips.values()))
    with (
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
        tqdm(total=total, desc="checking", unit="frame", dynamic_ncols=True) as bar,
    ):
        for name, strays in stray_truths.items():
            files, looks = clips.get(name, []), []
            batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
            for batch in pool.map(lambda some: [Look.at(file) for file in some], batches):
                looks += batch
                bar.update(len(batch))
            counts[name] = Counts(len(files), sum(look.usable for look in looks))
            report.problems += [Problem("missing frame", path, "no frame of it") for path in strays]
            report.problems += _clip_problems(root, files, looks)
            report.problems += _fixation_problems(root, name, files, fixations)
    report.problems = list(dict.fromkeys(report.problems))  # vinfo.pkl belongs to every clip
    for split, names in splits.items():
        report.splits[split] = {name: counts[name] for name in names if name in counts}
    return report


def _clips_there(root: Path) -> dict[str, list[str]]:
    """The clips on disk, each with the paths of its ground truth that has no frame."""
    clips: dict[str, list[str]] = {}
    if (root / "frames").is_dir():
        frames, truths = (
            set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
            for folder in ("frames", "saliency_maps")
        )
        for name in sorted(frames | truths):
            if match := re.fullmatch(rf"([^.].*)_\d+{PICTURE}", name, re.IGNORECASE):
                strays = clips.setdefault(match[1], [])
                if name not in frames:
                    strays.append(f"saliency_maps/{name}")
        return clips
    numbered = re.compile(rf"(\d+)(?:{PICTURE}|(_gt\.npy))", re.IGNORECASE)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        found = list(filter(None, map(numbered.fullmatch, os.listdir(folder))))
        if found and not folder.name.startswith("."):
            frames = {match[1] for match in found if not match[2]}
            strays = sorted(match[0] for match in found if match[2] and match[1] not in frames)
            clips[folder.name] = [f"{folder.name}/{name}" for name in strays]
    return clips


def _splits(root: Path, there: list[str], problems: list[Problem]) -> dict[str, list[str]]:
    """Clips by split; those that are there and in none are in NO_SPLIT."""
    path, splits = root / "splits.json", eccv2018_split()
    if path.exists():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            splits = {split: names for split, names in content.items() if isinstance(names, list)}
        except (OSError, ValueError, RecursionError, AttributeError) as error:
            detail = f'expected {{"train": [clips], …}} ({error})'
            problems.append(Problem("split", path.name, detail))
            return {NO_SPLIT: there}
    elif set(there).isdisjoint(sum(splits.values(), [])):
        problems.append(Problem("split", path.name, 'missing; expected {"train": [clips], …}'))
        return {NO_SPLIT: there}
    homes: dict[str, list[str]] = {}
    for split, names in splits.items():
        for name in names:
            if not isinstance(name, str):
                problems.append(Problem("split", path.name, f"{name!r} in '{split}' is no text"))
                continue
            homes.setdefault(name, []).append(split)
            if name not in there:
                problems.append(Problem("missing clip", name, f"in '{split}', has no frames"))
    for name, found in homes.items():
        if len(found) > 1:
            problems.append(Problem("split", name, f"is in {' and in '.join(found)}"))
    left = [name for name in there if name not in homes]
    problems += [Problem("split", name, "is in no split") for name in left]
    by_split = {split: [n for n, found in homes.items() if split in found] for split in splits}
    return by_split | ({NO_SPLIT: left} if left else {})


def _clip_problems(root: Path, files: list[File], looks: list[Look]) -> Iterator[Problem]:
    """What is wrong with the files of a clip, each for itself and beside the others."""
    for look in looks:
        for seen in filter(None, look):
            if seen.wrong:
                yield Problem(seen.wrong[0], _name(root, seen.path), seen.wrong[1])
        if look.truth is None:
            yield Problem("missing ground truth", _name(root, look.frame.path), "no map of it")
    for what, seen in zip(("frames", "maps", "flow pictures"), zip(*looks)):
        yield from _other_sizes(root, what, [file for file in seen if file and file.size])
    for before, after in zip(files, files[1:]):
        if before.number == after.number:
            detail = f"number {after.number} as {before.picture.name}"
            yield Problem("duplicate", _name(root, after.picture), detail)
    runs = unbroken_runs(list({file.number: file for file in files}.values()))
    for before, after in zip(runs, runs[1:]):
        detail = f"comes after {before[-1].picture.name}"
        yield Problem("gap", _name(root, after[0].picture), detail)


def _other_sizes(root: Path, what: str, files: list[Seen]) -> Iterator[Problem]:
    """Files that differ from most of their kind in a clip, and frames that are not 2:1 (once)."""
    if not files:
        return
    usual = Counter(file.size for file in files).most_common(1)[0][0]
    if what == "frames" and usual[1] != 2 * usual[0]:
        first = next(file for file in files if file.size == usual)
        detail = f"the clip is {usual[1]}×{usual[0]}, not 2:1; it is taken as stretched"
        yield Problem("mismatched", _name(root, first.path), detail)
    for file in files:
        if file.size != usual:
            detail = (
                f"{file.size[1]}×{file.size[0]}; most {what} of the clip: {usual[1]}×{usual[0]}"
            )
            yield Problem("mismatched", _name(root, file.path), detail)


def _fixation_problems(
    root: Path, name: str, files: list[File], fixations: ClipFixations
) -> Iterator[Problem]:
    paths = root / name / "fixations.csv", root / "fixations" / f"{name}.csv", root / "vinfo.pkl"
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        return
    try:
        known = fixations.of(name)
    except Exception as error:  # as for pictures
        detail = " ".join(str(error).removeprefix(str(path)).lstrip(":, ").split())
        yield Problem("fixations", _name(root, path), detail)
        return
    if known:
        absent = sorted(set(known.frames.tolist()) - {file.number for file in files})
        if absent:
            listed = ", ".join(map(str, absent[:3])) + (" …" if len(absent) > 3 else "")
            detail = f"for frames that clip {name} does not have: {listed} ({len(absent)} in all)"
            yield Problem("fixations", _name(root, path), detail)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
