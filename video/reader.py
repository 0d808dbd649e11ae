"""The only door for pictures: video files, folders of frames and single pictures."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cli import InputError
from video.motion import MOTIONS

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FLOW = "_flow.png"  # ends the name of the picture of a frame's flow, which lies beside it
FOLDER_FPS = Fraction(8)  # pictures carry no rate: taken as sampled at the models' own

Image.MAX_IMAGE_PIXELS = 16384 * 32768  # a 32K panorama is no attack
av.logging.set_level(None)  # any level calls Python from FFmpeg's threads and may hang them


@dataclass(frozen=True)
class VideoInfo:
    """What a source says of itself before it is decoded."""

    path: Path
    width: int  # pixels
    height: int
    fps: Fraction
    frames: int | None  # None where the container does not tell
    seconds: float | None


@dataclass(frozen=True)
class Frame:
    """One sampled frame, as models take it."""

    number: int  # of the source's frames, from 1
    seconds: float  # since the first frame
    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    motion: Tensor  # (M, H, W) float32 in [0, 1]


def probe(path: str | Path) -> VideoInfo:
    """Size, rate and length of a video file, a folder of pictures or one picture.

    Raises InputError for anything that is none of these.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        height, width = read_picture(pictures[0]).shape[:2]
        seconds = float(len(pictures) / FOLDER_FPS)
        return VideoInfo(path, width, height, FOLDER_FPS, len(pictures), seconds)
    with _open(path) as container:
        stream = container.streams.video[0]
        seconds = _duration(container, stream)
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        if rate > 300 and seconds and stream.frames:  # a container's clock, not a rate
            rate = Fraction(stream.frames / seconds).limit_denominator(1001)
        return VideoInfo(path, stream.width, stream.height, rate, stream.frames or None, seconds)


def decode(path: str | Path) -> Iterator[av.VideoFrame]:
    """All frames at full size, in order of presentation, one at a time.

    Raises InputError for a file that can't be decoded, and for a damaged or truncated one
    after the frames before the damage.
    """
    path = Path(path)
    count = 0
    if pictures := list_pictures(path):
        for picture in pictures:
            yield av.VideoFrame.from_ndarray(read_picture(picture), format="rgb24")
        return
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        end = 0.0
        try:
            for frame in container.decode(stream):
                count += 1
                end = max(end, frame.time or 0.0)
                yield frame
        except av.error.FFmpegError as error:
            raise _damaged(path, count, error.strerror) from error
        _check_length(path, container, stream, count, end)


def _open(path: Path) -> av.container.InputContainer:
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy or download it again")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise InputError(
            f"{path}: no video or picture that can be decoded ({error.strerror}); "
            "it may be truncated: play it to check, or copy it again"
        ) from error
    if not container.streams.video or not container.streams.video[0].codec_context.width:
        container.close()
        raise InputError(f"{path}: has no video stream; give a 360° video, frames or a picture")
    return container


def _duration(container, stream) -> float | None:
    """Seconds of the video stream; of the file where it holds nothing else."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


def _check_length(path: Path, container, stream, count: int, end: float) -> None:
    """A file cut short often ends without an error of the decoder: compare with its header."""
    if count == 0:
        raise _damaged(path, count, "no frame could be decoded")
    if stream.frames and count < stream.frames - max(2, stream.frames // 100):
        raise _damaged(path, count, f"its header announces {stream.frames}")
    seconds = _duration(container, stream)
    if stream.duration and stream.start_time:  # a stream's duration counts from its start
        end -= float(stream.start_time * stream.time_base)
    if seconds and end < 0.95 * seconds - 1.0:
        raise _damaged(path, count, f"{end:.1f} of {seconds:.1f} seconds")


def _damaged(path: Path, count: int, cause: str) -> InputError:
    return InputError(
        f"{path}: truncated or damaged after {count} frames ({cause}); "
        "copy or download it again, or re-encode it to go on with what is there"
    )


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names; a picture itself.

    Pictures of flow, 0001_flow.png, belong to a frame and are none.
    Returns an empty list for any other file. Raises InputError where there is nothing.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check the path")
    if not path.is_dir():
        return [path] if path.suffix.lower() in PICTURES else []
    pictures = [
        p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.endswith(FLOW)
    ]
    if not pictures:
        known = " ".join(sorted(PICTURES))
        raise InputError(f"{path}: no pictures in this folder; frames end with one of {known}")
    return sorted(pictures, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises InputError for a picture that is damaged or none at all."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise InputError(
            f"{path}: the picture can't be read ({size} bytes); delete it or make it again"
        ) from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Equirectangular (H, W) or (H, W, C) image at another size.

    Area averaging where it shrinks; where it grows, bilinear with the longitude wrapped.
    """
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image
    if old_height >= height and old_width >= width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    column = (np.arange(width, dtype=np.float32) + 0.5) * old_width / width - 0.5
    row = (np.arange(height, dtype=np.float32) + 0.5) * old_height / height - 0.5
    grid = np.meshgrid(column, row.clip(0, old_height - 1))
    return cv2.remap(image, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def to_tensor(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 → (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 255


def read_flow(picture: Path, spec) -> Tensor | None:
    """(3, H, W), the flow's picture beside that of a frame; None where there is none."""
    path = picture.with_name(picture.stem + FLOW)
    if path.is_file():
        return to_tensor(resize(read_picture(path), spec.height, spec.width))
    return None


class FrameReader(Iterator[Frame]):
    """The frames of a source as a model with this Spec takes them, one at a time.

    Every round(source rate / spec.fps)-th frame is sampled (as SST-Sal's authors do), every
    frame of a slower source. For models that take flow, a folder's pictures of it are used
    where there are some. `decoded` counts the source's frames that were read so far,
    sampled or not; after the last one, it is the length of the source.
    """

    def __init__(self, path: str | Path, spec):
        self.info = probe(path)
        self.step = max(1, round(self.info.fps / Fraction(spec.fps)))
        self.decoded = 0
        self._frames = self._read(path, spec)

    def _read(self, path: str | Path, spec) -> Iterator[Frame]:
        motion, previous, start = MOTIONS[spec.motion](), None, None
        pictures = list_pictures(Path(path))
        for frame in decode(path):
            self.decoded += 1
            if (self.decoded - 1) % self.step:
                continue
            time = (self.decoded - 1) / float(self.info.fps) if frame.time is None else frame.time
            start = time if start is None else start
            rgb = to_tensor(resize(frame.to_ndarray(format="rgb24"), spec.height, spec.width))
            moved = None
            if pictures and motion.channels == 3:
                moved = read_flow(pictures[self.decoded - 1], spec)
            moved = motion(previous, rgb) if moved is None else moved
            yield Frame(self.decoded, time - start, rgb, moved)
            previous = rgb

    def __next__(self) -> Frame:
        return next(self._frames)


def read_frames(path: str | Path, spec) -> FrameReader:
    """A video file, a folder of frames or one picture as an iterator of Frame.

    spec: anything with height, width, fps and motion, such as models.base.Spec.
    Raises InputError for a source that can't be read, at once or when it is met.
    """
    return FrameReader(path, spec)
