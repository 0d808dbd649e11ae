"""Scores of predicted maps, of the baselines and of the observers, clip by clip."""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cli import InputError
from datasets.gaze import fixation_map, gaussian_map
from datasets.layouts import File, read_truth
from datasets.video_saliency import SaliencyVideos
from metrics import Protocol, cc
from metrics.inter_observer import inter_observer
from metrics.plots import Picture
from metrics.summary import BASELINES, HUMAN, mean_of_finite
from models.equator_prior import equator_prior
from projection import solid_angles
from video.reader import read_picture, resize

UNIFORM, EQUATOR, TRAINING = BASELINES
OBSERVERS_EVERY = 5  # scored frames; inter-observer scores take longer than the others
TRAINING_FRAMES = 50  # of each clip, evenly spread, in the mean of the training maps


@dataclass
class ClipScores:
    """Scores of one clip: predictor → metric → one value for each of the frames `numbers`."""

    numbers: list[int] = field(default_factory=list)
    frames: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    picture: Picture | None = None  # one frame to look at

    def means(self) -> dict[str, dict[str, float]]:
        """Return predictor → metric → mean over the frames that have a score."""
        return {
            predictor: {metric: mean_of_finite(values) for metric, values in scores.items()}
            for predictor, scores in self.frames.items()
        }

    def add(self, predictor: str, values: dict[str, float]) -> None:
        """Add the values of one frame."""
        scores = self.frames.setdefault(predictor, {})
        for metric, value in values.items():
            scores.setdefault(metric, []).append(value)


class Scorer:
    """Scores clips of a data set under one protocol, on a grid of `height` × 2 `height` pixels.

    sigma: width in degrees of the Gaussian that blurs the fixations of observers; it should be
        the one that the data set's ground truth was made with.
    train_root: data set whose training maps make the mean among the baselines; `data` if None.
    device: where metrics are computed.

    irregular: problems with the ground truth, (kind, file).
    notes: sentences that a reader of the scores must know.
    like_truth: correlations of the given ground truth with its fixations blurred by sigma.
    """

    def __init__(
        self,
        data: SaliencyVideos,
        protocol: str,
        height: int,
        sigma: float,
        train_root: Path | None = None,
        device: torch.device | str = "cpu",
    ):
        self.data, self.sigma, self.size, self.device = data, sigma, (height, 2 * height), device
        self.protocol = Protocol(protocol, *self.size).to(device)
        self.areas = solid_angles(*self.size, torch.float64).to(device)
        self.irregular: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.like_truth: list[float] = []
        self.baselines = {
            UNIFORM: torch.ones(self.size, device=device),
            EQUATOR: equator_prior(*self.size).to(device),
        }
        if train_root or data.split != "train":
            self._add_training_mean(train_root or data.root)
        known = ((name, data.fixations.of(name)) for name in data.clips)
        self.fixated = {  # counts over all frames of each clip, for the shuffled AUC
            name: self._count(f.longitudes, f.latitudes) for name, f in known if f
        }

    def score(
        self, clip: str, name: str, maps: Iterable[tuple[File, Tensor]], picture: bool = False
    ) -> ClipScores:
        """Score what `name` predicts for a clip, the baselines, and observers in every fifth frame.

        maps: frames of the clip, in order, each with its map (h, w) of any size.
        picture: whether to keep the middle frame of the clip, to be shown.
        Raises InputError for maps that no metric can score.
        """
        scores, shown = ClipScores(), None
        fixations = self.data.fixations.of(clip)
        unknown = torch.zeros(self.size, device=self.device)
        others = sum(self.fixated.values(), unknown) - self.fixated.get(clip, unknown)
        stack = torch.stack([unknown, *self.baselines.values()])
        random = np.random.default_rng(zlib.crc32(clip.encode()))
        for file, saliency in maps:
            if (truth := self._truth(file, self.irregular)) is None:
                continue
            saliency = torch.from_numpy(resize(saliency.numpy(), *self.size))
            stack[0] = saliency
            truths = {"target": truth.expand_as(stack)}
            if fixations:
                counts = self._count(*fixations.at(file.number))
                truths |= {"fixations": counts.expand_as(stack), "others": others}
            try:
                values = self.protocol(stack, **truths)
            except ValueError as error:
                place = f"clip {clip}, frame {file.number}"
                raise InputError(f"{place}: map of {name}: {error}; make it again") from error
            for index, predictor in enumerate((name, *self.baselines)):
                scores.add(predictor, {metric: value[index] for metric, value in values.items()})
            if fixations:
                chosen = len(scores.numbers) % OBSERVERS_EVERY == 0
                found = self._observers(fixations, file, truth, others, random) if chosen else {}
                scores.add(HUMAN, {metric: found.get(metric, math.nan) for metric in values})
            scores.numbers.append(file.number)
            if not shown or len(scores.numbers) <= len(self.data.clips[clip]) // 2:
                shown = file, saliency, truth
        if not any(map(math.isfinite, scores.means().get(HUMAN, {}).values())):
            scores.frames.pop(HUMAN, None)
        if picture and shown:
            scores.picture = self._picture(clip, *shown)
        return scores

    def _add_training_mean(self, root: Path) -> None:
        """Add the mean of the training maps, each with integral 1, to the baselines."""
        try:
            data = SaliencyVideos(root, "train", self.data.spec)
        except InputError as error:
            self.notes.append(f"There is no training mean: {error}")
            return
        total = torch.zeros(self.size, device=self.device)
        for files in tqdm(data.clips.values(), "training mean", unit="clip", leave=False):
            known = [file for file in files if file.truth]
            for file in known[:: math.ceil(len(known) / TRAINING_FRAMES) or 1]:
                if (truth := self._truth(file, [])) is not None:
                    total += truth / (truth * self.areas).sum()
        if total.any():
            self.baselines[TRAINING] = total
        else:
            self.notes.append("There is no training mean: no training map is usable.")

    def _truth(self, file: File, irregular: list[tuple[str, str]]) -> Tensor | None:
        """Return the ground truth of a frame, (H, W), or None where there is no usable one."""
        if not file.truth:
            return None  # counted by the data set
        try:
            return read_truth(file.truth, *self.size)[0].to(self.device)
        except InputError as error:
            irregular.append(("unusable ground truth", str(error)))
            return None

    def _count(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return fixation_map(longitudes, latitudes, *self.size).to(self.device)

    def _blur(self, longitudes: np.ndarray, latitudes: np.ndarray) -> Tensor:
        return gaussian_map(longitudes, latitudes, *self.size, self.sigma).to(self.device)

    def _observers(self, fixations, file: File, truth: Tensor, others: Tensor, random) -> dict:
        """Return the inter-observer scores of a frame, and compare its truth with its fixations."""
        there = fixations.frames == file.number
        places = fixations.longitudes[there], fixations.latitudes[there]
        if there.any():
            self.like_truth.append(cc(self._blur(*places), truth, self.areas).item())
        observers, maps = fixations.observers[there], (self._count, self._blur)
        return inter_observer(*places, observers, others, self.protocol, *maps, random)

    def _picture(self, clip: str, file: File, saliency: Tensor, truth: Tensor) -> Picture:
        frame = resize(read_picture(file.picture), *self.size)
        fixations = self.data.fixations.of(clip)
        places = np.stack(fixations.at(file.number), axis=-1) if fixations else None
        title = f"{clip}, frame {file.number}"
        return Picture(title, frame, truth.cpu().numpy(), saliency.numpy(), places)
