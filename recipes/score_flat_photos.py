"""What the U-Net sees in flat photographs: correlation with the fixations of OSIE.

    python -m recipes.score_flat_photos OSIE_FOLDER [--ckpt_path checkpoints/cube_unet_best.pth]

The folder holds images/ and fixations.npz (see recipes/gaze_sources.py). The last 50 photographs
are scored, which nothing was trained on or chosen by. A photograph is shown as a flat picture
(CubeUNet(flat=True)), as wide as a face of the cube; nothing prefers a latitude. Where people look
on a screen also depends on where on the screen: the mean map of the photographs before the last 100
stands for that, to some power. Width and power are those that suit the 50 between best.

Truth: all fixations, blurred by a Gaussian of 3 % of the width. CC is planar, mean over pictures.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import models
from cli import InputError, run_script
from metrics import cc
from recipes.flat_photos import gaze_map
from recipes.gaze_sources import Picture
from video.reader import read_picture, resize, to_tensor

HEIGHT, WIDTH = 120, 160  # of the maps
TEST, CHOOSE = 50, 50  # pictures at the end, and before those
WIDTHS = 256, 320, 384  # that a photograph is shown in; a face of the shipped model has 256
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def read_photographs(folder: Path) -> tuple[list[Path], Tensor]:
    """Paths, and fixation maps (N, H, W), each with maximum 1."""
    try:
        with np.load(folder / "fixations.npz", allow_pickle=False) as file:
            names, image, x, y = (file[key] for key in ("names", "image", "x", "y"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}/fixations.npz: no fixations of photographs there") from error
    paths, maps = [folder / "images" / name for name in names], []
    for index, path in enumerate(paths):
        rows = image == index
        picture = Picture(path, x[rows], y[rows], np.ones(rows.sum()))
        maps.append(torch.from_numpy(gaze_map(picture, HEIGHT, WIDTH)))
    return paths, torch.stack(maps)


@torch.inference_mode()
def predict(model: models.CubeUNet, paths: list[Path], width: int) -> Tensor:
    """Saliency (N, H, W) of photographs shown that wide, by a model of flat pictures."""
    height, maps = 32 * round(width * HEIGHT / WIDTH / 32), []  # halves evenly five times
    for path in paths:
        rgb = to_tensor(resize(read_picture(path), height, width))
        motion = rgb.new_zeros(model.in_channels - 3, *rgb.shape[1:])
        maps.append(model(rgb[None, None], motion[None, None])[0])
    return nn.functional.interpolate(torch.cat(maps), (HEIGHT, WIDTH), mode="bilinear")[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="OSIE: images/ and fixations.npz")
    parser.add_argument("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth")
    args = parser.parse_args()
    model = models.load(args.ckpt_path)
    if not isinstance(model, models.CubeUNet):
        raise InputError(f"{args.ckpt_path}: a {model.name}; give a cube_unet")
    model = models.load(args.ckpt_path, flat=True)
    paths, truth = read_photographs(args.folder)
    train = truth[: -TEST - CHOOSE]
    mean = (train / train.sum((1, 2), keepdim=True)).mean(0)
    start = len(paths) - TEST - CHOOSE
    floor = cc(mean.expand(TEST, -1, -1), truth[-TEST:]).mean()
    print(f"mean map of {len(train)} photographs: CC {floor:.3f}")
    scores = {}
    for width in WIDTHS:
        maps = predict(model, paths[start:], width)
        scores |= {(width, power): cc(maps * mean**power, truth[start:]) for power in POWERS}
    best = max(scores, key=lambda key: scores[key][:CHOOSE].mean())
    for (width, power), score in scores.items():
        chosen = " (chosen on the 50 before)" if (width, power) == best else ""
        what = f"{width} pixels wide, model × mean map^{power:g}"
        print(f"{what}: CC {score[CHOOSE:].mean():.3f}{chosen}")


if __name__ == "__main__":
    run_script(main)
