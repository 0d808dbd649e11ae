"""What the U-Net sees in flat photographs: correlation with the fixations of OSIE.

    python -m benchmarks.flat_photos OSIE_FOLDER [--ckpt_path checkpoints/cube_unet_best.pth]

The folder holds images/ and fixations.npz (see datasets/gaze_sources.py). The last 50 photographs
are scored, which nothing was trained on or chosen by. A photograph is shown as one face of the
cube, 120×120 pixels and 90° wide, whose upper and lower edge repeat the photograph's; in place of
neighbouring faces its own border is repeated, and there is no latitude prior. Where people look on
a screen also depends on where on the screen: the mean map of the photographs before the last 100
stands for that, to the power that suits the 50 between best.

Truth: all fixations, blurred by a Gaussian of 3 % of the width. CC is planar, mean over pictures.
"""

import argparse
import copy
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import models
from datasets.video import read_picture, resize, to_tensor
from files import InputError, run_script
from metrics import cc
from projection import CubePadding

HEIGHT, WIDTH, BLUR = 120, 160, 0.03  # of the maps
FACE, ROWS = 120, 15  # pixels; those above and below the photograph
TEST, CHOOSE = 50, 50  # pictures at the end, and before those
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Flat(nn.Module):
    """The U-Net of a CubeUNet on flat pictures: (B, C, H, W) → logits (B, H, W)."""

    def __init__(self, model: models.CubeUNet):
        super().__init__()
        self.layers = nn.Sequential(copy.deepcopy(model.unet), copy.deepcopy(model.head))
        for parent in list(self.layers.modules()):
            for name, child in parent.named_children():
                if isinstance(child, CubePadding):
                    setattr(parent, name, nn.ReplicationPad2d(child.pad))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = x.contiguous(memory_format=torch.channels_last)
        return nn.functional.interpolate(self.layers(x), size=size, mode="bilinear")[:, 0]


def read_photographs(folder: Path) -> tuple[list[Path], Tensor]:
    """Paths, and fixation maps (N, H, W), each with maximum 1."""
    try:
        with np.load(folder / "fixations.npz", allow_pickle=False) as file:
            names, image, x, y = (file[key] for key in ("names", "image", "x", "y"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}/fixations.npz: no fixations of photographs there") from error
    maps = np.zeros((len(names), HEIGHT, WIDTH), np.float32)
    column, row = (x * WIDTH).astype(int), (y * HEIGHT).astype(int)
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    np.add.at(maps, (image[inside], row[inside], column[inside]), 1)
    for i, counts in enumerate(maps):
        maps[i] = cv2.GaussianBlur(counts, (0, 0), BLUR * WIDTH, borderType=cv2.BORDER_CONSTANT)
    maps = torch.from_numpy(maps)
    return [folder / "images" / name for name in names], maps / maps.amax((1, 2), keepdim=True)


@torch.inference_mode()
def predict(flat: Flat, paths: list[Path], channels: int) -> Tensor:
    """Saliency (N, H, W), of photographs whose motion channels are zero."""
    maps = []
    for path in paths:
        rgb = to_tensor(resize(read_picture(path), FACE - 2 * ROWS, FACE))
        face = nn.functional.pad(rgb[None], (0, 0, ROWS, ROWS), mode="replicate")
        face = torch.cat([face, face.new_zeros(1, channels - 3, FACE, FACE)], dim=1)
        maps.append(flat(face)[:, ROWS:-ROWS])
    size = HEIGHT, WIDTH
    return nn.functional.interpolate(torch.stack(maps), size, mode="bilinear")[:, 0].sigmoid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="OSIE: images/ and fixations.npz")
    parser.add_argument("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth")
    args = parser.parse_args()
    model = models.load(args.ckpt_path)
    if not isinstance(model, models.CubeUNet):
        raise InputError(f"{args.ckpt_path}: a {model.name}; give a cube_unet")
    paths, truth = read_photographs(args.folder)
    train = truth[: -TEST - CHOOSE]
    mean = (train / train.sum((1, 2), keepdim=True)).mean(0)
    start = len(paths) - TEST - CHOOSE
    maps = predict(Flat(model).eval(), paths[start:], model.in_channels)
    floor = cc(mean.expand(TEST, -1, -1), truth[-TEST:]).mean()
    print(f"mean map of {len(train)} photographs: CC {floor:.3f}")
    scores = {p: cc(maps * mean**p, truth[start:]) for p in POWERS}
    best = max(POWERS, key=lambda p: scores[p][:CHOOSE].mean())
    for power, score in scores.items():
        chosen = " (chosen on the 50 before)" if power == best else ""
        print(f"model × mean map^{power:g}: CC {score[CHOOSE:].mean():.3f}{chosen}")


if __name__ == "__main__":
    run_script(main)
