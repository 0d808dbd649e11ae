"""Measure the share of maps on people near the camera, for one or more checkpoints.

    python -m benchmarks.near_people a.pth b.pth --media FOLDER [--picture before_after.jpg]

near_people.json lists moments of files in FOLDER with people near the camera, and boxes drawn by
hand. The ratio is a box's share of a map's mass divided by its share of the sphere: 1 for
a uniform map. Pixels at the edge of a box count in part, by solid angle. Clips are sampled, and
their maps smoothed over time, as in infer_video.py.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import models
from common.errors import InputError, run_script
from common.files import atomic
from common.options import HelpFormatter
from models.equator_prior import equator_prior
from projection.sphere import column_of, row_of, solid_angles
from video import Frame, read_frames
from views.overlay import Overlay

BOXES = Path(__file__).with_suffix(".json")
SIZE = 512, 1024  # of the grid on which boxes are measured
PANEL = 320, 640  # rows and columns of a panorama in the picture
ROWS = slice(98, 294)  # that are shown: latitudes from 35° to −75°
TURN = 174  # columns, 98°, by which it is turned, so that the seam cuts nobody in two
COLOUR_MAP, OPACITY = "turbo", 0.7  # the defaults of make_video.py

Box = list[float]  # left, right, bottom, top in degrees; right exceeds 180 across the seam


def read_moments() -> list[dict]:
    return json.loads(BOXES.read_text(encoding="utf-8"))["moments"]


def areas_in(box: Box, height: int, width: int) -> np.ndarray:
    """Return the solid angle of the part of each pixel that lies in a box: (H, W) float64."""
    left, right, bottom, top = np.radians(box)
    rows = np.diff(np.sin(np.linspace(-np.pi / 2, np.pi / 2, height + 1).clip(bottom, top)))[::-1]
    edges = np.linspace(-np.pi, np.pi, width + 1)
    columns = sum(np.diff((edges + turn).clip(left, right)) for turn in (0, 2 * np.pi))
    return rows[:, None] * columns


def share(saliency: np.ndarray, box: Box) -> float:
    """Return the share of the mass of a map (H, W) in a box."""
    areas = solid_angles(*saliency.shape, torch.float64).numpy()
    return float((areas_in(box, *saliency.shape) * saliency).sum() / (areas * saliency).sum())


def predicted(model: models.SaliencyModel, path: Path, seconds: float) -> tuple[Frame, np.ndarray]:
    """Return the first sampled frame at a time or after it, and its map (H, W)."""
    frames = read_frames(path, model.spec)
    for frame, saliency in models.predict(model, frames):
        if frame.seconds > seconds - 1e-3:
            return frame, saliency[0].numpy()
    raise InputError(f"{path}: ends before {seconds} s; give the clip that the boxes belong to")


def panels(text: str, frame: Frame, boxes: list[Box], maps: dict[str, np.ndarray]) -> np.ndarray:
    """Return a frame with its boxes, and below it the frame under each map: (h, W, 3) uint8 RGB."""
    height, width = PANEL
    rgb = (255 * frame.rgb.permute(1, 2, 0).numpy()).round().astype(np.uint8)
    rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    pictures, overlay = {text: rgb.copy()}, Overlay(COLOUR_MAP, OPACITY, None, height)
    for left, right, bottom, top in np.radians(boxes):
        for turn in (0, 2 * math.pi):
            columns = [round(column_of(angle - turn, width)) for angle in (left, right)]
            corners = zip(columns, [round(row_of(angle, height)) for angle in (bottom, top)])
            cv2.rectangle(pictures[text], *corners, (0, 255, 0))
    for label, saliency in maps.items():
        grey = np.rint(255 * saliency / saliency.max()).astype(np.uint8)
        pictures[label] = overlay(rgb, cv2.resize(grey, (width, height)))
    shown = []
    for label, picture in pictures.items():
        shown.append(np.roll(picture, -TURN, axis=1)[ROWS])
        shown[-1][:22, : 8 * len(label) + 16] = 0
        cv2.putText(shown[-1], label, (8, 16), 0, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate(shown)


def save(blocks: list[np.ndarray], path: Path) -> None:
    """Write pictures of equal size as one JPEG, in two columns."""
    blocks = [np.pad(b, ((0, 8), (0, 8), (0, 0)), constant_values=255) for b in blocks]
    blocks += [np.full_like(blocks[0], 255)] * (len(blocks) % 2)
    rows = [np.concatenate(pair, axis=1) for pair in zip(blocks[::2], blocks[1::2])]
    with atomic(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, "JPEG", quality=70)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.near_people",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="checkpoints")
    parser.add_argument("--media", type=Path, required=True, help="folder of the clips and stills")
    parser.add_argument("--picture", type=Path, help="JPEG of the maps over the frames")
    args = parser.parse_args()
    networks = {path.stem: models.deploy(models.load(path)) for path in args.checkpoints}
    if len(networks) < len(args.checkpoints):
        raise InputError("two checkpoints have the same name; rename one of them")
    blocks, rows = [], {}
    for moment in tqdm(read_moments(), unit="moment", disable=None):
        path, people, name = args.media / moment["file"], moment["people"], moment["name"]
        found = {n: predicted(net, path, moment["seconds"]) for n, net in networks.items()}
        maps = {label: saliency for label, (_, saliency) in found.items()}
        if args.picture and moment["licence"]:
            frame = next(iter(found.values()))[0]
            blocks.append(panels(name, frame, list(people.values()), maps))
        maps = {"equator prior": equator_prior(*SIZE).numpy()} | maps
        for person, box in people.items():
            area = areas_in(box, *SIZE).sum() / (4 * math.pi)
            shares = [share(saliency, box) for saliency in maps.values()]
            rows[f"{name}: {person}"] = [area, *(x for s in shares for x in (s, s / area))]
    rows[f"mean of {len(rows)} people"] = np.mean(list(rows.values()), axis=0)
    labels = "".join(f" {label} | ratio |" for label in maps)
    print(f"| | sphere |{labels}\n|{'---|' * (2 + 2 * len(maps))}")
    for name, (area, *values) in rows.items():
        cells = [f"{s:.2%} | {r:.2f}" for s, r in zip(values[::2], values[1::2])]
        print(f"| {name} | {area:.2%} | {' | '.join(cells)} |")
    if args.picture:
        save(blocks, args.picture)


if __name__ == "__main__":
    run_script(main)
