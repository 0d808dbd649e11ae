"""Reads video files, folders of frames and single pictures; nothing else opens a picture."""

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
FLOW = "_flow.png"  # end of the name of a flow picture, which lies beside its frame
FOLDER_FPS = Fraction(8)  # pictures carry no rate: assume that they were sampled for the models

Image.MAX_IMAGE_PIXELS = 16384 * 32768  # a 32K panorama is no attack
av.logging.set_level(None)  # any level calls Python from FFmpeg's threads and may hang them


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a source before it is decoded."""

    path: Path
    width: int  # pixels
    height: int
    fps: Fraction
    frames: int | None  # None where the container does not state it
    seconds: float | None  # from the start of the file to the end of its last frame
    start: Fraction = Fraction(0)  # seconds; the clock of a transport stream starts anywhere


@dataclass(frozen=True)
class Frame:
    """One sampled frame, as models take it."""

    number: int  # position in the source, from 1
    seconds: float  # since the first frame
    rgb: Tensor  # (3, H, W) float32 in [0, 1]
    motion: Tensor  # (M, H, W) float32 in [0, 1]


def probe(path: str | Path) -> VideoInfo:
    """Return size, rate and length of a video file, a folder of pictures or one picture.

    Raises InputError for anything else.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        height, width = read_picture(pictures[0]).shape[:2]
        seconds = float(len(pictures) / FOLDER_FPS)
        return VideoInfo(path, width, height, FOLDER_FPS, len(pictures), seconds)
    with _open(path) as container:
        stream = container.streams.video[0]
        start = Fraction(max(0, container.start_time or 0), av.time_base)
        seconds = None
        if stream.duration:
            seconds = float(((stream.start_time or 0) + stream.duration) * stream.time_base - start)
        elif container.duration and len(container.streams) == 1:  # Matroska, counted from zero
            seconds = float(Fraction(container.duration, av.time_base) - start)
        fps = stream.average_rate or stream.guessed_rate or Fraction(30)
        if fps > 300 and seconds and stream.frames:  # the container's clock instead of a rate
            fps = Fraction(stream.frames / seconds).limit_denominator(1001)
        frames = stream.frames or None
        return VideoInfo(path, stream.width, stream.height, fps, frames, seconds, start)


def decode(path: str | Path) -> Iterator[av.VideoFrame]:
    """Yield all frames at full size, in order of presentation, one at a time.

    Each has a time, which counts from the start of the file. Raises InputError for a file that
    can't be decoded, and for a damaged or truncated one after the frames before the damage.
    """
    path = Path(path)
    if pictures := list_pictures(path):
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(read_picture(picture), format="rgb24")
            frame.pts, frame.time_base = number, 1 / FOLDER_FPS
            yield frame
        return
    info, count, end = probe(path), 0, 0.0
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if frame.pts is None:  # a stream without a container
                    frame.pts, frame.time_base = count, 1 / info.fps
                else:
                    frame.pts -= round(info.start / frame.time_base)
                count += 1
                end = max(end, frame.time)
                yield frame
        except av.error.FFmpegError as error:
            raise _damaged(path, count, error.strerror) from error
    _check_length(info, count, end)


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


def _check_length(info: VideoInfo, count: int, end: float) -> None:
    """Raise InputError where the last of `count` frames, at `end` seconds, comes too early.

    A file that was cut short often ends without an error of the decoder.
    """
    if count == 0:
        raise _damaged(info.path, count, "no frame could be decoded")
    if info.frames and count < info.frames - max(2, info.frames // 100):
        raise _damaged(info.path, count, f"its header announces {info.frames}")
    if info.seconds and end < 0.95 * info.seconds - 1:
        raise _damaged(info.path, count, f"{end:.1f} of {info.seconds:.1f} seconds")


def _damaged(path: Path, count: int, cause: str) -> InputError:
    return InputError(
        f"{path}: truncated or damaged after {count} frames ({cause}); "
        "copy or download it again, or re-encode it to use what is there"
    )


def list_pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder by the numbers in their names; of a picture, itself.

    Flow pictures, 0001_flow.png, belong to a frame and are left out. The list is empty for any
    other file. Raises InputError for a missing path and for a folder without pictures.
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


def read_picture(path: Path, mode: str = "RGB") -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, or (H, W) grey with mode "L".

    Raises InputError for a file that is damaged, no picture, or not of 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path}: not an 8-bit picture; convert it or make it again")
            return np.array(image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise InputError(
            f"{path}: the picture can't be read ({size} bytes); delete it or make it again"
        ) from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an equirectangular (H, W) or (H, W, C) image at another size.

    It is averaged over areas where it shrinks; where it grows it is interpolated bilinearly,
    across ±180°.
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
    """Return an (H, W, 3) uint8 picture as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 255


def read_flow(picture: Path, spec) -> Tensor | None:
    """Return the flow picture beside that of a frame, (3, H, W) in [0, 1]; None without one."""
    path = picture.with_name(picture.stem + FLOW)
    if path.is_file():
        return to_tensor(resize(read_picture(path), spec.height, spec.width))
    return None


class FrameReader(Iterator[Frame]):
    """The sampled frames of a source, one at a time; see read_frames.

    info: what is known about the source; step: each step-th frame is sampled; decoded: frames
    of the source that were read so far, sampled or not, in the end its length.
    """

    def __init__(self, path: str | Path, spec):
        self.info = probe(path)
        self.step = max(1, round(self.info.fps / Fraction(spec.fps)))
        self.decoded = 0
        self._frames = self._read(path, spec)

    def _read(self, path: str | Path, spec) -> Iterator[Frame]:
        motion, previous, start = MOTIONS[spec.motion](), None, 0.0
        pictures = list_pictures(Path(path))
        for frame in decode(path):
            self.decoded += 1
            if (self.decoded - 1) % self.step:
                continue
            start = frame.time if previous is None else start
            rgb = to_tensor(resize(frame.to_ndarray(format="rgb24"), spec.height, spec.width))
            moved = None
            if pictures and motion.channels == 3:
                moved = read_flow(pictures[self.decoded - 1], spec)
            moved = motion(previous, rgb) if moved is None else moved
            yield Frame(self.decoded, frame.time - start, rgb, moved)
            previous = rgb

    def __next__(self) -> Frame:
        return next(self._frames)


def read_frames(path: str | Path, spec) -> FrameReader:
    """Return an iterator of the frames of a source as a model with this spec takes them.

    path: a video file, a folder of pictures or one picture. spec: anything with height, width,
    fps and motion, such as models.base.Spec. Every round(source rate / spec.fps)-th frame is
    sampled, as SST-Sal's authors do; of a slower source, every frame. Where a folder holds flow
    pictures, models that take flow get these. Raises InputError for a source that can't be
    read, at once or when the damage is met.
    """
    return FrameReader(path, spec)
