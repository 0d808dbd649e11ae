"""Textured worlds for the background of rendered scenes.

A world is a function of directions: it takes rays, float32 unit vectors (N, 3) with x to the right,
y up and z forward (see `projection`), and a random generator, and returns the RGB colours in these
directions, (N, 3), in about [0, 1]. No world knows of an image, so the seam and the poles are
places like any other. Lengths are in metres, and the eye is EYE above the ground.
"""

import colorsys
import math
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator

from projection import directions

EYE = 1.6
GREENS = (0.08, 0.35)  # hues of plants and sand
MARGIN = 2  # texels that `smooth` adds beyond each edge of a texture
World = Callable[[np.ndarray, Generator], np.ndarray]


@cache
def lattice() -> torch.Tensor:
    """Return three fields of periodic fractal noise, mean 0 and variance 1: (3, 65, 65, 65).

    The first plane of each axis is repeated as its last, so that interpolation wraps around.
    """
    size = 64
    white = np.random.default_rng(0).standard_normal((3, size, size, size), dtype=np.float32)
    f = np.fft.fftfreq(size)
    frequency = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + np.fft.rfftfreq(size) ** 2)
    frequency[0, 0, 0] = np.inf
    fields = np.fft.irfftn(np.fft.rfftn(white, axes=(1, 2, 3)) * frequency**-1.65, axes=(1, 2, 3))
    fields = np.pad(fields / fields.std(), ((0, 0), (0, 1), (0, 1), (0, 1)), mode="wrap")
    return torch.from_numpy(fields.astype(np.float32))


def noise(points: np.ndarray, frequency: float, rng: Generator) -> np.ndarray:
    """Return three fields of fractal noise, mean 0 and variance 1, at points (N, 3): (3, N)."""
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * frequency
    voxels = (points @ turn.astype(np.float32) + rng.uniform(0, 64, 3).astype(np.float32)) % 64
    grid = torch.from_numpy((2 * voxels + 1) / 65 - 1).view(1, 1, 1, -1, 3)
    return F.grid_sample(lattice()[None], grid, align_corners=False).view(3, -1).numpy()


def colour(rng: Generator, saturation=(0.1, 0.7), value=(0.2, 0.9), hue=(0.0, 1.0)) -> np.ndarray:
    """Return a random RGB colour (3,) within ranges of saturation, value and hue in [0, 1].

    Pale colours are more frequent than saturated ones.
    """
    pale = saturation[0] + (saturation[1] - saturation[0]) * rng.random() ** 1.7
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, pale, rng.uniform(*value))
    return np.array(rgb, np.float32)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Mix colours a and b, each (3,), (N, 3) or one grey value.

    share: the share of b, in [0, 1], (N,) or one number.
    """
    share = np.asarray(share, np.float32)[..., None]
    return a + (b - a) * share


def step(value: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Return a smooth step from 0 to 1 that is `width` wide and centred on value 0."""
    t = np.clip(value / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


# Patterns of a surface: (s, t), its coordinates in cells, (N,) each → share of the second colour
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda s, t: np.zeros_like(s),
    "checker": lambda s, t: (np.floor(s) + np.floor(t)) % 2,
    "bricks": lambda s, t: ((s + np.floor(2 * t) % 2 / 2) % 1 < 0.05) | ((2 * t) % 1 < 0.1),
    "tiles": lambda s, t: (s % 1 < 0.05) | (t % 1 < 0.05),
    "planks": lambda s, t: (np.floor(4 * t) * 0.618 + np.floor(s / 3 + np.floor(4 * t) * 0.4)) % 1,
}


def surface(
    s: np.ndarray, t: np.ndarray, base: np.ndarray, rng: Generator, pattern: str | None = None
) -> np.ndarray:
    """Return the colours (N, 3) of a stained surface of base colour (3,).

    s, t: coordinates on the surface in metres, (N,) each. pattern: a key of PATTERNS; random if
    not given.
    """
    cells = PATTERNS[pattern or rng.choice(list(PATTERNS))]
    size, wear = rng.uniform(0.5, 1.6), rng.uniform(0.2, 1)
    points = np.stack([s, t, np.zeros_like(s)], axis=-1)
    stains, grain, _ = noise(points, rng.uniform(2, 6), rng)
    share = rng.uniform(0.2, 0.9) * cells(s / size, t / size) + 0.25 * wear * step(stains, 2)
    second = mix(base, colour(rng), rng.uniform(0.2, 0.8))
    return mix(base, second, share) * (1 + 0.08 * wear * grain)[:, None]


