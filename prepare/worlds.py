"""Textured worlds for rendered scenes: radiance as a function of direction.

A world takes rays, (N, 3) unit directions (x right, y up, z forward), and a random generator, and
returns the radiance seen along them, (N, 3) RGB in about [0, 1]. Nothing knows of an image, so
the seam and the poles are like any other place. Lengths are metres from an eye at 1.6 m.
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

MARGIN = 2  # texels of a world's texture repeated beyond each edge


@cache
def lattice() -> torch.Tensor:
    """Periodic fractal noise of variance 1, first plane repeated at the end: (3, 65, 65, 65)."""
    size = 64
    white = np.random.default_rng(0).standard_normal((3, size, size, size), dtype=np.float32)
    f = np.fft.fftfreq(size)
    radius = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + np.fft.rfftfreq(size) ** 2)
    radius[0, 0, 0] = np.inf
    noise = np.fft.irfftn(np.fft.rfftn(white, axes=(1, 2, 3)) * radius**-1.65, axes=(1, 2, 3))
    noise = np.pad(noise / noise.std(), ((0, 0), (0, 1), (0, 1), (0, 1)), mode="wrap")
    return torch.from_numpy(noise.astype(np.float32))


def noise(points: np.ndarray, frequency: float, rng: Generator) -> np.ndarray:
    """Three fields of fractal noise, mean 0 and variance 1, at points (N, 3): (3, N)."""
    field = lattice()
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * frequency
    voxels = (points @ turn.astype(np.float32) + rng.uniform(0, 64, 3).astype(np.float32)) % 64
    grid = torch.from_numpy((2 * voxels + 1) / 65 - 1).view(1, 1, 1, -1, 3)
    return F.grid_sample(field[None], grid, align_corners=False).view(3, -1).numpy()


def colour(rng: Generator, saturation=(0.1, 0.7), value=(0.2, 0.9), hue=(0.0, 1.0)) -> np.ndarray:
    """A random RGB colour in [0, 1] within ranges of hue, saturation and value: (3,)."""
    muted = saturation[0] + (saturation[1] - saturation[0]) * rng.random() ** 1.7
    hsv = rng.uniform(*hue) % 1, muted, rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Colours a and b, each (3,) or (N, 3), mixed by the share of b, a number or (N,)."""
    share = np.asarray(share, np.float32)[..., None]
    return a + (b - a) * share


