"""The problems of a data set, found before a training run meets them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from common.errors import InputError, counted
from datasets.layouts import find_layout, list_clips
from datasets.splits import HOW_TO_GET_DATA, read_splits
from datasets.video_saliency import SaliencyVideos

MAX_LISTED = 5  # problems of a kind in the summary


def check(root: str | Path) -> dict:
    """Return the problems of a data set, every frame of which is read as for training.

    Returns:
        root      the data set
        clean     whether there are no problems
        splits    by split: clips, frames, and usable, those that can be targets
        problems  list of {"kind": …, "detail": …}
    Raises InputError if there is no data set or no valid splits.json.
    """
    root = Path(root)
    listed, clips = read_splits(root), list_clips(root)
    if not any(clips.values()):
        raise InputError(f"{root}: there is no data set; {HOW_TO_GET_DATA}")
    truths = {file.truth for files in clips.values() for file in files}
    strays = sorted(set(find_layout(root).truths(root)) - truths)
    problems = [("ground truth without a frame", str(path)) for path in strays]
    unlisted = [name for name in clips if clips[name] and name not in sum(listed.values(), [])]
    problems += [("clip in no split", name) for name in unlisted]
    splits = {}
    for split in filter(listed.get, listed):
        splits[split] = {"clips": 0, "frames": 0, "usable": 0}
        try:
            data = SaliencyVideos(root, split, None)
        except InputError as error:
            problems.append(("unusable split", str(error)))
            continue
        splits[split] |= {"clips": len(data.clips), "frames": sum(map(len, data.clips.values()))}
        problems += data.irregular

        def read(index: int, data: SaliencyVideos = data) -> tuple[int, list]:
            item = data[index]
            return int(item["valid"].sum()), item["irregular"]

        with ThreadPoolExecutor() as pool:
            results = pool.map(read, range(len(data)))
            bar = {"total": len(data), "unit": "frame", "dynamic_ncols": True}
            for usable, irregular in tqdm(results, f"checking {split}", **bar):
                splits[split]["usable"] += usable
                problems += irregular
    unique = dict.fromkeys((kind, text.removeprefix(f"{root}/")) for kind, text in problems)
    entries = [{"kind": kind, "detail": detail} for kind, detail in unique]
    return {"root": str(root), "clean": not unique, "splits": splits, "problems": entries}


def summary(report: dict) -> str:
    """Return the result of `check` as text: splits, and the first problems of each kind."""
    lines = []
    for split, total in report["splits"].items():
        clips, frames = counted(total["clips"], "clip"), counted(total["frames"], "frame")
        lines.append(f"{split}: {clips}, {frames}, {total['usable']} usable")
    for kind in dict.fromkeys(problem["kind"] for problem in report["problems"]):
        details = [p["detail"] for p in report["problems"] if p["kind"] == kind]
        lines += ["", f"{len(details)} × {kind}"]
        lines += [f"    {detail}" for detail in details[:MAX_LISTED]]
        if len(details) > MAX_LISTED:
            lines.append(f"    … and {len(details) - MAX_LISTED} more")
    end = "no problems found; the data set is ready for use"
    if count := len(report["problems"]):
        end = f"problems found: {count}; training leaves out files with problems"
    return "\n".join([*lines, "", f"{report['root']}: {end}"])
