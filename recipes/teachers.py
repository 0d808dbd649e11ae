"""Write a network's maps of training frames in which people count more, for recipes.distill.

    python -m recipes.teachers MAPS --data_root DATA --checkpoint a.pth --fastgaze fastgaze.vxm

The map of the last frame of each training clip is

    lift · ((1 − FASTGAZE) · lift · sigmoid(mean over HEIGHTS of a checkpoint's logits)
        + FASTGAZE · density of FastGaze)

The lift is by how much attention to people is denser in a scene than the equator prior would have
it (recipes/gaze_scenes.py), at most MOST, and 1 where a scene has none. Multiplied by it, a map
keeps all that the network knows. Both terms of the sum have the same mean, and there is no
preference for straight ahead. The map is written as MAPS/CLIP.npy, float16; existing maps are kept,
so that the same command continues an interrupted run.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from common.devices import autocast, choose_device, choose_precision
from common.errors import run_script
from common.files import read_array, write_array
from datasets.layouts import File
from models import CubeUNet, deploy, load
from projection import solid_angles
from recipes.distill import map_path, training_clips
from recipes.fastgaze import load_fastgaze, panorama_density
from recipes.flat import to_tensor
from video.pictures import read_picture, resize

HEIGHTS = 256, 384, 640  # of the frames whose logits are averaged
FASTGAZE = 0.3  # its share
MOST = 8.0  # times the attention of the prior: limit of a lift
ROWS = 256  # of a map, which is twice as wide


def mean_map(teachers: list[CubeUNet], frames: Tensor) -> Tensor:
    """Return the sigmoid of the networks' mean logits: (1, 1, 3, H, W) → (1, 1, H, W).

    Each network sees the frame at its own size. There is no front in it.
    """
    total, size = 0, frames.shape[-2:]
    for model in teachers:
        own = model.spec.height, model.spec.width
        small = interpolate(frames[0], own, mode="area" if own[0] <= size[0] else "bilinear")
        motion = small.new_zeros(1, 1, model.arguments["in_channels"] - 3, *own)
        logits = sum(model.logits(small[None], motion))
        total = total + interpolate(logits.float(), size, mode="bilinear")
    return (total / len(teachers)).sigmoid()


def lift_of(clip: list[File], height: int, width: int) -> np.ndarray | float:
    """Return by how much attention to people is denser in a clip's last frame: (H, W), or 1."""
    path = clip[-1].picture.with_name(f"{clip[-1].picture.stem}_lift.npy")
    if not path.exists():
        return 1.0
    return resize(read_array(path).astype(np.float32).clip(1, MOST), height, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("maps", type=Path, help="folder to write")
    add("--data_root", type=Path, required=True, help="data set whose training frames are used")
    add("--checkpoint", type=Path, required=True, help="checkpoint of a CubeUNet")
    add("--fastgaze", type=Path, required=True, help="fastgaze.vxm of FastGaze")
    args = parser.parse_args()
    device, clips = choose_device("auto"), training_clips(args.data_root)
    precision, size = choose_precision("auto", device), (ROWS, 2 * ROWS)
    sizes = ({"height": rows, "width": 2 * rows} for rows in HEIGHTS)
    teachers = [deploy(load(args.checkpoint, device, **size)) for size in sizes]
    fastgaze, areas = load_fastgaze(args.fastgaze), solid_angles(*size).numpy()
    args.maps.mkdir(parents=True, exist_ok=True)
    for clip in tqdm(clips, unit="frame"):
        if (path := map_path(args.maps, clip)).exists():
            continue
        image = read_picture(clip[-1].picture)
        frame = to_tensor(image)[None, None].to(device)
        with torch.no_grad(), autocast(device, precision):
            mean = mean_map(teachers, frame).float()
            other = panorama_density(fastgaze, image, *size)
        mean, lift = interpolate(mean, size, mode="area")[0, 0].cpu().numpy(), lift_of(clip, *size)
        mean *= lift
        other *= (mean * areas).sum() / (other * areas).sum()
        said = lift * ((1 - FASTGAZE) * mean + FASTGAZE * other)
        write_array(path, said.astype(np.float16))


if __name__ == "__main__":
    run_script(main)
