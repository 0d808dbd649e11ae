"""The frames of a clip as a model takes them: read, resized and given their motion images."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError
from datasets.layouts import File
from video.motion import MOTIONS, Motion
from video.pictures import read_picture, resize, to_tensor
from video.reader import Frame, sampling_step
from video.spec import Spec


def read_run(
    files: Sequence[File],
    spec: Spec,
    irregular: list[tuple[str, str]],
    unreadable: set[int],
    before: Sequence[File] = (),
    rate: Fraction | None = None,
) -> Iterator[Frame]:
    """Yield the frames of an unbroken run; for an unreadable one, the last readable one.

    irregular: problems are added to this list as (kind, file).
    unreadable: numbers of unreadable frames are added to this set.
    before: frames that precede `files` in the run, for the motion of the first one.
    rate: files a second, of which as many are yielded as the spec says; None: all of them are.
    """
    step = sampling_step(rate, spec.fps)
    times = [n / float(rate or spec.fps) for n in range(len(files))]
    kind = MOTIONS[spec.motion]
    previous = _last_readable(before, spec) if kind.channels else None
    for start in range(0, len(files), step):
        file, following = files[start], tuple(times[start : start + step])
        try:
            rgb = _read(file.picture, spec)
        except InputError as error:
            irregular.append(("unreadable frame", str(error)))
            unreadable.add(file.number)
            if previous is None:
                previous = _last_readable(before, spec)
            rgb = torch.zeros(3, spec.height, spec.width) if previous is None else previous
        motion = flow_picture(file, spec, irregular) if kind.from_pictures else None
        if motion is None:
            motion = motion_estimator(spec.motion)(previous, rgb)
        yield Frame(file.number, following[0], rgb, motion, following)
        if file.number not in unreadable:
            previous = rgb


def _last_readable(files: Sequence[File], spec: Spec) -> Tensor | None:
    for file in reversed(files):
        with suppress(InputError):  # named where the frame is part of a sample
            return _read(file.picture, spec)
    return None


def _read(path: Path, spec: Spec) -> Tensor:
    """Return RGB in [0, 1] at the size of the spec: (3, H, W)."""
    return to_tensor(resize(read_picture(path), spec.height, spec.width)).contiguous()


def flow_picture(file: File, spec: Spec, irregular: list[tuple[str, str]]) -> Tensor | None:
    """Return the flow picture of a frame at the size of the spec, (3, H, W); None without one."""
    try:
        return _read(file.flow, spec) if file.flow else None
    except InputError as error:
        irregular.append(("unreadable flow", str(error)))
        return None


def motion_estimator(name: str) -> Motion:
    """Return the estimator of a motion, made once in each thread of each process.

    OpenCV's optical flow can be neither shared between threads nor sent to another process.
    """
    return _estimator(name, threading.get_ident())


@cache
def _estimator(name: str, thread: int) -> Motion:
    return MOTIONS[name]()
