"""Score a CubeUNet on flat video clips placed on the sphere, with and without motion.

    python -m recipes.score_flat_clips SOURCES [--ckpt_path checkpoints/cube_unet_best.pth]

SOURCES holds hevc33_video/ (see recipes/gaze_sources.py). A clip plays straight ahead, FIELD wide,
on a grey sphere. Each frame's map is compared, within the clip and weighted with solid angles, with
the fixations of that moment (250 ms before to 250 ms after), blurred by SIGMA. Three
forms of the same network are compared: frames alone, frames with their motion channel, and maps
smoothed over time according to the checkpoint's spec. The baseline is a Gaussian in the middle.
Scores are means over the clips' means.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.devices import autocast, choose_device, choose_precision
from common.errors import InputError, run_script
from datasets.gaze import fixation_map, gaussian_map
from metrics import cc, nss
from models import CubeUNet, predict
from projection import directions, solid_angles
from projection.perspective import extent_of
from projection.sphere import angles_of
from recipes.flat import to_tensor
from recipes.gaze_sources import Picture, read_sources
from recipes.output import load_cube_unet
from recipes.perspective import Perspective2Equi
from video import Frame
from video.motion import motion_estimator
from video.pictures import read_picture, resize

FIELD = 90  # degrees, horizontally: the clip fills one face of the cube
SHOWN = 256  # columns to which a clip is reduced, as many as a face of the shipped network has
RATE = 4.0  # frames a second
GREY = 0.5  # of the sphere around the clip
FEWEST = 3  # fixations of a moment that is scored
SIGMA = 3.34  # degrees, as in datasets/gaze.py
MIDDLE = 20  # degrees, standard deviation of the Gaussian in the middle


class Clip:
    """A clip on the sphere: its frames, and the ground truth of each.

    frames: list of video.Frame of H×W pixels. region: (H, 1) or (H, W) solid angles within the
    clip, 0 elsewhere. truth, fixations: (N, H, W). scored: (N,) bool.
    """

    def __init__(self, pictures: list[Picture], height: int, width: int, motion: str):
        estimate, put = motion_estimator(motion), Perspective2Equi(FIELD, (height, width))
        before: Tensor | None = None
        self.frames, truth, fixations = [], [], []
        for number, picture in enumerate(pictures):
            image = read_picture(picture.path)
            rows = round(SHOWN * image.shape[0] / image.shape[1])
            placed, weight = put(to_tensor(resize(image, rows, SHOWN))[None])
            rgb = (placed * weight + GREY * (1 - weight))[0]
            self.frames.append(Frame(number + 1, number / RATE, rgb, estimate(before, rgb)))
            before, extent = rgb, extent_of(FIELD, rows, SHOWN)
            u, v = (2 * picture.x - 1) * extent[0], (2 * picture.y - 1) * extent[1]
            place = angles_of(torch.from_numpy(np.stack([u, -v, np.ones_like(u)], -1)).double())
            longitude, latitude = (angle.numpy() for angle in place)
            truth.append(gaussian_map(longitude, latitude, height, width, SIGMA))
            fixations.append(fixation_map(longitude, latitude, height, width))
        self.region = solid_angles(height, width, torch.float64) * (weight[0, 0] > 0.5)
        self.truth, self.fixations = torch.stack(truth), torch.stack(fixations)
        self.scored = torch.tensor([len(picture.x) >= FEWEST for picture in pictures])

    def scores(self, maps: Tensor) -> tuple[float, float]:
        """Return CC and NSS of maps (N, H, W), means over the frames that are scored."""
        kept = self.scored
        values = (
            cc(maps[kept], self.truth[kept], self.region),
            nss(maps[kept], self.fixations[kept] * (self.region > 0), self.region),
        )
        return tuple(value.nanmean().item() for value in values)


def forms(model: CubeUNet, frames: list[Frame]):
    """Yield the name and the maps (N, H, W) of each form of a network."""
    spec, still = model.spec, [replace(f, motion=torch.zeros_like(f.motion)) for f in frames]
    for name, given, smoothing in (
        ("frames alone", still, 0.0),
        ("with motion", frames, 0.0),
        ("with motion, smoothed", frames, spec.smoothing),
    ):
        model.spec = replace(spec, smoothing=smoothing)
        yield name, torch.stack([saliency[0] for _, saliency in predict(model, given)])
    model.spec = spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, help="folder that holds hevc33_video/")
    parser.add_argument("--ckpt_path", type=Path, default="checkpoints/cube_unet_best.pth",
                        help="checkpoint of a CubeUNet (default: the shipped one)")  # fmt: skip
    parser.add_argument("--split", choices=["train", "val", "test"], default="test",
                        help="which clips; those of train made the shipped one (default: "
                        "test)")  # fmt: skip
    args = parser.parse_args()
    device = choose_device("auto")
    model = load_cube_unet(args.ckpt_path, device)
    clips = read_sources(args.sources)[args.split].clips
    if not clips:
        raise InputError(f"{args.sources}: holds no hevc33_video; give a folder that does")
    size = model.spec.height, model.spec.width
    ahead = directions(*size)[..., 2].clamp(-1, 1).acos()
    middle = (-((ahead / np.radians(MIDDLE)) ** 2) / 2).exp()
    table: dict[str, list[tuple[float, float]]] = {}
    for pictures in tqdm(clips, unit="clip"):
        clip = Clip(pictures, *size, model.spec.motion)
        with autocast(device, choose_precision("auto", device)):
            maps = dict(forms(model, clip.frames))
        maps["Gaussian in the middle"] = middle.expand(len(pictures), *size)
        for name, found in maps.items():
            table.setdefault(name, []).append(clip.scores(found.float()))
    names = [pictures[0].path.stem.rpartition("_")[0] for pictures in clips]
    print(f"| | CC | NSS | {' | '.join(f'CC {name}' for name in names)} |")
    print("|---" * (3 + len(names)) + "|")
    for form, scores in table.items():
        means = [sum(column) / len(column) for column in zip(*scores)]
        cells = [f"{value:.3f}" for value in (*means, *(score[0] for score in scores))]
        print(f"| {form} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main)
