"""Fits the numbers in models/equator_prior.py: where people turn their heads in 360° video.

    python -m recipes.head_prior nasrabadi_mmsys19_head_5hz.npz

The file holds, for each video, the head directions of its viewers: people × samples × 3, at five
samples a second, as x right, y up, z forward. Made from the data set of Nasrabadi et al., "A
taxonomy and dataset for 360° videos", MMSys 2019; its video "Intro" only shows people how to use
the headset and is left out.

Everybody starts straight ahead. The mean cos λ of the longitude λ falls from 0.99 to 0.32 in the
first eight seconds and stays between 0.32 and 0.41 from then on, so the first ten are left out.

Each density is fitted by maximum likelihood. What it is worth is its gain: its mean log-likelihood
over that of the uniform density, in nats a direction, in videos that it was not fitted on.
Densities are over y = sin φ of the latitude φ, in which the sphere's area is uniform, and over λ,
symmetric because which side is right is inferred in the file.
"""

import argparse
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cli import InputError, run_script

RATE = 5  # samples a second
LEFT_OUT_SECONDS = 10
INTRODUCTION = "v_Intro"


def cauchy(y: Tensor, log_width: Tensor) -> Tensor:
    s = log_width.exp()
    return -(y / s).square().log1p() - (s * (1 / s).atan()).log()


def laplace(y: Tensor, log_width: Tensor) -> Tensor:
    b = log_width.exp()
    return -y.abs() / b - (b * -torch.expm1(-1 / b)).log()


def gaussian(y: Tensor, log_width: Tensor) -> Tensor:
    """Gaussian in y, cut off at ±1: the girdle form of the Watson distribution."""
    s = log_width.exp()
    return -(y / s).square() / 2 - (s * math.sqrt(math.pi / 2) * (0.5**0.5 / s).erf()).log()


def wrapped_cauchy(longitude: Tensor, share: Tensor, concentration: Tensor) -> Tensor:
    w, r = share.sigmoid(), concentration.sigmoid()
    return (1 - w + w * (1 - r**2) / (1 + r**2 - 2 * r * longitude.cos())).log()


def von_mises(longitude: Tensor, share: Tensor, log_concentration: Tensor) -> Tensor:
    w, k = share.sigmoid(), log_concentration.exp()
    return (1 - w + w * (k * (longitude.cos() - 1)).exp() / torch.special.i0e(k)).log()


class Form(NamedTuple):
    """log_density(x, *parameters): logarithm of a density over the uniform one, (N,) → (N,)."""

    log_density: Callable[..., Tensor]
    start: tuple[float, ...]  # of the unbounded parameters


LATITUDE = {
    "Cauchy": Form(cauchy, (-2.0,)),
    "Laplace": Form(laplace, (-2.0,)),
    "Gaussian": Form(gaussian, (-1.0,)),
}
LONGITUDE = {
    "uniform and wrapped Cauchy": Form(wrapped_cauchy, (0.0, 0.0)),
    "uniform and von Mises": Form(von_mises, (0.0, 0.0)),
}


class HeadPrior(NamedTuple):
    """The numbers of the same names in models/equator_prior.py."""

    latitude_width: float
    front_share: float
    concentration: float


def read_directions(path: str | Path) -> dict[str, Tensor]:
    """Head directions of each video after the first seconds: name → (N, 3) float64, unit length.

    Raises InputError for a file that can't be read or holds anything but directions.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != INTRODUCTION}
    except (OSError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not a readable .npz file of head directions; check the path or copy it again"
        ) from error
    videos = {}
    for name, array in arrays.items():
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype.kind != "f":
            raise InputError(
                f"{path}: {name} is {array.shape} of {array.dtype}; expected floats, "
                "people × samples × 3; give a file of head directions"
            )
        kept = array[:, LEFT_OUT_SECONDS * RATE :].reshape(-1, 3)
        vectors = torch.from_numpy(kept.astype(np.float64))
        lengths = vectors.norm(dim=-1, keepdim=True)
        if not ((lengths - 1).abs() < 0.01).all():
            raise InputError(f"{path}: {name} holds vectors whose length is not 1; make it again")
        if len(vectors):
            videos[name] = vectors / lengths
    if len(videos) < 2:
        raise InputError(
            f"{path}: {len(videos)} videos longer than {LEFT_OUT_SECONDS} s; at least two are "
            "needed to fit on one and test on another"
        )
    return videos


def maximum_likelihood(form: Form, x: Tensor) -> Tensor:
    """The form's unbounded parameters, (P,), that make the samples x, (N,), likeliest."""
    parameters = torch.tensor(form.start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -form.log_density(x, *parameters).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return parameters.detach()


def gain(form: Form, videos: list[Tensor]) -> float:
    """Mean over the videos of what the fit on all others gains in this one, nats a direction."""
    gains = []
    for left_out, x in enumerate(videos):
        others = torch.cat(videos[:left_out] + videos[left_out + 1 :])
        gains.append(form.log_density(x, *maximum_likelihood(form, others)).mean().item())
    return sum(gains) / len(gains)


def longitude_of(directions: Tensor) -> Tensor:
    """(N, 3) → (N,) radians."""
    return torch.atan2(directions[:, 0], directions[:, 2])


def fit(directions: Tensor) -> HeadPrior:
    """directions: (N, 3) float64 unit vectors."""
    (width,) = maximum_likelihood(LATITUDE["Cauchy"], directions[:, 1])
    around = maximum_likelihood(LONGITUDE["uniform and wrapped Cauchy"], longitude_of(directions))
    return HeadPrior(width.exp().item(), *around.sigmoid().tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help=".npz file of head directions")
    videos = read_directions(parser.parse_args().path)
    directions = list(videos.values())
    for axis, forms, x in (
        ("latitude", LATITUDE, [d[:, 1] for d in directions]),
        ("longitude", LONGITUDE, [longitude_of(d) for d in directions]),
    ):
        for name, form in forms.items():
            print(f"{axis}: {name}, gain {gain(form, x):.3f} nats a direction")
    fitted = fit(torch.cat(directions))
    count = sum(map(len, directions))
    print(f"{len(videos)} videos, {count} directions; for models/equator_prior.py:")
    for name, number in fitted._asdict().items():
        print(f"{name.upper()} = {number:.3f}")


if __name__ == "__main__":
    run_script(main)
