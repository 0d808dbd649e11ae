"""Planner of a path that follows attention, for the virtual camera of views.camera.

The targets are peaks of attention above the clip's mean map. The path consists of shots: the camera
starts at the strongest attention; it turns, then holds a direction or pans slowly. The planner is
rewarded for peaks in view, and a little for all attention in view. The reward of a peak fades while
it is seen and recovers later (inhibition of return: Itti, Koch and Niebur, 1998). Peaks at the
lower edge, where a person would be cut off, and views without a strong peak are penalised. Since
rewards depend on earlier views, the shots are found by beam search.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from projection.perspective import extent_of, to_plane
from projection.sphere import directions, orientation, solid_angles

SPEED, ACCELERATION = 30, 30  # limits on the sphere, degrees a second and a second squared
MAX_LATITUDE = 60  # degrees
MAX_FRAME_DURATION = 5.0  # seconds for which a frame counts at most
LOWER_EDGE = 0.6  # in half heights below the centre; a face further down is without a body
CUT_OFF_PRICE = 0.5  # of a peak at the lower edge, as a share of its reward elsewhere
CELLS = 30, 60  # rows and columns to which maps are reduced
COLUMNS = 36  # candidate longitudes; candidate latitudes have about the same spacing
MEAN_SUBTRACTION = 0.8  # share of the mean map; less than 1 for clips that never change
MIN_PEAK = 0.2  # smallest height of a peak, as a share of the clip's highest
MIN_ATTENTION = 0.3  # smallest height of a strong peak, as a share of the highest in a second
AROUND = math.radians(12)  # radius in which a peak is the only one, and in which it fades
FADING = 1.75  # seconds in view after which the reward of a peak has faded to 1/e
RECOVERY = 30.0  # seconds after which a faded reward is back to 1 − 1/e
TOTAL_REWARD = 0.07  # a second, for the view with most attention; a new peak has up to 1
HOLD = 3  # smallest number of seconds for which a view is held
EMPTY_PRICE = 0.5  # of a second in which a view without a strong peak is held
MIN_WINDOW = 0.1  # smallest weight of a peak that counts as in view
TURN_PRICE, CUT_SECONDS = 0.02, 10  # price of a second of turning; a cut costs as much as 10
MIN_TURN, MIN_CUT = math.radians(30), math.radians(60)  # smallest angles of a turn and a cut
PANS = -1, -0.5, 0.5, 1  # speeds as shares of the fastest pan
PAN_SHARE, TURN_SHARE = 0.4, 0.8  # of the reward during the fastest pan and during a turn
SECTORS, BEAM_WIDTH = 4, 4  # sectors of the horizon, and plans that are continued
TAU = 2 * math.pi


class Shot(NamedTuple):
    """A turn from second `start` to second `arrival` (a cut if equal), then a hold or slow pan.

    place: longitude and latitude at the arrival in radians. pan: radians of longitude a second.
    """

    start: int
    arrival: int
    place: np.ndarray
    pan: float

    def held(self, time: np.ndarray | int) -> np.ndarray:
        """Return the directions (..., 2) of the hold or pan at times (...)."""
        return self.place + np.multiply.outer(time - self.arrival, (self.pan, 0))


Plan = tuple[float, tuple[Shot, ...], np.ndarray]  # reward, shots, freshness of each cell


def follow_path(
    maps: Iterable[np.ndarray],
    seconds: Sequence[float],
    fov: float = 90.0,
    size: tuple[int, int] = (720, 1280),
    cuts: bool = False,
) -> np.ndarray:
    """Plan the directions of a camera that follows attention through a whole clip.

    maps: (H, W) non-negative saliency of each frame, of any size and scale, read as a stream.
    seconds: time of each frame. fov, size: horizontal field of view in degrees, and (h, w) of the
    view, for its aspect ratio. cuts: whether the camera may jump.

    Returns: longitude (unwrapped, starting within ±180) and latitude in degrees, (N, 2) float64.
    Raises ValueError for no maps, for a different number of maps and times, and for invalid maps.
    """
    clock = _clock(seconds)
    planner = _Planner(_attention(maps, clock), extent_of(fov, *size), cuts)
    return np.degrees(_path(planner.shots(), clock[:-1]))


def _clock(seconds: Sequence[float]) -> np.ndarray:
    """Return the start of each frame and the end of the last one in seconds, from 0: (N + 1,)."""
    times = np.asarray(seconds, float)
    if not (len(times) and np.isfinite(times).all()):
        raise ValueError("there are no maps to follow, or a time is not finite")
    times = np.maximum.accumulate(times)
    last = times[-1] - times[-2] if times[0] < times[-1] else 1.0
    return np.append(0, np.cumsum(np.append(np.diff(times), last).clip(max=MAX_FRAME_DURATION)))


def _attention(maps: Iterable[np.ndarray], clock: np.ndarray) -> np.ndarray:
    """Return the share of attention in each of the CELLS for each second: (K, cells) float32."""
    area = solid_angles(*CELLS, torch.float32).numpy()
    attention = np.zeros((math.ceil(clock[-1]), CELLS[0] * CELLS[1]), np.float32)
    frames = zip(maps, clock[:-1], clock[1:], strict=True)
    for number, (saliency, start, end) in enumerate(frames, 1):
        saliency = np.asarray(saliency, np.float32)
        if saliency.ndim != 2 or not saliency.min() >= 0 or not saliency.max() < 1e30:
            raise ValueError(f"map {number} is not (H, W), or has negative or non-finite values")
        cells = cv2.resize(saliency, CELLS[::-1], interpolation=cv2.INTER_AREA) * area
        for second in range(int(start), math.ceil(end)):
            inside = min(end, second + 1) - max(start, second)
            attention[second] += cells.ravel() * (inside / (cells.sum() or 1))
    return attention / np.maximum(attention.sum(1, keepdims=True), 1e-9)


class _Planner:
    """Find the shots of a camera, in radians. attention: (K, cells). extent: of a view."""

    def __init__(self, attention: np.ndarray, extent: tuple[float, float], cuts: bool):
        highest, speed, self.acceleration = np.radians((MAX_LATITUDE, SPEED, ACCELERATION))
        self.speed, self.cuts = min(speed, 0.9 * self.acceleration**0.5), cuts
        self.fastest = min(0.53 * self.speed, 0.5 * self.acceleration**0.5)  # a turn catches up
        latitude = np.linspace(-highest, highest, 2 * math.ceil(highest / TAU * COLUMNS) + 1)
        longitude = TAU / COLUMNS * (np.arange(COLUMNS) - COLUMNS // 2)
        self.places = np.stack(np.meshgrid(longitude, latitude), axis=-1)  # (R, C, 2)
        # Weight of each cell in a view towards each place, small at its edges: (R·C, cells)
        cameras = torch.stack([orientation(*p) for p in self.places.reshape(-1, 2).tolist()])
        rays = directions(*CELLS, torch.float64).flatten(0, 1)
        u, v = to_plane(torch.einsum("nk,dkc->dnc", rays, cameras), extent)
        across, down = (1 - u**2).clamp(min=0), (1 - v**2).clamp(min=0)
        at_edge = abs(v - 1) < 1 - LOWER_EDGE  # also just below the view
        self.framing = (across * torch.where(at_edge, -CUT_OFF_PRICE, down)).float().numpy()
        self.windows = self.framing.clip(0)
        area = solid_angles(*CELLS, torch.float32).expand(CELLS).numpy().ravel()
        even = 1.001 / (2 * TAU)  # density of uniform attention
        usual = (attention - even * area).clip(0) @ self.windows.T
        self.usual = TOTAL_REWARD / (usual.max(1).mean() or 1) * usual  # (K, R·C)
        strongest = usual[:HOLD].mean(0) - 1e-6 * np.linalg.norm(self.places, axis=-1).ravel()
        self.beginning = self.places.reshape(-1, 2)[strongest.argmax()]
        # Peaks are above the mean map and above a uniform share of the rest.
        density = attention / area
        above = density - MEAN_SUBTRACTION * density.mean(0) - (1 - MEAN_SUBTRACTION) * even
        least = max(MIN_PEAK * above.max(), 1e-9)
        self.near = (rays @ rays.T > math.cos(AROUND)).numpy()
        self.peaks = []  # for each second, the cells of peaks and their rewards when new
        self.empty = np.zeros(usual.shape, bool)  # whether a view has no strong peak: (K, R·C)
        for values, new, empty in zip(density, above, self.empty):
            cells = self.maxima(new, least)
            self.peaks.append((cells, np.sqrt(values[cells] / values.max())))
            if values.max() > even:
                strong = self.maxima(values, MIN_ATTENTION * values.max())
                empty[:] = self.windows[:, strong].max(1) < MIN_WINDOW

    def maxima(self, values: np.ndarray, least: float) -> np.ndarray:
        """Return the cells with values of at least `least` that are the maximum AROUND."""
        high = np.flatnonzero(values >= least)
        return high[values[high] >= np.where(self.near[high], values, 0).max(1, initial=0)]

    def shots(self) -> tuple[Shot, ...]:
        """Return the best shots found."""
        length = len(self.peaks)
        plans: list[dict[int, Plan]] = [{} for _ in range(length + 1)]  # by last view
        plans[0][0] = 0.0, (Shot(0, 0, self.beginning, 0.0),), np.ones(len(self.near))
        for now in range(length):
            best, plans[now] = sorted(plans[now].values(), key=lambda plan: -plan[0]), {}
            for plan in best[:BEAM_WIDTH]:
                for shot in [plan[1][-1], *(self.options(plan, now) if now else ())]:
                    end = min(max(now + 1, shot.arrival + HOLD), length)
                    view = int(self.views(shot.held(end)))
                    longer = self.extended(plan, shot, now, end)
                    if view not in plans[end] or plans[end][view][0] < longer[0]:
                        plans[end][view] = longer
        return max(plans[-1].values(), key=lambda plan: plan[0])[1]

    def views(self, path: np.ndarray) -> np.ndarray:
        """Return the indices (...) of the places nearest to directions (..., 2)."""
        row = abs(path[..., 1, None] - self.places[:, 0, 1]).argmin(-1)
        column = np.rint((path[..., 0] / TAU + 0.5) * COLUMNS).astype(int)
        return row * COLUMNS + column % COLUMNS

    def earned(self, second: int, fresh: np.ndarray, view: int | slice = slice(None)) -> np.ndarray:
        """Return the reward of one view in a second, (), or of all views, (R·C,)."""
        cells, worth = self.peaks[second]
        return self.usual[second, view] + self.framing[view, cells] @ (worth * fresh[cells])

    def extended(self, plan: Plan, shot: Shot, now: int, end: int) -> Plan:
        """Return a plan that is continued from `now` to `end` with a new shot or its last one."""
        earned, (*_, last), fresh = plan
        if shot is not last and now:
            earned -= TURN_PRICE * (shot.arrival - now or CUT_SECONDS)
        steady = 1 - (1 - PAN_SHARE) * abs(shot.pan) / self.fastest
        views = self.views(_path([last, shot], np.arange(now, end)))
        for second, view in zip(range(now, end), views.tolist()):
            share = TURN_SHARE if second < shot.arrival else steady
            earned += share * float(self.earned(second, fresh, view))
            earned -= EMPTY_PRICE * (second >= shot.arrival and self.empty[second, view])
            cells = self.peaks[second][0]
            seen = self.windows[view, cells] @ self.near[cells]
            fresh = (1 - (1 - fresh) * math.exp(-1 / RECOVERY)) * np.exp(-share * seen / FADING)
        return earned, plan[1] if shot is last else (*plan[1], shot), fresh

    def options(self, plan: Plan, now: int) -> Iterator[Shot]:
        """Yield the best next shot to each sector and with each pan, by reward per second."""
        _, (*_, last), fresh = plan
        way = self.places - last.held(now)
        way[..., 0] -= TAU * np.rint(way[..., 0] / TAU)
        angle = np.hypot(way[..., 0] * np.cos(self.places[..., 1] - way[..., 1] / 2), way[..., 1])
        # Shortest durations of a turn from rest to rest, cubic in time, within the limits.
        needed = np.maximum(1.5 * angle / self.speed, np.sqrt(6 * angle / self.acceleration))
        needed = np.ceil(needed).clip(min=1).astype(int)
        if self.cuts:
            needed[angle > MIN_CUT] = 0
        seen = np.zeros((1 + needed.max() + HOLD, *needed.shape))
        for second in range(now, min(now + len(seen) - 1, len(self.peaks))):
            earned = self.earned(second, fresh) - EMPTY_PRICE * self.empty[second]
            seen[1 + second - now] = earned.reshape(needed.shape)
        every, seconds = np.arange(COLUMNS), np.arange(len(seen))[:, None, None] - 1
        sectors = [(0, sector) for sector in np.split(every, SECTORS)]
        for part, sector in [*sectors, *((part, every) for part in PANS)]:
            pan, start = part * self.fastest, needed[None, :, sector]
            columns = sector + np.rint(pan * COLUMNS / TAU * seconds).astype(int)
            total = np.cumsum(np.take_along_axis(seen, columns % COLUMNS, 2), axis=0)
            shown = (np.take_along_axis(total, n, 0)[0] for n in (start + HOLD, start))
            value = np.subtract(*shown) / (start[0] + HOLD) - 1e-6 * angle[:, sector]
            value[angle[:, sector] < (0 if part else MIN_TURN)] = -1
            row, column = np.unravel_index(value.argmax(), value.shape)
            length, way_there = int(start[0, row, column]), way[row, sector[column]]
            while length and not self.keeps_limits(way_there, last, pan, length):
                length += 1
            yield Shot(now, now + length, last.held(now) + way_there + (pan * length, 0), pan)

    def keeps_limits(self, way: np.ndarray, last: Shot, pan: float, length: int) -> bool:
        """Return whether a turn by `way` (2,) after the last shot keeps the limits."""
        x, pans = np.linspace(0, 1, 17)[:, None], np.array([[last.pan, 0], [pan, 0]])
        offset = way / length + pans[1] - pans.mean(0)
        velocity = (1 - x) * pans[0] + x * pans[1] + 6 * x * (1 - x) * offset
        change = (pans[1] - pans[0] + 6 * (1 - 2 * x) * offset) / length
        speed, change = np.linalg.norm(velocity, axis=1), np.linalg.norm(change, axis=1)
        # On the sphere, motion along longitude is curved: by at most its squared speed.
        return bool((speed <= self.speed).all() and (change + speed**2 <= self.acceleration).all())


def _path(shots: Sequence[Shot], times: np.ndarray) -> np.ndarray:
    """Return longitude and latitude (N, 2) in radians at times (N,). Turns are cubic in time."""
    path = np.empty((len(times), 2))
    for last, shot in zip([shots[0], *shots], shots):
        path[times >= shot.start] = shot.held(times[times >= shot.start])
        turning = (times >= shot.start) & (times < shot.arrival)
        begin, length = last.held(shot.start), max(1, shot.arrival - shot.start)
        x = (times[turning, None] - shot.start) / length
        path[turning] = begin + (shot.place - begin) * x**2 * (3 - 2 * x)
        path[turning, :1] += length * x * (1 - x) * (last.pan * (1 - x) - shot.pan * x)
    return path
