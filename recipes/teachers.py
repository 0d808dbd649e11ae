"""Write maps of two networks for training frames, as targets for recipes.distill.

    python -m recipes.teachers MAPS --data_root DATA --checkpoint a.pth --fastgaze fastgaze.vxm

The map of the last frame of each training clip is

    (1 − FASTGAZE) · sigmoid(mean over HEIGHTS of a checkpoint's logits)
        + FASTGAZE · density of FastGaze

with the density scaled to the same mean, and without the preference for straight ahead. If the data
set has factors by which people raise attention above the prior (recipes/gaze_scenes.py), the
checkpoint's map is first multiplied by them, at most by MOST. The map is written as MAPS/CLIP.npy,
float16; existing maps are kept, so that the same command continues an interrupted run.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm import tqdm

from common.devices import autocast, choose_device, choose_precision
from common.errors import run_script
from common.files import write_array
from models import deploy, load
from projection import solid_angles
from recipes.distill import lift_of, map_path, teacher_map, training_clips
from recipes.fastgaze import load_fastgaze, panorama_density
from recipes.flat import to_tensor
from video.pictures import read_picture

HEIGHTS = 256, 384, 640  # of the frames whose logits are averaged
FASTGAZE = 0.3  # its share
ROWS = 256  # of a map, which is twice as wide


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
            mean = teacher_map(teachers, frame)[0].float()
            other = panorama_density(fastgaze, image, *size)
        mean = interpolate(mean, size, mode="area")[0, 0].cpu().numpy()
        mean *= lift_of(clip, *size)
        other *= (mean * areas).sum() / (other * areas).sum()
        write_array(path, ((1 - FASTGAZE) * mean + FASTGAZE * other).astype(np.float16))


if __name__ == "__main__":
    run_script(main)
