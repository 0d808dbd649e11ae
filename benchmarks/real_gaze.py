"""Score models on panoramas with human gaze: all metrics, with baselines and observers.

    python -m benchmarks.real_gaze FOLDER --ckpt_path a.pth b.pth --pred_dir maps

FOLDER contains .npz files, each a separate set. The entries of a panorama called NAME are

    NAME_rgb     (H, W, 3) uint8
    NAME_gt      (h, w) density per direction on any scale
    NAME_fix     (N, 2) degrees: longitude to the right, latitude upwards; optional, for NSS and AUC
    NAME_user    (N,) numbers of the observers, optional, for inter-observer scores

A folder of saved maps contains NAME.npy, .exr or .png. Pixels are weighted by their solid angles;
metrics and intervals are those of evaluate_video.py. Shuffled AUC uses the fixations of the other
panoramas of the set. For a recurrent model, the panorama is repeated for the length of a clip.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import models
from common.errors import InputError, counted, run_script
from common.files import MAX_ARRAY_BYTES, reading
from common.options import CHECKPOINT, HelpFormatter, at_least
from datasets.gaze import fixation_map, gaussian_map
from datasets.layouts import read_map
from evaluation import summary
from evaluation.tables import text_table
from maps.attention import not_negative
from metrics import Protocol
from metrics.inter_observer import inter_observer
from models.equator_prior import equator_prior
from projection.sphere import latitudes
from video.pictures import resize


def read_set(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in a file. Raises InputError for panoramas without gaze."""
    with (
        reading(path, "not a set of panoramas with gaze ({}); see --help", MAX_ARRAY_BYTES) as path,
        np.load(path, allow_pickle=False) as file,
    ):
        if sum(entry.file_size for entry in file.zip.infolist()) > MAX_ARRAY_BYTES:
            raise ValueError("too large")
        content = {key: file[key] for key in file.files}
        for name in names_of(content):
            rgb, truth = (content[f"{name}_{kind}"] for kind in ("rgb", "gt"))
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
                raise ValueError(f"{name}_rgb: {rgb.dtype} of {rgb.shape}")
            if truth.dtype.kind not in "biuf" or truth.ndim != 2:
                raise ValueError(f"{name}_gt: {truth.dtype} of {truth.shape}")
            if not (truth.min() >= 0 and 0 < truth.max() < np.inf):
                raise ValueError(f"{name}_gt: zero, negative or not finite")
            places = content.get(f"{name}_fix", np.zeros((1, 2)))
            if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
                raise ValueError(f"{name}_fix: {places.shape}, or not finite")
            users = content.get(f"{name}_user", np.arange(len(places)))
            if users.shape != places.shape[:1] or users.dtype.kind not in "iu":
                raise ValueError(f"{name}_user: {users.dtype} of {users.shape}")
        return content


def names_of(content: dict[str, np.ndarray]) -> list[str]:
    return [key.removesuffix("_rgb") for key in content if key.endswith("_rgb")]


