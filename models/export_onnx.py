"""Write a model, including its spherical geometry, as an ONNX file.

    python -m models.export_onnx checkpoints/cube_unet_best.pth model.onnx

docs/onnx.md describes inputs and outputs, with an example for onnxruntime.
"""

import argparse
import importlib.util
import io
import json
import logging
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.components import MOTIONS, find_all
from common.errors import InputError, run_script
from common.files import atomic, protected
from common.options import HelpFormatter, add_model_options, add_sampling_option
from models.base import SaliencyModel
from models.checkpoint import load
from models.sphere_layers import to_images, to_pixels
from models.sst_sal import SSTSal

OPSET = 18  # the lowest that PyTorch's exporter supports
STATE = ("encoder_hidden", "encoder_cell", "decoder_hidden", "decoder_cell")


class FrameModel(nn.Module):
    """A model of single frames: (B, 3, H, W) and motion (B, M, H, W) → (B, 1, H, W)."""

    state: dict[str, tuple[int, ...]] = {}

    def __init__(self, model: SaliencyModel):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        frames, motion = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0][:, :0]
        return (self.model(frames[:, None], motion[:, None])[:, 0],)


class RecurrentStep(nn.Module):
    """SST-Sal for one frame: from the state before it, with shapes by name, to that after it."""

    def __init__(self, model: SSTSal):
        super().__init__()
        self.model = model
        hidden, size = model.arguments["hidden_channels"], (model.spec.height, model.spec.width)
        shapes = (hidden, *size), (hidden, *size), (1, *model.half_size), (1, *model.half_size)
        self.state = dict(zip(STATE, shapes))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        images, states = inputs[: -len(STATE)], inputs[-len(STATE) :]
        before = [to_pixels(state) for state in states]
        encoder, decoder = self.model.step(images, before[:2], before[2:])
        after = zip((*encoder, *decoder), states)
        next_states = (to_images(pixels, state.shape[-2:]) for pixels, state in after)
        return self.model.to_map(decoder[0]), *next_states


def write_onnx(path: str | Path, model: SaliencyModel) -> list[str]:
    """Write a model that is on the CPU and in eval mode; return the names of its inputs.

    Raises ValueError for a model of several frames with an unknown state.
    """
    network = RecurrentStep(model) if isinstance(model, SSTSal) else FrameModel(model)
    if (length := model.spec.clip_length) > 1 and not network.state:
        raise ValueError(f"{model.name} takes clips of {length} frames, and its state is unknown")
    size, channels = (model.spec.height, model.spec.width), MOTIONS[model.spec.motion].channels
    motion = {"motion": (channels, *size)} if channels else {}
    inputs = {"frames": (3, *size), **motion, **network.state}
    outputs = ["saliency", *(f"next_{name}" for name in network.state)]
    batch = torch.export.Dim("batch")
    examples = tuple(torch.zeros(2, *shape) for shape in inputs.values())  # 1 would be constant
    shapes = {"inputs": tuple({0: batch} for _ in inputs)}
    with torch.no_grad():
        network.eval()(*examples)  # fills caches before the export
        graph = torch.export.export(network, examples, dynamic_shapes=shapes, strict=False)
        program: Any = torch.onnx.export(
            graph, input_names=list(inputs), output_names=outputs, opset_version=OPSET,
            dynamic_shapes=shapes, dynamo=True, verbose=False,
        )  # fmt: skip
    facts = {"model": model.name, "arguments": model.arguments, "spec": asdict(model.spec)}
    program.model.metadata_props.update({name: json.dumps(fact) for name, fact in facts.items()})
    with atomic(path) as temporary:
        program.save(temporary, external_data=False)
    return list(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("ckpt_path", type=Path, metavar="CKPT", help="checkpoint")
    add("output_path", type=Path, metavar="FILE", help="output file, .onnx")
    add_model_options(add)
    add("--motion", metavar="package.module:Class", help="your own motion that the checkpoint "
        "contains; its code is run")  # fmt: skip
    add_sampling_option(add)
    args = parser.parse_args()
    if args.output_path.suffix.lower() != ".onnx":
        raise InputError(f"{args.output_path}: give a name that ends with .onnx")
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise InputError("ONNX needs two more packages; run pip install onnx onnxscript")
    find_all(args)
    model = load(args.ckpt_path, **({"sampling": args.sampling} if args.sampling else {}))
    logging.disable()  # PyTorch logs and prints pages about a model that it can't follow
    print("exporting, which often takes two minutes", flush=True)
    pages = io.StringIO()
    try:
        with protected(args.ckpt_path), redirect_stdout(pages), redirect_stderr(pages):
            inputs = write_onnx(args.output_path, model)
    except ValueError as error:
        raise InputError(f"{args.ckpt_path}: {error}; export another model") from error
    print(f"{args.output_path}: {model.name}, inputs {', '.join(inputs)}")


if __name__ == "__main__":
    run_script(main)
