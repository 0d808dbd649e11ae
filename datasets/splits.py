"""The training, validation and test splits of a data set.

<root>/splits.json lists them: {"train": [clip, …], "val": […], "test": […]}. Without it, a data set
must contain clips of ECCV 2018, whose split is built in.
"""

import random
from pathlib import Path

from common.errors import InputError
from common.files import read_json

HOW_TO_GET_DATA = (
    "get 360_Saliency_dataset_2018ECCV (github.com/xuyanyu-shh/Saliency-detection-in-360-video) "
    "and put it there as <root>/<clip>/0001.jpg with 0001_gt.npy beside it, or render a data set "
    "with 'python -m prepare.synthetic' and give its folder"
)
SPLITS_FORMAT = '{"train": [clip folders], "val": [...], "test": [...]}'


def eccv2018_split() -> dict[str, list[str]]:
    """Return the split of ECCV 2018 into 80 training and 24 test clips of re-implementations.

    Eight of the training clips, drawn at random, become the validation split, so that the best
    checkpoint is not chosen on the test clips.
    """
    names = [str(n) for n in range(217, 321)]
    drawn = random.Random(367643).sample(names, 80)
    test = sorted(set(names) - set(drawn))
    return {"train": sorted(drawn[8:]), "val": sorted(drawn[:8]), "test": test}


PUBLISHED = read_json(Path(__file__).with_name("published_splits.json"))
PUBLISHED["eccv2018"] = {"test": eccv2018_split()["test"]}


def published_split(name: str, clips: list[str]) -> dict[str, list[str]]:
    """Return a split of PUBLISHED, as far as its clips exist.

    A part that it does not list has all other clips; val is a random tenth of those to train.
    """
    lists, there = PUBLISHED[name], set(clips)
    train = there & set(lists["train"]) if "train" in lists else there - set(lists["test"])
    test = there & set(lists["test"]) if "test" in lists else there - set(lists["train"])
    val = random.Random(0).sample(sorted(train), len(train) // 10)
    return {"train": sorted(train - set(val)), "val": sorted(val), "test": sorted(test)}


def read_splits(root: Path) -> dict[str, list[str]]:
    """Return the names of a data set's clips by split.

    Raises InputError for a missing or unfinished data set, for an invalid splits.json, and for a
    missing one without clips of ECCV 2018.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such data set; {HOW_TO_GET_DATA}")
    path = root / "splits.json"
    if not path.exists():
        splits = eccv2018_split()
        if any((root / name).is_dir() for names in splits.values() for name in names):
            return splits
        if any(root.glob("*/prepared.json")):  # splits.json is written last
            unfinished = "is not finished; run the command that makes it again to continue"
            raise InputError(f"{root}: {unfinished}")
        missing = "there is no splits.json and no clip of ECCV 2018 (217 … 320)"
        raise InputError(f"{root}: {missing}; write splits.json as {SPLITS_FORMAT}")
    splits = read_json(path)
    for clips in splits.values():
        listed = isinstance(clips, list) and all(isinstance(name, (str, int)) for name in clips)
        if not listed or any(n in ("", "..") or n != Path(n).name for n in map(str, clips)):
            raise InputError(f"{path}: expected {SPLITS_FORMAT}; correct or delete it")
    return {split: [str(name) for name in clips] for split, clips in splits.items()}
