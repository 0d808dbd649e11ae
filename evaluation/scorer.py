"""Scores of predicted maps, baselines and observers for each clip."""

import math
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError, counted
from common.protocols import Published
from datasets.gaze import fixation_map, gaussian_map
from datasets.layouts import File, find_layout, read_truth
from datasets.splits import PUBLISHED as SPLITS
from datasets.video_saliency import SaliencyVideos
from evaluation.plots import Picture
from evaluation.summary import BASELINES, INTER_OBSERVER
from metrics import Protocol
from metrics.inter_observer import inter_observer, mean_of_finite
from models.equator_prior import equator_prior
from projection import solid_angles
from video.pictures import read_picture, resize
from video.reader import sampling_step

UNIFORM, EQUATOR, TRAINING = BASELINES
OBSERVERS_EVERY = 5  # scored frames between inter-observer scores, which are slow
TRAINING_FRAMES = 50  # evenly spaced frames of each clip for the mean training map


@dataclass
class ClipScores:
    """Scores of one clip.

    frames: numbers of the scored frames. series: predictor → metric → frame number → value.
    models: predictor → metric → mean, of the models before `merge`.
    irregular: problems with its files, (kind, file).
    picture: the middle frame of those with ground truth.
    worst: the lowest CC of the first model, and its frame.
    """

    frames: list[int] = field(default_factory=list)
    series: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    irregular: list[tuple[str, str]] = field(default_factory=list)
    models: dict[str, dict[str, float]] = field(default_factory=dict)
    picture: Picture | None = None
    worst: tuple[float, Picture] | None = None

    def add(self, predictor: str, number: int, values: dict[str, float]) -> None:
        """Add the values of all metrics for a frame."""
        for metric, value in values.items():
            self.series.setdefault(predictor, {}).setdefault(metric, {})[number] = value

    def means(self) -> dict[str, dict[str, float]]:
        """Return predictor → metric → mean over the frames with a score."""
        return {
            predictor: {metric: mean_of_finite(curve.values()) for metric, curve in curves.items()}
            for predictor, curves in self.series.items()
        }

    def merge(self, rows: dict[str, list[str]]) -> None:
        """Replace all models by rows, each the mean over models with different seeds."""
        self.models = self.means()
        merged = {}
        for row, models in rows.items():
            curves = [self.series.pop(model) for model in models]
            merged[row] = {
                metric: {n: mean_of_finite(c[metric][n] for c in curves) for n in curve}
                for metric, curve in curves[0].items()
            }
        self.series = merged | self.series

    def change(self, predictor: str) -> float:
        """Return the mean absolute change of CC between successive scored frames."""
        curve = self.series.get(predictor, {}).get("cc", {})
        steps = pairwise(curve.get(number, math.nan) for number in self.frames)
        return mean_of_finite(abs(after - before) for before, after in steps)


