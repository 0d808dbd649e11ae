"""A virtual camera in a 360° video: a path that follows attention, and what is seen on it.

The path is planned as in Pano2Vid (Su, Jayaraman, Grauman, ACCV 2016): directions are scored by
what a view towards them shows, and a dynamic programme finds the best sequence of them that the
camera is fast enough for, which is then smoothed. Here the score is the share of the attention
that falls into the view, and moving has a price, so that the camera rests where that costs little.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from projection.perspective import Equi2Perspective, extent_of, samples_across, to_plane
from projection.sphere import (
    angles_of,
    column_of,
    direction_of,
    directions,
    orientation,
    row_of,
    solid_angles,
)
from video.layout import Layout
from video.yuv import Colour, mono, planes, to_yuv420p
from views.frames import FrameWithMap

SPACING = math.radians(7)  # of the directions that are compared
STEP = 3.1 * SPACING  # the longest way from one direction to the next
CELLS = 45, 90  # rows and columns to which maps are reduced
MOVE = 0.05  # price of moving by a radian: share of the attention times seconds
CUT = 1.0  # price of a cut, likewise
HOME = 0.005  # share of the attention that a radian away from straight ahead must add
HASTE = 0.85  # share of the largest speed that is planned with, as smoothing bends the path


def follow_path(
    maps: Iterable[np.ndarray],
    seconds: Sequence[float],
    fov: float = 90.0,
    size: tuple[int, int] = (720, 1280),
    cuts: bool = False,
    *,
    max_speed: float = 30.0,
    max_acceleration: float = 30.0,
    max_latitude: float = 60.0,
) -> np.ndarray:
    """Plan where a camera looks that follows attention over a whole clip.

    maps: (H, W) non-negative saliency of each frame, of any size and scale, read as a stream.
    seconds: when each frame is shown. fov, size: horizontal field of view in degrees, and (h, w) of
    the view, of which the ratio counts. cuts: whether the camera may jump; the limits then hold
    between jumps. max_speed: degrees a second along the sphere. max_acceleration: change of the
    angular velocity in degrees a second each second. max_latitude: in degrees, at most 75.

    Returns: longitude and latitude of each frame in degrees, (N, 2) float64. The longitude is
    unwrapped: it begins within ±180° and goes on beyond, so that it can be interpolated.
    Raises ValueError for maps that are negative, not finite or not as many as times, and for none.
    """
    if not 0 <= max_latitude <= 75 or not max_speed > 0 or not max_acceleration > 0:
        raise ValueError("max_latitude is from 0 to 75, max_speed and max_acceleration above 0")
    speed, acceleration = math.radians(max_speed), math.radians(max_acceleration)
    times, durations, turns, stretches = _turns(seconds, STEP / (HASTE * speed))
    places = _candidates(math.radians(max_latitude))
    attention = _attention(maps, durations, stretches)
    scores = attention @ _windows(places, extent_of(fov, *size)).T
    rays = direction_of(*places.T).numpy()
    angle = np.arccos((rays @ rays.T).clip(-1, 1)).astype(np.float32)
    home = HOME * np.arccos(rays[:, 2].clip(-1, 1))
    rewards = scores - np.bincount(stretches, durations)[:, None] * home
    chosen = _best_sequence(rewards, np.where(angle <= STEP, MOVE * angle, CUT if cuts else np.inf))
    jumps = np.flatnonzero(angle[chosen[:-1], chosen[1:]] > STEP) + 1
    path = []
    for shot in np.split(np.arange(len(turns)), jumps):
        at = times[(stretches >= shot[0]) & (stretches <= shot[-1])]
        knots = np.unwrap(places[chosen[shot]].numpy(), axis=0)
        path.append(_smooth(turns[shot], knots, at, speed, acceleration))
    return np.degrees(np.concatenate(path))


def _turns(
    seconds: Sequence[float], step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Divide a clip into stretches of time, in each of which the camera turns to one direction.

    step: the shortest time from one turn to the next, in seconds.
    Returns: times (N,) of the frames, never decreasing, and their durations; times (K,) of the
    turns, equally spaced from the beginning to the end except where no frame is near; the index
    (N,) of the turn that is nearest to each frame. A clip shorter than a step has one turn.
    """
    times = np.asarray(seconds, float)
    if not len(times):
        raise ValueError("there is no map to follow")
    if not np.isfinite(times).all():
        raise ValueError(f"the time of map {np.isfinite(times).argmin() + 1} is not finite")
    times = np.maximum.accumulate(times)
    last = times[-1] - times[-2] if times[0] < times[-1] else 1.0
    durations = np.diff(times, append=times[-1] + last)
    count = min(int(durations.sum() / step), len(times))
    turns = np.linspace(times[0], times[-1] + last, count + 1)
    if not count:
        turns = np.array([times[0] + durations.sum() / 2])
    borders = (turns[:-1] + turns[1:]) / 2
    used, stretches = np.unique(
        np.searchsorted(borders, times + durations / 2, "right"), return_inverse=True
    )
    return times, durations, turns[used], stretches


