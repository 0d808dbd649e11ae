"""Find people and other actors in photographs and clips with gaze for recipes/gaze_scenes.py.

    python -m recipes.people --sources DIR --detector fastestdet.onnx --output people.json

The detector is FastestDet (github.com/dog-qiuqiu/FastestDet, BSD-3-Clause), which has learned the
80 classes of COCO. It sees a picture as 352×352 pixels and gives a grid of cells with 85 channels
each: objectness; the box's centre, from the cell's, as tanh in cells; its width and height as
sigmoid in pictures; and the classes. People, animals, what people ride and balls count equally.

The file maps each picture, by its path below the sources, to their boxes: left, top, right, bottom
as fractions of width and height. A picture without any is not in it.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.errors import InputError, run_script
from common.files import write_json
from common.options import HelpFormatter, at_least
from recipes.gaze_sources import LICENCES, read_sources
from recipes.output import writable
from video.pictures import read_picture

SIZE = 352  # pixels of a picture's sides as the detector sees it
# Channels of person, bicycle, motorcycle, boat, animals, skis to kite, skateboard and surfboard.
ACTORS = 5, 6, 8, 13, *range(19, 29), *range(35, 39), 41, 42
OVERLAP = 0.45  # intersection over union beyond which the less certain of two boxes is dropped


class Detector:
    """FastestDet in an ONNX file. Raises InputError for a file that is none."""

    def __init__(self, path: Path, score: float):
        self.score = score
        try:
            self.network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise InputError(f"{path}: not a readable ONNX file; download it again") from error

    def __call__(self, image: np.ndarray) -> list[list[float]]:
        """Return the boxes of the actors in an RGB uint8 image (H, W, 3)."""
        blob = cv2.dnn.blobFromImage(image, 1 / 255, (SIZE, SIZE), swapRB=True)  # the net takes BGR
        self.network.setInput(blob)
        cells = self.network.forward()[0]
        scores = cells[0] ** 0.6 * cells[list(ACTORS)].max(axis=0) ** 0.4
        side, (row, column) = cells.shape[-1], np.nonzero(scores >= self.score)
        x, y, width, height = cells[1:5, row, column]
        x, y = (np.tanh(x) + column) / side, (np.tanh(y) + row) / side
        width, height = (1 / (1 + np.exp(-length)) for length in (width, height))
        boxes = np.stack([x - width / 2, y - height / 2, width, height], axis=-1)
        certain = scores[row, column]
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), certain.tolist(), self.score, OVERLAP)
        edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=-1).clip(0, 1)
        return edges[np.array(kept, int)].round(4).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.people",
        description="Find who and what acts in the photographs and clips of gaze.",
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--sources", type=Path, required=True,
        help=f"folder that holds any of {', '.join(LICENCES)}")  # fmt: skip
    add("--detector", type=Path, required=True, help="fastestdet.onnx of FastestDet")
    add("--output", type=Path, default="people.json", help="file to write")
    add("--score", type=at_least(0.01, 1), default=0.35, help="least score of a box")
    args = parser.parse_args()
    writable(args.output)
    detect = Detector(args.detector, args.score)
    pictures = [
        picture.path
        for part in read_sources(args.sources).values()
        for shot in (part.photographs, *part.clips)
        for picture in shot
    ]
    found = {}
    for path in tqdm(pictures, unit="picture"):
        if boxes := detect(read_picture(path)):
            found[path.relative_to(args.sources).as_posix()] = boxes
    write_json(args.output, found)
    print(f"{args.output}: actors in {len(found):,} of {len(pictures):,} pictures")


if __name__ == "__main__":
    run_script(main)