class GazeSet:
    """The panoramas of a file and how maps of them are scored.

    content: what read_set returns. latitude: degrees beyond which pixels and fixations are left
    out.
    """

    def __init__(self, content: dict, height: int, latitude: float, sigma: float):
        self.content, self.names = content, names_of(content)
        self.size, self.sigma = (height, 2 * height), sigma
        self.inside = (latitudes(height).abs() <= np.radians(latitude)).double()[:, None]
        self.protocol = Protocol("sphere", *self.size)
        self.protocol.weights *= self.inside
        fixated = [name for name in self.names if f"{name}_fix" in content]
        self.counts = {name: self.count(*self.places(name).T) for name in fixated}

    def places(self, name: str) -> np.ndarray:
        """Return the fixations, (N, 2) longitude and latitude in radians."""
        return np.radians(self.content[f"{name}_fix"].astype(np.float64))

    def count(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return fixation_map(longitudes, latitudes, *self.size) * self.inside

    def blur(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return gaussian_map(longitudes, latitudes, *self.size, self.sigma)

    def score(self, name: str, maps: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """Return predictor → metric → value for maps, (h, w) each, and for the observers."""
        stack = torch.stack([torch.from_numpy(resize(m, *self.size)) for m in maps.values()])
        truth = resize(self.content[f"{name}_gt"].astype(np.float32), *self.size)
        none = torch.zeros(self.size, dtype=torch.float64)
        others = sum((count for other, count in self.counts.items() if other != name), none)
        truths = {"target": torch.from_numpy(truth)}
        if name in self.counts:
            truths["fixations"] = self.counts[name]
            truths |= {"others": others} if others.any() else {}
        truths = {kind: truth.expand_as(stack) for kind, truth in truths.items()}
        values = self.protocol(stack, **truths)
        scores = {p: {m: v[k] for m, v in values.items()} for k, p in enumerate(maps)}
        users = self.content.get(f"{name}_user")
        if users is not None and name in self.counts:
            drawn, random = (self.count, self.blur), np.random.default_rng(0)
            gaze = *self.places(name).T, users.astype(np.int64)
            scores[summary.INTER_OBSERVER] = inter_observer(
                *gaze, others, self.protocol, *drawn, random
            )
        return scores


def saved_map(folder: Path, name: str) -> np.ndarray:
    """Return a saved map. Raises InputError where there is none."""
    for kind in (".npy", ".exr", ".png"):
        if (path := folder / f"{name}{kind}").exists():
            return read_map(path)
    raise InputError(f"{folder}: no {name}.npy, .exr or .png in it; make a map of each panorama")


def predicted(model: models.SaliencyModel, rgb: np.ndarray) -> np.ndarray:
    """Return the last map of a still, repeated as often as the model sees frames together."""
    *_, (_, saliency) = models.predict(model, [rgb] * model.spec.clip_length)
    return not_negative(saliency)[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_gaze",
        description=__doc__.splitlines()[0],
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder of .npz files")
    add("--ckpt_path", type=Path, nargs="*", default=[CHECKPOINT], help="checkpoints")
    add("--quality", choices=["fast"], help="also score CubeUNets at this quality")
    add("--pred_dir", type=Path, nargs="*", default=[], help="folders of saved maps")
    add("--height", type=at_least(8, 2049, int), default=256, help="rows of the grid of scores")
    add("--latitude", type=at_least(1, 90.1), default=90.0, help="largest absolute latitude in "
        "degrees that is scored")  # fmt: skip
    add("--sigma", type=at_least(0.5, 30), default=5.0, help="standard deviation in degrees of "
        "the Gaussian that blurs fixations for the inter-observer scores")  # fmt: skip
    add("--each", action="store_true", help="also print the CC of each panorama")
    args = parser.parse_args()
    networks = {path.stem: models.load(path) for path in args.ckpt_path}
    if args.quality:
        for path in args.ckpt_path:
            networks[f"{path.stem} {args.quality}"] = models.load(path, quality=args.quality)
    if not (paths := sorted(args.folder.glob("*.npz"))):
        raise InputError(f"{args.folder}: no .npz file in it; check the path")
    for path in paths:
        content = read_set(path)
        if not names_of(content):
            print(f"{path.name}: gaze without panoramas, not scored\n")
            continue
        gaze = GazeSet(content, args.height, args.latitude, args.sigma)
        clips = {}
        for name in tqdm(gaze.names, path.stem, unit="panorama", leave=False, disable=None):
            rgb = gaze.content[f"{name}_rgb"]
            maps = {label: predicted(model, rgb) for label, model in networks.items()}
            maps |= {folder.name: saved_map(folder, name) for folder in args.pred_dir}
            maps["uniform"] = np.ones(gaze.size, np.float32)
            maps["equator prior"] = equator_prior(*gaze.size).numpy()
            clips[name] = {"frames": 1, "scores": gaze.score(name, maps)}
        print(f"{path.name}: {counted(len(clips), 'panorama')}, |latitude| ≤ {args.latitude:g}°\n")
        print(text_table(summary.summarise_clips(clips)), end="\n\n")
        if args.each:
            for name, content in clips.items():
                scores = (f"{label} {s['cc']:.2f}" for label, s in content["scores"].items())
                print(f"{name} CC: {', '.join(scores)}")


if __name__ == "__main__":
    run_script(main)