def _attention(
    maps: Iterable[np.ndarray], durations: np.ndarray, stretches: np.ndarray
) -> np.ndarray:
    """Return the attention in each of the CELLS, times seconds, summed over stretches: (K, cells).

    maps: (H, W) of each frame. durations, stretches: as _turns returns them.
    """
    attention = np.zeros((stretches[-1] + 1, CELLS[0] * CELLS[1]), np.float32)
    frames = zip(maps, durations, stretches, strict=True)
    for number, (saliency, duration, stretch) in enumerate(frames, 1):
        saliency = np.asarray(saliency, np.float32)
        if saliency.ndim != 2 or not saliency.min() >= 0 or not saliency.max() < 1e30:
            raise ValueError(f"map {number} is not (H, W), or negative or not finite somewhere")
        height, width = saliency.shape
        area = solid_angles(height, width, torch.float32).numpy()
        cells = cv2.resize(saliency * area, CELLS[::-1], interpolation=cv2.INTER_AREA).ravel()
        attention[stretch] += cells * (duration / (cells.sum() or 1))
    return attention


def _candidates(max_latitude: float) -> Tensor:
    """Return directions about SPACING apart: (D, 2) float64, longitude and latitude."""
    rings = math.ceil(max_latitude / SPACING)
    places = []
    for latitude in torch.linspace(-max_latitude, max_latitude, 2 * rings + 1, dtype=torch.float64):
        count = math.ceil(2 * math.pi * math.cos(latitude) / SPACING)
        longitude = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count
        longitude = torch.where(longitude < math.pi, longitude, longitude - 2 * math.pi)
        places.append(torch.stack([longitude, latitude.expand(count)], dim=-1))
    return torch.cat(places)


def _windows(places: Tensor, extent: tuple[float, float]) -> np.ndarray:
    """Return how much each of the CELLS counts in a view towards each direction: (D, cells).

    That is (1 − u²)(1 − v²) in the view, so that what attracts comes to its middle, and 0 outside.
    """
    cameras = torch.stack([orientation(*place) for place in places.tolist()])
    rays = directions(*CELLS, torch.float64).flatten(0, 1)
    u, v = to_plane(torch.einsum("nk,dkc->dnc", rays, cameras), extent)
    return ((1 - u**2).clamp(min=0) * (1 - v**2).clamp(min=0)).float().numpy()


