"""Fit the parameters of models/equator_prior.py to head directions in 360° video.

    python -m recipes.head_prior nasrabadi_mmsys19_head_5hz.npz

The file holds the head directions of the viewers of each video: people × samples × 3, five samples
a second, as x right, y up, z forward. It is made from the data set of Nasrabadi et al., "A taxonomy
and dataset for 360° videos", MMSys 2019. The video "Intro", which shows people how to use the
headset, is left out.

Everybody starts straight ahead. The mean cos λ of the longitude λ falls from 0.99 to 0.32 in the
first eight seconds and stays between 0.32 and 0.41 from then on, so the first ten are left out.

The densities are over y = sin φ of the latitude φ, in which the area of the sphere is uniform, and
over λ. They are symmetric, because which side is right is inferred in the file. Each is fitted by
maximum likelihood. Its gain is its mean log-likelihood relative to the uniform density, in nats per
direction, on videos that it was not fitted on. Other densities had a smaller gain: Laplace 0.757
and Gaussian 0.654 instead of 0.766 over y, von Mises 0.154 instead of 0.159 over λ.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, run_script
from common.files import check_file

RATE = 5  # samples a second
LEFT_OUT_SECONDS = 10
INTRODUCTION = "v_Intro"


def cauchy(y: Tensor, log_width: Tensor) -> Tensor:
    """Return the log-likelihood ratio (N,) of the Cauchy density on [−1, 1] at y (N,)."""
    s = log_width.exp()
    return -(y / s).square().log1p() - (s * (1 / s).atan()).log()


def wrapped_cauchy(longitude: Tensor, share: Tensor, concentration: Tensor) -> Tensor:
    """Return that of a mixture of uniform and wrapped Cauchy density at longitudes (N,).

    share, concentration: logits of the wrapped Cauchy density's share and mean cos λ.
    """
    w, r = share.sigmoid(), concentration.sigmoid()
    return (1 - w + w * (1 - r**2) / (1 + r**2 - 2 * r * longitude.cos())).log()


class Form(NamedTuple):
    """A family of densities.

    log_ratio: log_ratio(x, *parameters), the logarithm of a density over the uniform one,
        (N,) → (N,).
    start: initial values of the unbounded parameters.
    """

    log_ratio: Callable[..., Tensor]
    start: tuple[float, ...]


LATITUDE = Form(cauchy, (-2.0,))
LONGITUDE = Form(wrapped_cauchy, (0.0, 0.0))


class HeadPrior(NamedTuple):
    """The numbers of the same names in models/equator_prior.py."""

    latitude_width: float
    front_share: float
    concentration: float


def read_directions(path: str | Path) -> dict[str, Tensor]:
    """Return the head directions of each video after the first seconds: name → (N, 3) float64.

    Raises InputError for a file that can't be read or holds anything but unit vectors.
    """
    try:
        with np.load(check_file(path), allow_pickle=False) as file:
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
            "needed, to fit on one and test on another; give another file"
        )
    return videos


def maximum_likelihood(form: Form, x: Tensor) -> Tensor:
    """Return the unbounded parameters (P,) with the largest likelihood of the samples x (N,)."""
    parameters = torch.tensor(form.start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -form.log_ratio(x, *parameters).mean()
        value.backward()
        return value

    optimizer.step(loss)
    return parameters.detach()


def gain(form: Form, videos: list[Tensor]) -> float:
    """Return the mean gain on each video, (N,), of a fit on all others, in nats per direction."""
    gains = []
    for left_out, x in enumerate(videos):
        others = torch.cat(videos[:left_out] + videos[left_out + 1 :])
        gains.append(form.log_ratio(x, *maximum_likelihood(form, others)).mean().item())
    return sum(gains) / len(gains)


def longitude_of(directions: Tensor) -> Tensor:
    """Return the longitudes (N,) of directions (N, 3), in radians."""
    return torch.atan2(directions[:, 0], directions[:, 2])


def fit(directions: Tensor) -> HeadPrior:
    """Fit both densities to unit vectors (N, 3) float64."""
    (width,) = maximum_likelihood(LATITUDE, directions[:, 1])
    around = maximum_likelihood(LONGITUDE, longitude_of(directions))
    return HeadPrior(width.exp().item(), *around.sigmoid().tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help=".npz file of head directions")
    videos = list(read_directions(parser.parse_args().path).values())
    across = gain(LATITUDE, [directions[:, 1] for directions in videos])
    around = gain(LONGITUDE, [longitude_of(directions) for directions in videos])
    print(f"gain {across:.3f} nats per direction in latitude, {around:.3f} in longitude")
    fitted = fit(torch.cat(videos))
    count = sum(map(len, videos))
    print(f"{len(videos)} videos, {count} directions; for models/equator_prior.py:")
    for name, number in fitted._asdict().items():
        print(f"{name.upper()} = {number:.3f}")


if __name__ == "__main__":
    run_script(main)