def on_ground(rays: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where rays meet the ground: coordinates s and t and distance in metres, (N,) each."""
    distance = EYE / np.maximum(-rays[:, 1], 0.01)
    turn = rng.uniform(0, 2 * math.pi)
    s = (rays[:, 0] * math.cos(turn) + rays[:, 2] * math.sin(turn)) * distance
    t = (rays[:, 2] * math.cos(turn) - rays[:, 0] * math.sin(turn)) * distance
    return s, t, distance


def meadow(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return grass or sand in directions below the horizon."""
    s, t, distance = on_ground(rays, rng)
    grass = colour(rng, (0.2, 0.5), (0.35, 0.7), GREENS)
    return mix(surface(s, t, grass, rng, "plain"), grass, 1 - np.exp(-distance / 20))


def street(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a paved square with a straight road across, in directions below the horizon."""
    s, t, distance = on_ground(rays, rng)
    stone = colour(rng, (0.02, 0.3), (0.35, 0.75))
    paving = surface(s, t, stone, rng)
    asphalt = surface(s, t, np.full(3, 0.3, np.float32), rng, "plain")
    line = (abs(s) < 0.08) & (t % 3 < 1.6) | (abs(abs(s) - 2.8) < 0.07)
    ground = mix(paving, mix(asphalt, np.float32(0.85), line), abs(s) < 3)
    return mix(ground, stone, 1 - np.exp(-distance / 20))


def sky(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a blue sky with clouds and a sun."""
    zenith = colour(rng, (0.4, 0.8), (0.4, 0.9), (0.55, 0.63))
    horizon = mix(zenith, colour(rng, (0.0, 0.35), (0.8, 1.0)), rng.uniform(0.5, 0.9))
    height = np.maximum(rays[:, 1], 0)
    layer = rays / np.maximum(rays[:, 1:2], 0.02)  # where the ray meets the layer of clouds
    a, b, _ = noise(layer / (1 + 0.1 * np.linalg.norm(layer, axis=1, keepdims=True)), 6, rng)
    clouds = step(a + 0.4 * b - rng.uniform(-0.3, 1.6), rng.uniform(0.5, 2))
    white = np.float32(rng.uniform(0.85, 1)) + 0.05 * b[:, None]
    sun = rng.standard_normal(3).astype(np.float32)
    sun[1] = abs(sun[1]) + 0.2
    glow = np.exp(rng.uniform(20, 200) * (rays @ (sun / np.linalg.norm(sun)) - 1))
    clear = mix(horizon, zenith, height ** rng.uniform(0.4, 1))
    return mix(clear, white, 0.9 * clouds * step(height - 0.08, 0.2)) + glow[:, None]


def hills(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return ridges of hills before the sky, the far ones pale."""
    colours = sky(rays, rng)
    altitude = np.arcsin(rays[:, 1].clip(-1, 1))
    around = rays * np.float32([1, 0, 1])
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-6)
    ridges = noise(around, rng.uniform(3, 12), rng)
    bushes = noise(rays, 30, rng)[0]
    for near, ridge in zip((0.5, 0.75, 1.0), ridges, strict=True):
        top = np.radians(rng.uniform(0, 12) * (1.3 - near) + 3 * ridge + near * bushes)
        slope = colour(rng, (0.2, 0.5), (0.2, 0.6), GREENS) * (1 + 0.2 * near * bushes)[:, None]
        colours = mix(colours, slope, near * step(top - altitude, 0.01))
    return colours


def houses(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return rows of houses with windows before the sky, the far ones pale."""
    colours = sky(rays, rng)
    altitude = np.arcsin(rays[:, 1].clip(-1, 1))
    turn = np.arctan2(rays[:, 0], rays[:, 2]) / (2 * math.pi) + 0.5
    for near in (0.4, 0.7, 1.0):
        count = int(rng.integers(14, 44))
        place = (turn + rng.random()) % 1 * count
        house = place.astype(int) % count
        top = np.radians(rng.uniform(3, 8 + 14 * rng.random(), count)).astype(np.float32)[house]
        walls = np.stack([colour(rng, (0.02, 0.5), (0.3, 0.85)) for _ in range(count)])[house]
        across, up = place % 1 * rng.integers(3, 8), altitude * rng.uniform(20, 45)
        window = (abs(across % 1 - 0.5) < 0.28) & (abs(up % 1 - 0.5) < 0.3)
        front = mix(walls, walls * 0.5, window & (altitude < top - 0.01))
        colours = mix(colours, front, near * (altitude < top))
    return colours


def join(rays: np.ndarray, rng: Generator, above: World, below: World) -> np.ndarray:
    """Return one view above the horizon and another below it."""
    up = rays[:, 1] > 0
    colours = np.empty_like(rays)
    colours[up], colours[~up] = above(rays[up], rng), below(rays[~up], rng)
    return colours


def outdoors(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return hills around a meadow."""
    return join(rays, rng, hills, meadow)


def city(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return houses around a square with a road."""
    return join(rays, rng, houses, street)


def room(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return the inside of a hall with windows in its walls and lamps on its ceiling."""
    low = -np.float32([rng.uniform(3, 8), EYE, rng.uniform(3, 8)])
    high = np.float32([rng.uniform(3, 8), rng.uniform(1.4, 3), rng.uniform(3, 8)])
    reach = np.where(rays > 0, high, -low) / np.maximum(abs(rays), 1e-6)
    axis = reach.argmin(axis=1)  # of the wall that a ray meets: 1 for floor and ceiling
    hit = rays * reach.min(axis=1, keepdims=True)
    x, y, z = hit.T
    plane = np.where(axis == 0, z, x), np.where(axis == 1, z, y)
    colours = surface(*plane, colour(rng, (0.02, 0.3), (0.5, 0.95)), rng, "plain")
    floor = (axis == 1) & (y < 0)
    colours[floor] = surface(x[floor], z[floor], colour(rng, (0.02, 0.4), (0.3, 0.9)), rng)
    gap = np.sort(np.minimum(high - hit, hit - low), axis=1)[:, 1]  # to the nearest edge
    colours *= (1 - 0.35 * np.exp(-3 * gap))[:, None]
    width, height, spacing = rng.uniform((0.5, 0.4, 2), (1, 0.7, 4))
    s, t = (abs(a % spacing - spacing / 2) for a in plane)
    lamp = (axis == 1) & ~floor & (s < 0.3) & (t < 0.3)
    depth = np.minimum(width - s, height - abs(y - 0.2))  # of a point inside a window
    window = (axis != 1) & (depth > -0.08)
    glass = window & (depth > 0)
    colours[lamp | window] = 0.95  # with the frame of the window
    colours[glass] = outdoors(rays[glass], rng)
    return colours


WORLDS: dict[str, World] = {"outdoors": outdoors, "city": city, "room": room}


def random_world(rng: Generator, height: int, width: int) -> np.ndarray:
    """Return one of the worlds as an equirectangular texture, RGB in [0, 1.2]: (H, W, 3)."""
    world = WORLDS[rng.choice(list(WORLDS))]
    rays = directions(height, width, torch.float32).reshape(-1, 3).numpy()
    return world(rays, rng).reshape(height, width, 3).clip(0, 1.2)


def smooth(texture: np.ndarray) -> np.ndarray:
    """Prepare an equirectangular texture (H, W, 3) for `look_up`: (H + 2·MARGIN, W + 2·MARGIN, 3).

    The texture goes on beyond the seam and the poles, and is blurred for pixels that cover 2×2
    texels.
    """
    turned = np.roll(texture, texture.shape[1] // 2, axis=1)
    rows = np.concatenate([turned[:MARGIN][::-1], texture, turned[-MARGIN:][::-1]])
    beyond = np.concatenate([rows[:, -MARGIN:], rows, rows[:, :MARGIN]], axis=1)
    return cv2.blur(beyond, (3, 3))


def look_up(texture: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, 3) that rays (H, W, 3) meet in a texture from `smooth`."""
    x, y, z = np.moveaxis(rays, -1, 0)
    height, width = (size - 2 * MARGIN for size in texture.shape[:2])
    column = (np.arctan2(x, z) + np.float32(math.pi)) * np.float32(width / (2 * math.pi))
    row = np.arctan2(np.hypot(x, z), y) * np.float32(height / math.pi)
    column, row = (a + np.float32(MARGIN - 0.5) for a in (column, row))
    return cv2.remap(texture, column, row, cv2.INTER_LINEAR)