def _best_sequence(rewards: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return the directions, (K,) indices, whose rewards (K, D) less prices (D, D) sum highest."""
    total, before = rewards[0], []
    for reward in rewards[1:]:
        values = total[:, None] - prices
        before.append(values.argmax(0).astype(np.int16))
        total = values.max(0) + reward
    chosen = [int(total.argmax())]
    for previous in reversed(before):
        chosen.append(int(previous[chosen[-1]]))
    return np.array(chosen[::-1])


def _smooth(
    times: np.ndarray, knots: np.ndarray, at: np.ndarray, speed: float, acceleration: float
) -> np.ndarray:
    """Return a path along knots (K, 2) at times (K,), smoothed until limits hold: (N, 2).

    It is the mean of the polyline over a window of time, which grows until the limits hold.
    at: (N,) times of the path. speed, acceleration: limits in radians a second.
    """
    width = 2 * speed / acceleration
    while True:
        path = _integral(times, knots, at + width / 2) - _integral(times, knots, at - width / 2)
        path /= width
        fastest, strongest = _motion(path, at)
        if (fastest <= speed and strongest <= acceleration) or width > 1e9:  # then it stands
            return path
        width *= 1.1


def _integral(times: np.ndarray, knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the integral over time, from the first knot on, of the polyline through knots.

    times: (K,), increasing. knots: (K, 2). Before the first and after the last, the line is level.
    Returns: (N, 2) for N times.
    """
    steps = np.diff(times)[:, None]
    slopes = np.concatenate([np.diff(knots, axis=0) / steps, np.zeros((1, 2))])
    areas = np.cumsum((knots[:-1] + knots[1:]) / 2 * steps, axis=0)
    areas = np.concatenate([np.zeros((1, 2)), areas])
    k = (np.searchsorted(times, at, "right") - 1).clip(0)
    since = (at - times[k])[:, None]
    return areas[k] + knots[k] * since + slopes[k] * since * since.clip(0) / 2


def _motion(path: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Return the largest speed and acceleration of a path (N, 2) at times (N,), in radians.

    The angular velocity between frames is along the great circle. Of frames within a tenth of a
    millisecond, only the first counts.
    """
    first = np.unique(np.round(times, 4), return_index=True)[1]
    times = times[first]
    rays = direction_of(*torch.from_numpy(path[first]).T).numpy()
    steps = np.diff(times)[:, None]
    turns = np.cross(rays[:-1], rays[1:])
    sines = np.linalg.norm(turns, axis=1, keepdims=True)
    angles = np.arctan2(sines, (rays[:-1] * rays[1:]).sum(1, keepdims=True))
    velocity = turns * (angles / np.maximum(sines, 1e-300)) / steps
    change = np.diff(velocity, axis=0) / ((steps[:-1] + steps[1:]) / 2)
    speed, acceleration = (np.linalg.norm(a, axis=1).max(initial=0) for a in (velocity, change))
    return speed, acceleration


def followed_views(
    frames: Iterable[FrameWithMap],
    path: Mapping[int, Sequence[float]],
    layout: Layout,
    fov: float,
    size: tuple[int, int],
) -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
    """Yield (view, frame): (3·h/2, w) uint8 yuv420p, of a camera that follows attention.

    path: longitude and latitude in degrees by the number of the frame. fov, size: as in Camera.
    """
    colour = camera = None
    for frame in frames:
        colour = colour or Colour.of(frame.image)
        panorama = mono(to_yuv420p(frame.image, colour), layout)
        camera = camera or Camera(fov, size, len(panorama) * 2 // 3, panorama.shape[1])
        yield camera(panorama, *path[frame.number]), frame.image


class Camera:
    """Takes the picture of a view out of the panoramas of a video.

    fov: horizontal field of view in degrees. size: (h, w) of the view, both even.
    height, width: of the panoramas, both even.

    Where a pixel of the view spans several of the panorama, it is the mean of as many samples, as
    in Equi2Perspective, but with OpenCV's interpolation in steps of 1/32 pixel, which is faster.
    """

    def __init__(self, fov: float, size: tuple[int, int], height: int, width: int):
        self.size = size
        self.samples = n = samples_across(extent_of(fov, *size), size[1], height, width)
        # Rays and panorama of luma and of chroma, which is half as large.
        self.parts = []
        for part in (1, 2):
            view = Equi2Perspective(fov, (size[0] * n // part, size[1] * n // part))
            self.parts.append((view.rays().float(), (height // part, width // part)))
        self.latitude, self.places = math.nan, []  # columns and rows that were last read

    def __call__(self, picture: np.ndarray, longitude: float, latitude: float) -> np.ndarray:
        """Return the view of a (3·H/2, W) uint8 yuv420p panorama: (3·h/2, w) yuv420p.

        longitude, latitude: degrees of its middle; the horizon is level.
        """
        if latitude != self.latitude:  # else the places move along the rows
            self.latitude, turn = latitude, orientation(0, math.radians(latitude)).float().T
            luma, chroma = (_places(rays @ turn, *size) for rays, size in self.parts)
            self.places = [luma, chroma, chroma]
        out = np.empty((self.size[0] * 3 // 2, self.size[1]), np.uint8)
        for plane, target, (column, row) in zip(planes(picture), planes(out), self.places):
            column = column + np.float32((longitude + 180) % 360 - 180) / 360 * plane.shape[1]
            view = cv2.remap(plane, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            target[:] = cv2.resize(view, target.shape[::-1], interpolation=cv2.INTER_AREA)
        return out


def _places(rays: Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and row (h, w) float32 of an H×W panorama along rays (h, w, 3)."""
    longitude, latitude = angles_of(rays)
    row = row_of(latitude, height).clamp(0, height - 1)
    return column_of(longitude, width).numpy(), row.numpy()
