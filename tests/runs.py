"""What runs of train_video.py leave behind, and how two runs are compared."""

import json

import torch

# Everything that has a state: Adam, cosine, average of weights, random changes, a batch in parts.
OPTIONS = (
    "--epochs", 3, "--batch_size", 4, "--accumulate", 2, "--ema", 0.9, "--clip_gradient", 1,
    "--augment", "yaw", "mirror", "light", "--save_minutes", 0,
)  # fmt: skip


def last(folder, name="cube_unet_last.pth"):
    return torch.load(folder / name, weights_only=True)


def log(folder):
    """log.jsonl without the one thing that may differ between two runs."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def same(one, other) -> bool:
    """To the bit, through dictionaries and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
