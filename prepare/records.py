"""Records of written files: sources and settings of a clip, and whether it is complete.

A command that is run again keeps complete clips, rewrites interrupted and changed ones, and never
replaces files of another origin; the record of a data set has digests of those beside its clips.
"""

import os
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from common.errors import InputError
from common.files import atomic, check_file, read_json, write_json
from common.records import Record
from video.layout import rgb_array

RECORD = "prepared.json"
CLIP_FILES = re.compile(r"\d+(\.jpg|\.png|_gt\.npy|_flow\.png)|fixations\.csv|packed\.npy")


def clip_record(folder: Path, facts: dict) -> Record:
    """Return the record of a clip. facts: everything that determines it, as JSON values."""
    return Record(folder / RECORD, facts)


def begin_clip(record: Record) -> bool:
    """Empty a clip's folder and return True, unless the clip is complete; keep other frames."""
    folder = record.path.parent
    if record.done:
        return False
    files = [path for path in folder.glob("*") if CLIP_FILES.fullmatch(path.name)]
    if (files or record.stored) and not record.facts.keys() <= record.stored.keys():
        raise InputError(f"{folder}: contains other frames; choose another output folder")
    folder.mkdir(parents=True, exist_ok=True)
    record.begin()
    for path in files:
        path.unlink()
    return True


def write_files(root: Path, files: dict[str, bytes], only_check: bool = False) -> None:
    """Write files of a data set that are missing or changed, but never those of others."""
    path = root / RECORD
    record: dict = {"written": {}} | (read_json(path, written=dict) if path.exists() else {})
    for name, content in files.items():
        there = check_file(root / name).read_bytes() if os.path.lexists(root / name) else b""
        if there not in (b"", content) and sha256(there).hexdigest() != record["written"].get(name):
            raise InputError(f"{root / name}: not written by this command; move it away")
        if there != content and not only_check:
            with atomic(root / name) as temporary:
                temporary.write_bytes(content)
            record["written"][name] = sha256(content).hexdigest()
            write_json(path, record)


def save_picture(path: Path, picture: np.ndarray | Tensor, **options) -> None:
    """Write a picture of a type that rgb_array takes. options: for PIL's encoder."""
    with atomic(path, durable=False) as temporary:
        Image.fromarray(rgb_array(picture)).save(temporary, **options)


def split(names: list[str], val: float = 1 / 8, test: float = 1 / 8) -> dict[str, list[str]]:
    """Return names by split; the last ones are val and test, which may be empty."""
    counts = [max(1, round(len(names) * share)) * (len(names) >= 3) for share in (val, test)]
    first, second = len(names) - sum(counts), len(names) - counts[1]
    return {"train": names[:first], "val": names[first:second], "test": names[second:]}


def print_splits(splits: dict[str, list[str]]) -> None:
    """Print the sizes of a data set's splits, and a note about empty ones."""
    print("splits: " + ", ".join(f"{name} {len(clips)}" for name, clips in splits.items()))
    if empty := [name for name, clips in splits.items() if not clips]:
        print(f"note: too few clips for {' and '.join(empty)}; make more")
