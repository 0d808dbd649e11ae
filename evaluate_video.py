"""Score models and saved maps against ground truth, with baselines and inter-observer scores.

Several models are scored on the frames for which all of them have a map, and compared in pairs.
Several GPUs: torchrun --nproc_per_node 4 evaluate_video.py …
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import shlex
import sys
from contextlib import nullcontext, redirect_stdout, suppress
from functools import partial
from pathlib import Path

from common import options
from common.errors import InputError, RunError, counted, run_script
from common.files import write_json
from common.locks import lock
from common.protocols import PUBLISHED, WEIGHTINGS, Published


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    options.add_data_options(add)
    add("--split", help="test, val or train (default: test, or the protocol's test clips)")
    add("--train_root", type=Path, help="data set whose training split provides the mean "
        "map among the baselines (default: data_root)")  # fmt: skip
    add("--ckpt_path", type=Path, nargs="+", metavar="PATH", default=[], help="checkpoints "
        f"(default: {options.CHECKPOINT}, without --pred_dir)")  # fmt: skip
    options.add_model_options(add, nargs="+")
    add("--pred_dir", type=Path, nargs="+", metavar="FOLDER", default=[], help="saved maps: "
        "FOLDER/<clip>/sal_0001.npy or any name that ends with the frame number, .npy, .exr or "
        ".png")  # fmt: skip
    add("--names", nargs="+", metavar="NAME", default=[], help="display names of the models, "
        "checkpoints first; seeds of one name share a row (default: file names)")  # fmt: skip
    add("--metric", nargs="+", metavar="package.module:NAME", default=[], help="your own metrics")
    add("--output_dir", type=Path, default="outputs/evaluate", help="folder for the results")
    add("--report", action="store_true", help="also write report.html with plots and pictures")
    add("--per_frame", action="store_true", help="also write per_frame.csv, scores of each frame")
    add("--format", default="text", choices=options.TABLES, help="format of the printed table; "
        "with any but text, nothing else is printed on standard output")  # fmt: skip
    add("--protocol", default="sphere", choices=(*WEIGHTINGS, *PUBLISHED), help="sphere: pixels "
        "are weighted by their exact solid angles; planar: all pixels have the same weight; sin: "
        "planar, after both maps are multiplied by the sine of the colatitude; others: weighting, "
        "frames and test clips of a paper (common/protocols.py)")  # fmt: skip
    add("--height", type=options.at_least(8, 4097, int), default=240,
        help="rows of the grid on which maps are compared")  # fmt: skip
    add("--sigma", type=options.at_least(0.5, 30), help="standard deviation in degrees of the "
        "Gaussian for inter-observer scores (default: the protocol's, else 3.34)")  # fmt: skip
    add("--check", action="store_true", help="only check the data set and list its problems")
    options.add_motion_option(add)
    options.add_sampling_option(add)
    options.add_machine_options(add, precision="fp32")
    return parser.parse_args(arguments)


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    given_options = run_script(parse_args)

import torch
from tqdm import tqdm

import models
from common import processes
from common.components import find_all
from common.devices import autocast, choose_device, choose_kernels, choose_precision
from common.processes import is_main
from datasets import SaliencyVideos, check
from datasets.video_saliency import summarise
from evaluation import results, summary
from evaluation.scorer import Scorer
from evaluation.sources import Network, SavedMaps
from evaluation.tables import FORMATS

SCORING_FAILURES = ("unreadable frame", "unusable map")  # problems that make the exit code 1


def main(args: argparse.Namespace | None = None) -> None:
    args = args or parse_args()
    find_all(args)
    if args.check:
        report = check.check(args.data_root)
        print(check.summary(report))
        write_json(args.output_dir / "check.json", report)
        sys.exit(0 if report["clean"] else 1)
    device = choose_device(args.device)
    rows = make_sources(args, device)
    sources = sum(rows.values(), [])
    protocol = PUBLISHED.get(args.protocol) or Published(args.protocol, "test")
    data = SaliencyVideos(args.data_root, args.split or protocol.split, None, fps=args.fps)
    for network in (source for source in sources if isinstance(source, Network)):
        data.check_packed(network.model.spec)
    sigma = args.sigma or protocol.sigma or 3.34
    scorer = Scorer(data, protocol, args.height, sigma, args.train_root, device)
    processes.extend_timeout()
    with lock(args.output_dir) if is_main() else nullcontext():
        clips = {}
        bar = {"unit": "clip", "disable": not is_main(), "dynamic_ncols": True}
        for clip in tqdm(processes.shard(data.clips), "scoring", **bar):
            clips[clip] = scorer.score(clip, sources, args.report)
        shares = processes.gather(clips)
        if not is_main():
            return
        clips = {clip: share[clip] for clip in data.clips for share in shares if clip in share}
        about = {  # the facts of several seeds one after the other
            row: {key: ", ".join(m.facts[key] for m in members) for key in members[0].facts}
            for row, members in rows.items()
        }
        facts = {
            "data": args.data_root.resolve().name,
            "split": data.split,
            "protocol": args.protocol,
            "grid": list(scorer.size),
            "model": next(iter(rows)),
            **next(iter(about.values())),
            "models": about,
            "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        names = {row: [source.name for source in members] for row, members in rows.items()}
        scores = results.collect(facts, scorer, clips, names)
        print(FORMATS[args.format](scores))
        with redirect_stdout(sys.stdout if args.format == "text" else sys.stderr):
            print("", *summary.verdicts(scores), "", *scores["notes"], sep="\n")
            written = results.write(args.output_dir, scores, clips, args.report, args.per_frame)
            print(f"{', '.join(written[:-1])} and {written[-1]} in {args.output_dir}")
    problems = sum((scores.irregular for scores in clips.values()), [])
    if failures := [problem for problem in problems if problem[0] in SCORING_FAILURES]:
        raise RunError(f"left out of the scores: {summarise(failures)}; make these files again")


def make_sources(args: argparse.Namespace, device: torch.device) -> dict[str, list]:
    """Return the sources to score by row of the table; those in one row are different seeds."""
    if not args.ckpt_path and not args.pred_dir:
        args.ckpt_path = [options.CHECKPOINT]
    networks = [Network(path, load_model(args, path, device)) for path in args.ckpt_path]
    if args.sampling and not any("sampling" in network.model.arguments for network in networks):
        raise InputError(f"--sampling {args.sampling}: is for SST-Sal only; leave it out")
    if args.motion and all(network.model.spec.motion != args.motion for network in networks):
        raise InputError(f"--motion {args.motion}: none of these models can use it; leave it out")
    sources: list[Network | SavedMaps] = [*networks, *map(SavedMaps, args.pred_dir)]
    paths = [path.resolve() for path in (*args.ckpt_path, *args.pred_dir)]
    if args.names and len(args.names) != len(sources):
        given = f"--names: {len(args.names)} for {counted(len(sources), 'model')}"
        raise InputError(f"{given}; give one name for each, checkpoints first")
    stems = [path.stem for path in paths]
    unique = [
        stem if stems.count(stem) == 1 else f"{path.parent.name}/{stem}"
        for path, stem in zip(paths, stems)
    ]
    names = args.names or (unique if len(sources) > 1 else [sources[0].name])
    rows: dict[str, list] = {}
    for source, name in zip(sources, names):
        taken = name in (*summary.BASELINES, summary.INTER_OBSERVER)
        rows.setdefault(f"{name} (maps)" if taken else name, []).append(source)
    for row, members in rows.items():
        if len(members) > 1 and not args.names:
            raise InputError(f"two models are named {row}; give different --names")
        for k, source in enumerate(members, 1):
            source.name = row if len(members) == 1 else f"{row} ({k})"
        if len({type(source) for source in members}) > 1:
            raise InputError(f"{row}: a checkpoint and saved maps can't be seeds of one model; "
                "give different --names")  # fmt: skip
    if len({source.name for source in sources}) < len(sources):
        raise InputError("--names: one is that of a seed, such as 'ours (1)'; choose another name")
    return rows


def load_model(args: argparse.Namespace, path: Path, device: torch.device) -> models.SaliencyModel:
    """Return a checkpoint's model, with the options applied."""
    model = models.load(path, device)
    if args.sampling and "sampling" in model.arguments:
        model = models.load(path, device, sampling=args.sampling)
    if ":" not in str(args.motion):  # a user-defined motion is only for models trained with it
        with suppress(ValueError):  # a model with other channels keeps its own
            model.use_motion(args.motion)
    # Only the network runs in mixed precision, not the metrics.
    dtype = choose_precision(args.precision, device)
    choose_kernels(device, dtype)
    model = models.deploy(model, dtype)
    model.forward = autocast(device, dtype)(model.forward)  # type: ignore[method-assign]
    return model


if __name__ == "__main__":
    run_script(processes.session(partial(main, given_options)))
