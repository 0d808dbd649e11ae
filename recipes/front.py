"""Set a CubeUNet's preference for straight ahead, share of the prior, second look and smoothing.

    python -m recipes.front CHECKPOINT OUTPUT --front 0.27 --latitude 1.05 --smoothing 0.75

In the training scenes all directions are equivalent, but people who put on a headset look straight
ahead first. The values for the front were chosen on panoramas with real gaze, the seconds of
smoothing (see models.predict) on flat training clips; see checkpoints/README.md.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from common.errors import run_script
from common.options import HelpFormatter, at_least
from models import load, save
from recipes.output import history, writable


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of a CubeUNet")
    add("output", type=Path, help="checkpoint to write")
    add("--front", type=at_least(0, 1.001), default=0.27, help="power of the prior over longitude")
    add("--latitude", type=at_least(0, 10), default=1.05, help="factor of the latitude bias")
    add("--prior_share", type=at_least(0, 1.001), default=0.0, help="share of the equator prior")
    add("--second_look", type=at_least(0, 1.001), default=0.0, help="weight of the logits of faces "
        "at half the size")  # fmt: skip
    add("--smoothing", type=at_least(0, 10.001), default=0.75,
        help="seconds before and after a frame over which its map is the mean")  # fmt: skip
    args = parser.parse_args()
    writable(args.output)
    given = {name: getattr(args, name) for name in ("front", "prior_share", "second_look")}
    model = load(args.checkpoint, **given)
    model.latitude_bias *= args.latitude
    model.spec = replace(model.spec, smoothing=args.smoothing)
    save(args.output, model, **history(args.checkpoint, "front", latitude=args.latitude))
    print(f"{args.output}: front {args.front:g}, latitude bias times {args.latitude:g}, "
          f"smoothing {args.smoothing:g} s")  # fmt: skip


if __name__ == "__main__":
    run_script(main)
