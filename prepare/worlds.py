"""Textured worlds for the background of rendered scenes.

A world is a function of rays, float32 unit vectors (N, 3) as in `projection`, and a random
generator that returns their RGB colours, (N, 3), in about [0, 1]. The camera is EYE_HEIGHT metres
above the ground.
"""

import colorsys
import math
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator

from projection import directions

EYE_HEIGHT = 1.6
GREEN_HUES = (0.08, 0.35)  # hues of plants and sand


@cache
def lattice() -> torch.Tensor:
    """Return a cube of fractal noise with mean 0 and variance 1: (1, 1, 64, 64, 64)."""
    size = 64
    white = np.random.default_rng(0).standard_normal((size, size, size))
    f = np.fft.fftfreq(size)
    frequency = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + np.fft.rfftfreq(size) ** 2)
    frequency[0, 0, 0] = np.inf
    field = np.fft.irfftn(np.fft.rfftn(white) * frequency**-1.65)
    return torch.from_numpy((field / field.std()).astype(np.float32))[None, None]


def noise(points: np.ndarray, frequency: float, rng: Generator) -> np.ndarray:
    """Return fractal noise at points (N, 3): (N,) with mean 0 and variance 1. frequency: 1/m."""
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * frequency / 32  # the lattice spans ±1
    move = np.column_stack([turn.T, rng.uniform(-1, 1, 3)])
    places = points.astype(float)[None]  # in float32, distant places are rounded
    places = cv2.transform(places, move) if len(points) else places  # OpenCV: None of none
    grid = torch.from_numpy(places).float().view(1, 1, 1, -1, 3)
    sampled = F.grid_sample(lattice(), grid, padding_mode="reflection", align_corners=True)
    return sampled.flatten().numpy()


def colour(rng: Generator, saturation=(0.1, 0.7), value=(0.2, 0.9), hue=(0.0, 1.0)) -> np.ndarray:
    """Return a random RGB colour (3,) within ranges of saturation, value and hue in [0, 1]."""
    rgb = colorsys.hsv_to_rgb(*(rng.uniform(*limits) for limits in (hue, saturation, value)))
    return np.array(rgb, np.float32)


def mix(a: np.ndarray, b: np.ndarray | float, share: np.ndarray | float) -> np.ndarray:
    """Mix colours a and b, (3,), (N, 3) or one grey value each, by the share of b in [0, 1]."""
    return a + (b - a) * np.asarray(share, np.float32)[..., None]


