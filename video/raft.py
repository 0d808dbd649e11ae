"""RAFT (Teed and Deng, ECCV 2020) from torchvision, and its weight files."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from common.errors import InputError
from common.files import reading
from common.restricted_pickle import read_torch

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
SOURCES = (
    "raft_large_C_T_SKHT_V2-ff5fadd5.pth or raft_small_C_T_V2-01064c6d.pth from "
    "https://download.pytorch.org/models/"
)


def find_weights() -> Path:
    """Return checkpoints/raft*.pth, the first by name. Raises InputError if there is none."""
    if paths := sorted(CHECKPOINTS.glob("raft*.pth")):
        return paths[0]
    missing = f"{CHECKPOINTS}: no weights for RAFT flow (raft*.pth)"
    raise InputError(f"{missing}; put {SOURCES} there, or use --motion dis")


@cache
def load_raft(path: Path) -> nn.Module:
    """Return the network in eval mode, on a GPU if there is one.

    path: torchvision's weights of raft_large or raft_small. Raises InputError for any other file.
    """
    from torchvision.models.optical_flow import raft_large, raft_small  # slow to import

    with reading(path, f"not the weights of a supported RAFT network; get {SOURCES}"):
        weights = read_torch(path)
        small = len(weights["feature_encoder.convnormrelu.0.weight"]) == 32
        network = (raft_small if small else raft_large)(weights=None)
        network.load_state_dict(weights)
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def estimate_flow(network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """Return the displacement (2, H, W) from image to image, both (3, H, W) RGB in [0, 1]."""
    height, width = first.shape[-2:]
    pair = (torch.stack([first, second]) * 2 - 1).to(next(network.parameters()).device)
    pair = pad(pair, (0, -width % 8, 0, -height % 8), mode="replicate")  # to multiples of 8
    return network(pair[:1], pair[1:])[-1][0, :, :height, :width].cpu()