class Scorer:
    """Score clips of a data set under one protocol, on a grid of `height` × 2 `height` pixels.

    sigma: standard deviation in degrees of the Gaussian that blurs observers' fixations.
    train_root: data set for the mean training map; `data` if None. notes: for readers.
    """

    def __init__(
        self,
        data: SaliencyVideos,
        protocol: Published,
        height: int,
        sigma: float,
        train_root: Path | None,
        device: torch.device,
    ):
        self.data, self.sigma, self.size, self.device = data, sigma, (height, 2 * height), device
        self.published = protocol
        made = find_layout(data.root).packed_format(data.root)
        if made.get("smaller_maps") and made["height"] != height:
            advice = f"give --height {made['height']}, or score on the original"
            raise InputError(f"{data.root}: its maps were packed at another size; {advice}")
        self.protocol = Protocol(protocol.weighting, *self.size).to(device)
        self.notes: list[str] = []
        if missing := set(SPLITS.get(data.split, {}).get("test", [])) - data.clips.keys():
            self.notes.append(f"{counted(len(missing), 'test clip')} of {data.split} are missing")
        if protocol.fps and not all(map(data.rates.of, data.clips)):
            self.notes.append("All frames of clips without a known frame rate were scored.")
        self.baselines = {
            UNIFORM: torch.ones(self.size, device=device),
            EQUATOR: equator_prior(*self.size).to(device),
        }
        if train_root or data.split != "train":
            self._add_training_mean(train_root or data.root)
        self.fixated = {}  # counts over all frames of each clip, for the shuffled AUC
        for clip in data.clips:
            if fixations := data.fixations.of(clip):
                self.fixated[clip] = self._count(fixations.longitudes, fixations.latitudes)
        if self.fixated:
            self.notes.append(f"{INTER_OBSERVER}: CC is what the true density would score; "
                "SIM and KLD compare two halves of the observers.")  # fmt: skip
        self.all_fixated = sum(self.fixated.values(), torch.zeros(self.size, device=device))

    def score(self, clip: str, sources: list, picture: bool = False) -> ClipScores:
        """Score all sources, in frames for which all have a map, baselines and some observers.

        sources: see evaluation/sources.py. picture: whether to include the middle and worst frame.
        """
        result, files, lowest = ClipScores(), self.data.clips[clip], math.inf
        fixations = self.data.fixations.of(clip)
        others = self.all_fixated - self.fixated.get(clip, 0)
        random = np.random.default_rng(zlib.crc32(clip.encode(errors="replace")))
        fps, step = self.data.rates.of(clip), self.published.every
        if self.published.fps:
            step = sampling_step(fps, self.published.fps)
        files = [f if k % step == 0 else replace(f, truth=None) for k, f in enumerate(files)]
        with_truth = [file for file in files if file.truth]
        streams = [source.maps(clip, files, result.irregular, fps) for source in sources]
        for file, *saliencies in zip(with_truth, *streams, strict=True):
            if any(saliency is None for saliency in saliencies):
                continue
            try:
                truth = read_truth(file.truth, *self.size)[0]
            except InputError as error:
                result.irregular.append(("unusable ground truth", str(error)))
                continue
            maps = {
                source.name: torch.from_numpy(resize(saliency, *self.size))
                for source, saliency in zip(sources, saliencies)
            } | self.baselines
            stack = torch.stack([saliency.to(self.device) for saliency in maps.values()])
            truths = {"target": truth.to(self.device).expand_as(stack)}
            if fixations:
                gaze = fixations.at(file.number)
                truths |= {"fixations": self._count(*gaze).expand_as(stack), "others": others}
                truths["prior"] = self.baselines[EQUATOR]
            columns = self.protocol(stack, **truths)
            for row, predictor in enumerate(maps):
                values = {metric: column[row] for metric, column in columns.items()}
                result.add(predictor, file.number, values)
            if fixations and len(result.frames) % OBSERVERS_EVERY == 0:
                observers = fixations.observers[fixations.frames == file.number]
                agreement = inter_observer(
                    *gaze, observers, others, self.protocol, self._count, self._blur, random
                )
                result.add(INTER_OBSERVER, file.number, agreement)
            result.frames.append(file.number)
            if len(result.frames) == 1 or file.number <= with_truth[len(with_truth) // 2].number:
                middle = file, truth, maps
            if columns["cc"][0] < lowest:
                lowest, worst = columns["cc"][0], (file, truth, maps)
        if picture and result.frames:
            result.picture = self._picture(clip, *middle)
            if lowest < math.inf:
                result.worst = lowest, self._picture(clip, *worst)
        return result

    def _picture(self, clip: str, file: File, truth: Tensor, maps: dict[str, Tensor]) -> Picture:
        fixations = self.data.fixations.of(clip)
        frame = resize(read_picture(file.picture), *self.size)
        places = np.stack(fixations.at(file.number), axis=-1) if fixations else None
        predictions = {n: maps[n].numpy() for n in maps if n not in self.baselines}
        return Picture(f"{clip}, frame {file.number}", frame, truth.numpy(), predictions, places)

    def _add_training_mean(self, root: Path) -> None:
        """Add the mean of the training maps, each with integral 1, to the baselines."""
        try:
            data = SaliencyVideos(root, "train", None)
        except InputError as error:
            self.notes.append(f"There is no training mean: {error}")
            return
        total = torch.zeros(self.size, device=self.device)
        areas = solid_angles(*self.size, torch.float64).to(self.device)
        for files in tqdm(data.clips.values(), "training mean", unit="clip", leave=False):
            paths = [file.truth for file in files if file.truth]
            for path in paths[:: math.ceil(len(paths) / TRAINING_FRAMES) or 1]:
                with suppress(InputError):
                    truth = read_truth(path, *self.size)[0].to(self.device)
                    total += truth / (truth * areas).sum()
        if total.any():
            self.baselines[TRAINING] = total
        else:
            self.notes.append("There is no training mean: no training map is usable.")

    def _count(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return fixation_map(longitudes, latitudes, *self.size).to(self.device)

    def _blur(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return gaussian_map(longitudes, latitudes, *self.size, self.sigma).to(self.device)
