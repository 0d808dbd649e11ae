"""Score a CubeUNet on flat photographs: correlation with the fixations of OSIE.

    python -m recipes.score_flat_photos OSIE_FOLDER [--ckpt_path checkpoints/cube_unet_best.pth]

The folder holds images/ and fixations.npz (see recipes/gaze_sources.py). The last 50 photographs
are scored; they were used neither for training nor for any choice. Where people look on a screen
also depends on the place on the screen, so the model's map is multiplied with a power of the mean
map of all photographs before the last 100. That power and the width in which a photograph is shown
are chosen on the 50 photographs before the last 50.

The ground truth is all fixations of a photograph, blurred by a Gaussian of 3 % of the width. CC is
planar and averaged over photographs.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from common.errors import InputError, run_script
from common.files import check_file
from metrics import cc
from recipes.flat import FlatUNet, gaze_map, resized
from recipes.gaze_sources import Picture
from recipes.output import load_cube_unet
from video.pictures import read_picture

HEIGHT, WIDTH = 120, 160  # pixels of the maps that are compared
TEST, CHOOSE = 50, 50  # photographs at the end, and those before them
WIDTHS = 256, 320, 384  # pixels in which a photograph is shown; a face of the model has 256
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def read_osie(folder: Path) -> tuple[list[Path], Tensor]:
    """Return the paths of the photographs and their fixation maps (N, H, W) with maximum 1.

    Raises InputError where the folder holds no readable fixations.npz.
    """
    try:
        with np.load(check_file(folder / "fixations.npz"), allow_pickle=False) as file:
            names, image, x, y = (file[key] for key in ("names", "image", "x", "y"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}/fixations.npz: no readable fixations; give the folder of OSIE"
        ) from error
    paths, maps = [folder / "images" / name for name in names], []
    for index, path in enumerate(paths):
        rows = image == index
        picture = Picture(path, x[rows], y[rows], np.ones(rows.sum()))
        maps.append(torch.from_numpy(gaze_map(picture, HEIGHT, WIDTH)))
    return paths, torch.stack(maps)


@torch.inference_mode()
def saliency(model: FlatUNet, paths: list[Path], width: int) -> Tensor:
    """Return the saliency maps (N, H, W) of photographs shown in this width."""
    height = 32 * round(width * HEIGHT / WIDTH / 32)  # the backbone takes multiples of 32
    images = (resized(read_picture(path), height, width) for path in paths)
    maps = torch.cat([model(image[None]) for image in images])
    return interpolate(maps, (HEIGHT, WIDTH), mode="bilinear")[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="OSIE: images/ and fixations.npz")
    parser.add_argument("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth",
                        help="checkpoint of a CubeUNet (default: the shipped one)")  # fmt: skip
    args = parser.parse_args()
    model = FlatUNet(load_cube_unet(args.ckpt_path))
    paths, truth = read_osie(args.folder)
    train = truth[: -TEST - CHOOSE]
    mean = (train / train.sum((1, 2), keepdim=True)).mean(0)
    baseline = cc(mean.expand(TEST, -1, -1), truth[-TEST:]).mean()
    print(f"mean map of {len(train)} photographs: CC {baseline:.3f}")
    shown, truth = paths[-TEST - CHOOSE :], truth[-TEST - CHOOSE :]
    scores = {}
    for width in WIDTHS:
        maps = saliency(model, shown, width)
        scores |= {(width, power): cc(maps * mean**power, truth) for power in POWERS}
    best = max(scores, key=lambda key: scores[key][:CHOOSE].mean())
    for (width, power), score in scores.items():
        chosen = " (chosen on the 50 before)" if (width, power) == best else ""
        name = f"{width} pixels wide, model × mean map^{power:g}"
        print(f"{name}: CC {score[CHOOSE:].mean():.3f}{chosen}")


if __name__ == "__main__":
    run_script(main)
