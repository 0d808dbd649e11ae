"""What the U-Net sees in flat photographs: correlation with the fixations of OSIE.

    python -m benchmarks.flat_photos OSIE_FOLDER [--ckpt_path checkpoints/cube_unet_best.pth]

The folder holds images/ and fixations.npz (see datasets/gaze_sources.py). The last 50 photographs
are scored, which nothing was trained on or chosen by. A photograph is shown as one face of the
cube, 90° wide, whose upper and lower edge repeat the photograph's; in place of neighbouring faces
its own border is repeated, and there is no latitude prior. A face is as large as the model's, or
as that of larger frames. Where people look on a screen also depends on where on the screen: the
mean map of the photographs before the last 100 stands for that, to some power. Size and power are
those that suit the 50 between best.

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
BORDER = 1 / 8  # of a face's height that is above the photograph, and below it
TEST, CHOOSE = 50, 50  # pictures at the end, and before those
SCALES = (1.0, 1.25, 1.5)  # of the face
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
def predict(model: models.CubeUNet, paths: list[Path], size: int) -> Tensor:
    """Saliency (N, H, W), of photographs on faces of a size, whose motion channels are zero."""
    flat, maps = Flat(model).eval(), []
    rows = round(size * BORDER)
    for path in paths:
        rgb = to_tensor(resize(read_picture(path), size - 2 * rows, size))
        face = nn.functional.pad(rgb[None], (0, 0, rows, rows), mode="replicate")
        face = torch.cat([face, face.new_zeros(1, model.in_channels - 3, size, size)], dim=1)
        maps.append(flat(face)[:, rows:-rows])
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
    floor = cc(mean.expand(TEST, -1, -1), truth[-TEST:]).mean()
    print(f"mean map of {len(train)} photographs: CC {floor:.3f}")
    scores = {}
    for scale in SCALES:
        size = round(model.to_cube.face_size * scale)
        maps = predict(model, paths[start:], size)
        scores |= {(size, power): cc(maps * mean**power, truth[start:]) for power in POWERS}
    best = max(scores, key=lambda key: scores[key][:CHOOSE].mean())
    for (size, power), score in scores.items():
        chosen = " (chosen on the 50 before)" if (size, power) == best else ""
        what = f"faces of {size} pixels, model × mean map^{power:g}"
        print(f"{what}: CC {score[CHOOSE:].mean():.3f}{chosen}")


if __name__ == "__main__":
    run_script(main)
