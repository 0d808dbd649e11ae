"""Frames of a video with their saliency maps, for overlay, viewer and camera."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from common.errors import InputError, counted
from maps.folder import RERUN
from video.decoding import Damage, VideoInfo, decode
from video.pictures import read_picture


class FrameWithMap(NamedTuple):
    """A frame with the file of its map and a factor for the map's values."""

    number: int  # from 1
    image: av.VideoFrame
    path: Path
    factor: float

    def saliency(self) -> np.ndarray:
        """Read the map: (h, w) uint8, without the factor."""
        return read_picture(self.path, "L")


def frames_with_maps(
    info: VideoInfo, folder: Path, maps: dict[int, tuple[Path, float]], damage: Damage
) -> Iterator[FrameWithMap]:
    """Yield all readable frames, which have the same size, with a progress bar.

    maps: file in `folder` and factor by frame number; other frames raise InputError. damage:
    collects unreadable frames.
    """
    number, size = 0, None
    for frame in tqdm(decode(info, damage), "rendering", len(maps), unit="frame", disable=None):
        number = frame.number
        try:
            image = frame.image
        except InputError as error:
            damage.unreadable[number] = str(error)
            continue
        if number not in maps:
            raise InputError(f"{folder}: no map for frame {number}; {RERUN}")
        size = size or (image.width, image.height)
        if (image.width, image.height) != size or min(size) < 2:
            sizes = f"{image.width}×{image.height} pixels, the first {size[0]}×{size[1]}"
            raise InputError(f"{info.path}: frame {number} has {sizes}; resize all to one size")
        yield FrameWithMap(number, image, *maps[number])
    if missing := [n for n in maps if n > number and n not in damage.unreadable]:
        raise InputError(f"{folder}: {counted(len(missing), 'map')} more than frames; {RERUN}")
