"""SST-Sal with seeded random weights, and the reference numbers that belong to them.

    python -m tests.seeded_sst_sal

writes tests/reference/sst_sal.npz, computed by the plain formulation, benchmarks/plain_sst_sal.py.
The authors' own weights have no licence and therefore cannot be part of this repository.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain_sst_sal import PlainSSTSal, sample
from losses import SphericalKLDivergence

SEEDED = {"seeded": (6, 16), "seeded_wo_OF": (3, 9)}  # input and hidden channels
FILE = Path(__file__).parent / "reference" / "sst_sal.npz"


def recipe(kind: str, frames: int, channels: int, height: int, width: int) -> Tensor:
    """Return an input clip by the recipe called `kind`, (1, T, C, H, W) float32."""
    if kind.startswith("rand"):
        clip = np.random.RandomState(int(kind[4:])).rand(1, frames, channels, height, width)
        return torch.from_numpy(clip.astype(np.float32))
    t, c = np.arange(frames)[:, None, None, None], np.arange(channels)[:, None, None]
    y, x = ((np.arange(height) + 0.5) / height)[:, None], (np.arange(width) + 0.5) / width
    if kind == "blob":
        dx = (x - (0.2 + 0.1 * t + 0.11 * c) + 0.5) % 1 - 0.5
        dy = y - (0.3 + 0.05 * t + 0.07 * c)
        clip = np.exp(-(dx**2) / (2 * 0.06**2) - dy**2 / (2 * 0.1**2))
    else:
        wave = np.sin(2 * np.pi * (3 * x + 0.1 * t + c / 6))
        clip = 0.5 + 0.5 * wave * np.cos(2 * np.pi * (y - 0.5))
    return torch.from_numpy(clip.astype(np.float32))[None]


def seeded_weights(variant: str) -> dict[str, Tensor]:
    """Return uniformly random weights by their names in SSTSal, the same on every machine."""
    random, weights = np.random.RandomState(0), {}
    channels, hidden = SEEDED[variant]
    for part, inputs, outputs in (
        ("encoder", channels + hidden, hidden),
        ("decoder", hidden + 1, 1),
    ):
        bound = 2 / (9 * inputs) ** 0.5
        for kind, shape in (("weight", (4 * outputs, inputs, 3, 3)), ("bias", (4 * outputs,))):
            values = random.uniform(-bound, bound, shape).astype(np.float32)
            weights[f"{part}.lstm.conv.{kind}"] = torch.from_numpy(values)
    return weights


def layers(variant: str) -> dict[str, Tensor]:
    """Every layer's output for the first frame, some channels of it."""
    x = recipe("blob", 1, SEEDED[variant][0], 12, 16)[:, 0]
    plain = PlainSSTSal(seeded_weights(variant), 12, 16)
    channels = torch.tensor([0, 2, 8])
    h, c = plain.cell("encoder", x, None)
    pool, zeros = plain.pool(h), h.new_zeros(1, 1, 6, 8)
    found = {
        "conv": plain.conv("encoder", torch.cat([x, torch.zeros_like(h)], dim=1)),
        "h": h,
        "c": c,
        "pool": pool,
    }
    found = {name: layer[:, channels] for name, layer in found.items()}
    found |= {"conv_channels": channels, "h_channels": channels}
    found["pool_of_input"] = F.max_pool2d(sample(x, plain.pooling), 3)
    found["dec_conv"] = plain.conv("decoder", torch.cat([pool, zeros], dim=1))
    return found | {"dec_h": plain.cell("decoder", pool, None)[0]}


def forward(variant: str) -> dict[str, Tensor]:
    """The decoder's state in each of six frames."""
    plain = PlainSSTSal(seeded_weights(variant), 24, 32)
    maps = plain(recipe("rand0", 6, SEEDED[variant][0], 24, 32))
    return {"rand0_T6_24x32": maps[..., ::2, ::2]}


def last_step(variant: str) -> dict[str, Tensor]:
    """The states before and after the last of 16 frames."""
    plain, encoder, decoder = PlainSSTSal(seeded_weights(variant), 8, 8), None, None
    for x in recipe("blob", 16, SEEDED[variant][0], 8, 8).unbind(1):
        before = encoder, decoder
        encoder = plain.cell("encoder", x, encoder)
        pooled = plain.pool(encoder[0])
        decoder = plain.cell("decoder", pooled, decoder)
    found = {"x_last": x, "pooled": pooled}
    found["output"] = F.interpolate(decoder[0], scale_factor=2, mode="nearest")
    for when, states in (("before", before), ("after", (encoder, decoder))):
        for part, (h, c) in zip(("enc", "dec"), states, strict=True):
            found |= {f"{part}_h_{when}": h, f"{part}_c_{when}": c}
    return found


def gradients(variant: str) -> dict[str, Tensor]:
    """The loss, its gradient (every eighth value of a large one), and the loss one step later.

    In float64, because the recurrence and the scaling of maps in the loss amplify rounding.
    """
    weights = {k: v.double().requires_grad_() for k, v in seeded_weights(variant).items()}
    plain = PlainSSTSal(weights, 24, 32)
    for grid in ("full", "half", "pooling"):
        setattr(plain, grid, getattr(plain, grid).double())
    clip = recipe("rand0", 3, SEEDED[variant][0], 24, 32).double()
    truth = recipe("rand1000", 3, 1, 24, 32).double()
    with torch.enable_grad():
        loss = SphericalKLDivergence()(plain(clip), truth)
        loss.backward()
    found = {"loss": loss.detach()}
    for name, weight in weights.items():
        found[f"grad.{name}"] = weight.grad.flatten()[:: 8 if weight.numel() > 10_000 else 1]
        weight.detach().sub_(0.8 * weight.grad)
    found["loss_after_one_sgd_step_lr0.8"] = SphericalKLDivergence()(plain(clip), truth)
    return {name: value.float() for name, value in found.items()}


PARTS = {
    "layers_blob_12x16": layers,
    "forward": forward,
    "laststep_blob_T16_8x8": last_step,
    "grads_rand0_T3_24x32": gradients,
}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    arrays = {
        f"{variant}/{part}/{name}": array.detach().numpy()
        for variant in SEEDED
        for part, compute in PARTS.items()
        for name, array in compute(variant).items()
    }
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