def step(value: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Smooth step from 0 to 1 over `width`, centred on value 0."""
    t = np.clip(value / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


# Patterns of a plane with coordinates s and t, in cells: values in [0, 1]
PATTERNS: dict[str, Callable] = {
    "plain": lambda s, t: np.zeros_like(s),
    "checker": lambda s, t: (np.floor(s) + np.floor(t)) % 2,
    "stripes": lambda s, t: np.floor(2 * s) % 2,
    "bricks": lambda s, t: ((s + np.floor(2 * t) % 2 / 2) % 1 < 0.07) | ((2 * t) % 1 < 0.13),
    "tiles": lambda s, t: (s % 1 < 0.05) | (t % 1 < 0.05),
    "planks": lambda s, t: (np.floor(4 * t) * 0.618 + np.floor(s / 3 + np.floor(4 * t) * 0.4)) % 1,
    "dots": lambda s, t: (s % 1 - 0.5) ** 2 + (t % 1 - 0.5) ** 2 < 0.06,
}


def plane(s: np.ndarray, t: np.ndarray, colours: np.ndarray, rng: Generator) -> np.ndarray:
    """A patterned, grainy surface of two colours (2, 3) at plane coordinates in metres: (N, 3)."""
    pattern = PATTERNS[rng.choice(list(PATTERNS))]
    cell = rng.uniform(0.4, 1.6)
    value = pattern(s / cell, t / cell) * rng.uniform(0.15, 0.9)
    points = np.stack([s, t, np.zeros_like(s)], axis=-1)
    coarse, fine = noise(points, 2, rng)[0], noise(points, rng.uniform(8, 40), rng)[0]
    grain = 1 + rng.uniform(0.02, 0.1) * coarse + rng.uniform(0.02, 0.14) * fine
    return mix(colours[0], colours[1], value) * grain[:, None]


# Worlds: (rays (N, 3), rng) → radiance (N, 3)


def sky(rays: np.ndarray, rng: Generator) -> np.ndarray:
    zenith = colour(rng, (0.3, 0.8), (0.4, 0.9), (0.52, 0.68))
    horizon = mix(zenith, colour(rng, (0.0, 0.35), (0.8, 1.0)), rng.uniform(0.5, 1))
    height = np.maximum(rays[:, 1], 0)
    radiance = mix(horizon, zenith, height ** rng.uniform(0.4, 1))
    layer = rays / np.maximum(rays[:, 1:2], 0.02)  # where the ray meets the layer of clouds
    a, b, _ = noise(layer / (1 + 0.1 * np.linalg.norm(layer, axis=1, keepdims=True)), 6, rng)
    clouds = step(a + 0.4 * b - rng.uniform(-0.6, 1.6), rng.uniform(0.5, 2)) * step(
        height - 0.08, 0.2
    )
    radiance = mix(radiance, colour(rng, (0, 0.1), (0.75, 1)) + 0.05 * b[:, None], 0.9 * clouds)
    sun = rng.standard_normal(3).astype(np.float32)
    sun[1] = abs(sun[1]) + 0.2
    return (
        radiance + np.exp(rng.uniform(20, 200) * (rays @ (sun / np.linalg.norm(sun)) - 1))[:, None]
    )


def ground(rays: np.ndarray, rng: Generator, hue=(0.0, 1.0)) -> np.ndarray:
    """What lies below the horizon, fading into haze with distance."""
    distance = 1.6 / np.maximum(-rays[:, 1], 0.01)
    turn = rng.uniform(0, 2 * math.pi)
    s = (rays[:, 0] * math.cos(turn) + rays[:, 2] * math.sin(turn)) * distance
    t = (rays[:, 2] * math.cos(turn) - rays[:, 0] * math.sin(turn)) * distance
    first = colour(rng, (0.05, 0.5), (0.25, 0.75), hue)
    second = mix(first, colour(rng, (0, 0.4), (0.1, 0.95)), rng.uniform(0.1, 0.8))
    haze = mix(first, second, 0.4)
    near = plane(s, t, np.stack([first, second]), rng)
    if rng.random() < 0.3:  # a road with a dashed middle line
        a, b, _ = noise(rays * distance[:, None], 5, rng)
        asphalt = rng.uniform(0.2, 0.45) * (1 + 0.1 * a + 0.1 * b)[:, None] * np.ones(3, np.float32)
        line = (abs(s) < 0.08) & (t % 3 < 1.6) | (abs(abs(s) - 2.8) < 0.07)
        road = mix(asphalt, np.full(3, 0.85, np.float32), line.astype(np.float32))
        near = mix(near, road, abs(s) < 3)
    return mix(near, haze, 1 - np.exp(-distance / rng.uniform(8, 30)))


def skyline(rays: np.ndarray, radiance: np.ndarray, rng: Generator, glow: float) -> np.ndarray:
    """Rows of buildings with windows around the horizon; `glow` is the share of lit windows."""
    turn = np.arctan2(rays[:, 0], rays[:, 2]) / (2 * math.pi) + 0.5
    altitude = np.arcsin(np.clip(rays[:, 1], -1, 1))
    for _ in range(rng.integers(1, 4)):
        count = int(rng.integers(14, 44))
        place = (turn + rng.random()) % 1 * count
        house = place.astype(int) % count
        top = np.radians(rng.uniform(2, rng.uniform(8, 30), count)).astype(np.float32)
        walls = np.stack([colour(rng, (0.02, 0.5), (0.25, 0.85)) for _ in range(count)])
        walls *= 1 - 0.7 * glow
        across, up = (place % 1) * int(rng.integers(3, 8)), altitude * rng.uniform(20, 45) + 50
        window = (abs(across % 1 - 0.5) < 0.28) & (abs(up % 1 - 0.5) < 0.3)
        lit = (house * 0.37 + np.floor(across) * 0.618 + np.floor(up) * 0.757) % 1 < glow
        glass = mix(walls[house] * rng.uniform(0.4, 0.8), np.float32([1, 0.85, 0.5]), lit)
        front = mix(walls[house], glass, window & (altitude < top[house] - 0.01))
        seen = (altitude < top[house]) & (altitude > -0.04)
        radiance = mix(radiance, front, seen)
    return radiance


def hills(rays: np.ndarray, radiance: np.ndarray, rng: Generator, hue=(0.0, 1.0)) -> np.ndarray:
    """Ridges around the horizon, the far ones pale; high frequencies make tree tops."""
    flat = rays * np.float32([1, 0, 1])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    count = int(rng.integers(1, 4))
    for layer in range(count):
        near = (layer + 1) / count
        a, b, c = noise(flat, rng.uniform(3, 12), rng)
        top = np.radians(rng.uniform(2, 12) + 4 * a + 1.5 * b * c)
        leaves = noise(rays, rng.uniform(10, 30), rng)[0]
        slope = (
            colour(rng, (0.1, 0.6), (0.2, 0.6), hue) * (1 + rng.uniform(0, 0.3) * leaves)[:, None]
        )
        slope = mix(radiance, slope, 0.4 + 0.6 * near)
        seen = step(top - np.arcsin(np.clip(rays[:, 1], -1, 1)), 0.01)
        radiance = mix(radiance, slope, seen * (rays[:, 1] > -0.06))
    return radiance


def outdoors(rays: np.ndarray, rng: Generator, hue=(0.08, 0.4)) -> np.ndarray:
    above = hills(rays, sky(rays, rng), rng, hue)
    return mix(above, ground(rays, rng, hue), step(-rays[:, 1], 0.01))


def city(rays: np.ndarray, rng: Generator) -> np.ndarray:
    above = skyline(rays, sky(rays, rng), rng, glow=rng.uniform(0, 0.1))
    return mix(above, ground(rays, rng), step(-rays[:, 1] - 0.03, 0.01))


def night(rays: np.ndarray, rng: Generator) -> np.ndarray:
    a, b, c = noise(rays, 30, rng)
    dusk = mix(
        colour(rng, (0.3, 0.8), (0.02, 0.12)),
        colour(rng, (0.3, 0.8), (0.1, 0.4)),
        np.exp(-6 * abs(rays[:, 1])),
    )
    stars = step(a + b + c - 4.2, 0.5)
    above = skyline(rays, dusk + 0.8 * stars[:, None], rng, glow=rng.uniform(0.2, 0.6))
    pools = 0.15 + 0.35 * step(noise(rays, 3, rng)[0] - 0.5, 2)
    return mix(above, ground(rays, rng) * pools[:, None], step(-rays[:, 1] - 0.03, 0.01))


def forest(rays: np.ndarray, rng: Generator) -> np.ndarray:
    leaves = noise(rays, rng.uniform(8, 20), rng)
    green = colour(rng, (0.3, 0.8), (0.25, 0.6), (0.15, 0.42))
    crowns = mix(green * 0.5, green * 1.3, step(leaves[0], 2))
    above = mix(crowns, sky(rays, rng), step(leaves[1] + rays[:, 1] - rng.uniform(0.3, 1.2), 0.3))
    turn = np.arctan2(rays[:, 0], rays[:, 2]) / (2 * math.pi) + 0.5
    for count in (61, 37, 19):
        place = (turn + 0.02 * rays[:, 1] * rng.standard_normal() + rng.random()) % 1 * count
        trunk = place.astype(int) % count
        width = (rng.uniform(0.04, 0.25, count) * (rng.random(count) < 0.7))[trunk]
        offset = (place % 1 - rng.uniform(0.3, 0.7, count)[trunk]) / np.maximum(width, 1e-3)
        bark = colour(rng, (0.1, 0.5), (0.15, 0.5), (0.04, 0.12)) * (1 + 0.25 * leaves[2])[:, None]
        seen = (abs(offset) < 1) & (rays[:, 1] > -0.1) & (rays[:, 1] < 0.9)
        above = mix(above, bark * (1 - 0.4 * offset[:, None]), seen)
    canopy = step(leaves[2] + rng.uniform(1, 5) * (rays[:, 1] - rng.uniform(0.2, 0.7)), 0.3)
    above = mix(above, crowns * rng.uniform(0.7, 1.2), canopy)
    return mix(above, ground(rays, rng, (0.06, 0.35)), step(-rays[:, 1] - 0.05, 0.04))


def room(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """The inside of a box with windows and pictures on its walls and lamps on its ceiling."""
    size = np.float32([rng.uniform(1.5, 5), rng.uniform(1.2, 2.5), rng.uniform(1.5, 5)])
    distance = size / np.maximum(abs(rays), 1e-6)
    axis = distance.argmin(axis=1)
    hit = rays * distance.min(axis=1, keepdims=True)
    wall = colour(rng, (0.02, 0.5), (0.4, 0.95))
    radiance = np.empty_like(rays)
    outside = sky(rays, rng)
    for side in range(6):
        on = (axis == side // 2) & ((rays[np.arange(len(rays)), axis] > 0) == side % 2)
        s, t = np.delete(hit[on], side // 2, axis=1).T
        if side // 2 == 0:
            s, t = t, s  # t is the height on every wall
        first = colour(rng, (0.02, 0.4), (0.3, 0.95)) if side // 2 == 1 else wall
        second = mix(first, colour(rng), rng.uniform(0.05, 0.7))
        panel = plane(s, t, np.stack([first, second]), rng)
        lamps = side == 3
        for _ in range(rng.integers(0, 4)):
            extent = rng.uniform(0.2, 0.9, 2) * (0.5 if lamps else 1)
            centre = rng.uniform(-1, 1, 2) * (size[[0, 2]] if lamps else [1.5, 0.4])
            depth = np.maximum(abs(s - centre[0]) - extent[0], abs(t - centre[1]) - extent[1])
            art = mix(colour(rng), colour(rng), step(noise(hit[on], 8, rng)[0], 1))
            pane = (
                np.float32([1, 0.98, 0.9])
                if lamps
                else (outside[on] if rng.random() < 0.5 else art)
            )
            panel = mix(panel, mix(colour(rng, (0, 0.4)), pane, depth < -0.06), depth < 0)
        corner = np.sort(size - abs(hit[on]), axis=1)[:, 1]
        radiance[on] = panel * (rng.uniform(0.75, 1.1) * (1 - 0.35 * np.exp(-3 * corner)))[:, None]
    return radiance


def studio(rays: np.ndarray, rng: Generator) -> np.ndarray:
    backdrop = mix(
        colour(rng, (0, 0.6)), colour(rng, (0, 0.6)), step(rays[:, 1], rng.uniform(0.2, 2))
    )
    return backdrop * (1 + 0.05 * noise(rays, 3, rng)[0])[:, None]


def clouds(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """No place at all: three colours of noise, as under water or in smoke."""
    a, b, c = noise(rays, rng.uniform(2, 15), rng)
    base = mix(colour(rng), colour(rng), step(a, 3))
    return mix(base, colour(rng), step(b - 1, rng.uniform(0.3, 2))) * (1 + 0.1 * c)[:, None]


# Each with its share of the scenes
WORLDS: dict[str, tuple[Callable[[np.ndarray, Generator], np.ndarray], float]] = {
    "outdoors": (outdoors, 3),
    "city": (city, 3),
    "room": (room, 4),
    "forest": (forest, 2),
    "night": (night, 1),
    "studio": (studio, 1),
    "clouds": (clouds, 1),
}


def random_world(rng: Generator, height: int, width: int) -> np.ndarray:
    """One of the worlds as an equirectangular texture: (H, W, 3) in [0, 1.2]."""
    share = np.array([share for _, share in WORLDS.values()])
    world, _ = WORLDS[rng.choice(list(WORLDS), p=share / share.sum())]
    rays = directions(height, width, torch.float32).reshape(-1, 3).numpy()
    return world(rays, rng).reshape(height, width, 3).clip(0, 1.2)


def beyond(texture: np.ndarray) -> np.ndarray:
    """An equirectangular image that goes on beyond the seam and the poles by MARGIN pixels."""
    turned = np.roll(texture, texture.shape[1] // 2, axis=1)
    rows = np.concatenate([turned[:MARGIN][::-1], texture, turned[-MARGIN:][::-1]])
    return np.concatenate([rows[:, -MARGIN:], rows, rows[:, :MARGIN]], axis=1)


def smooth(texture: np.ndarray) -> np.ndarray:
    """What `look_up` takes: the texture and its margin, for pixels that cover 2×2 texels."""
    return cv2.blur(beyond(texture), (3, 3))


def look_up(texture: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """The colours (H, W, 3) of a smooth texture along rays (H, W, 3)."""
    x, y, z = np.moveaxis(rays, -1, 0)
    height, width = (size - 2 * MARGIN for size in texture.shape[:2])
    column = (np.arctan2(x, z) + np.float32(math.pi)) * np.float32(width / (2 * math.pi))
    row = np.arctan2(np.hypot(x, z), y) * np.float32(height / math.pi)
    column, row = (a + np.float32(MARGIN - 0.5) for a in (column, row))
    return cv2.remap(texture, column, row, cv2.INTER_LINEAR)