def step(value: np.ndarray, width: float) -> np.ndarray:
    """Return a smooth step from 0 to 1 that is `width` wide and centred on value 0."""
    t = np.clip(value / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def stained(points: np.ndarray, colours: np.ndarray, rng: Generator) -> np.ndarray:
    """Return the colours (N, 3) of a worn surface at points (N, 3); colours: (3,) or (N, 3)."""
    stains = step(noise(points, 3, rng), 2)
    grain = noise(points, 12, rng)
    return mix(colours, colours * 0.85, stains) * (1 + 0.04 * grain)[:, None]


def sky(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a blue sky with clouds and a sun."""
    zenith = colour(rng, (0.4, 0.8), (0.4, 0.9), (0.55, 0.63))
    height = np.maximum(rays[:, 1], 0)
    blue = mix(mix(zenith, np.array([0.9, 0.92, 0.95], np.float32), 0.7), zenith, height**0.6)
    layer = rays / np.maximum(rays[:, 1:2], 0.02)  # intersection with the layer of clouds
    layer /= 1 + 0.1 * np.linalg.norm(layer, axis=1, keepdims=True)
    clouds = step(noise(layer, 6, rng) - rng.uniform(-0.3, 1.6), rng.uniform(0.5, 2))
    sun = np.array([rng.normal(), rng.uniform(0.3, 1), rng.normal()])
    glow = np.exp(rng.uniform(20, 200) * (rays @ (sun / np.linalg.norm(sun)) - 1))
    return mix(blue, 0.95, 0.9 * clouds * step(height - 0.08, 0.2)) + glow[:, None]


def hills(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return ridges of hills before the sky, the far ones pale."""
    colours = sky(rays, rng)
    altitude = np.arcsin(rays[:, 1].clip(-1, 1))
    around = rays * np.array([1, 0, 1], np.float32)
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-6)
    bushes = noise(rays, 30, rng)
    for near in (0.5, 0.75, 1.0):
        ridge = rng.uniform(0, 12) * (1.3 - near) + 3 * noise(around, rng.uniform(3, 12), rng)
        slope = colour(rng, (0.2, 0.4), (0.2, 0.6), GREEN_HUES) * (1 + 0.2 * near * bushes)[:, None]
        below = step(np.radians(ridge + near * bushes) - altitude, 0.01)
        colours = mix(colours, slope, near * below)
    return colours


def meadow(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return grass or sand in directions below the horizon."""
    distance = EYE_HEIGHT / np.maximum(-rays[:, 1], 0.01)
    grass = colour(rng, (0.2, 0.4), (0.35, 0.7), GREEN_HUES)
    near = np.exp(-distance / 20)
    return mix(grass, stained(rays * distance[:, None], grass, rng), near)


def outdoors(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return hills around a meadow."""
    up = rays[:, 1] > 0
    colours = np.empty_like(rays)
    colours[up], colours[~up] = hills(rays[up], rng), meadow(rays[~up], rng)
    return colours


def room(rays: np.ndarray, rng: Generator) -> np.ndarray:
    """Return a hall with a chequered floor, and the view outdoors through windows in its walls."""
    half = np.array([rng.uniform(3, 8), EYE_HEIGHT, rng.uniform(3, 8)], np.float32)  # sides
    distance = half / np.maximum(abs(rays), 1e-6)
    axis = distance.argmin(axis=1)  # the normal of the wall that a ray hits: 1 for floor, ceiling
    hit = rays * distance.min(axis=1, keepdims=True)
    x, y, z = hit.T
    walls, bright, dark = (colour(rng, (0.02, 0.3), (low, 0.9)) for low in (0.6, 0.6, 0.3))
    floor = mix(bright, dark, (x.round() + z.round()) % 2)
    colours = stained(hit, np.where(((axis == 1) & (y < 0))[:, None], floor, walls), rng)
    gap = np.sort(half - abs(hit), axis=1)[:, 1]  # distance to the nearest edge
    colours *= (1 - 0.35 * np.exp(-3 * gap))[:, None]
    width, height, spacing = rng.uniform((0.5, 0.4, 2), (1, 0.7, 4))
    aside = abs(np.where(axis == 0, z, x) % spacing - spacing / 2)  # to the nearest window's centre
    depth = np.where(axis == 1, -1, np.minimum(width - aside, height - abs(y - 0.2)))
    colours[depth > -0.08] = 0.95  # window frames
    colours[depth > 0] = outdoors(rays[depth > 0], rng)
    return colours


WORLDS = {"outdoors": outdoors, "room": room}


def random_world(rng: Generator, height: int, width: int) -> np.ndarray:
    """Return one of the worlds as an equirectangular texture, RGB in [0, 1.2]: (H, W, 3)."""
    world = WORLDS[rng.choice(list(WORLDS))]
    rays = directions(height, width, torch.float32).reshape(-1, 3).numpy()
    return world(rays, rng).reshape(height, width, 3).clip(0, 1.2)


def smooth(texture: np.ndarray) -> np.ndarray:
    """Blur an equirectangular texture (H, W, 3) for pixels that cover 2×2 texels."""
    return cv2.blur(np.pad(texture, ((0, 0), (1, 1), (0, 0)), mode="wrap"), (3, 3))[:, 1:-1]


def look_up(texture: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return the colours (H, W, 3) along rays (H, W, 3) in an equirectangular texture."""
    x, y, z = np.moveaxis(rays, -1, 0)
    height, width = texture.shape[:2]
    column = (np.arctan2(x, z) / np.float32(2 * math.pi) + np.float32(0.5)) * width - 0.5
    row = (np.arctan2(np.hypot(x, z), y) * np.float32(height / math.pi) - 0.5).clip(0, height - 1)
    return cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
