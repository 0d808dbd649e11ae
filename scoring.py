"""Scores of predicted maps, next to floors and the human ceiling, clip by clip."""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
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
from metrics.human import HumanCeiling
from metrics.report import Picture
from metrics.summary import FLOORS, HUMAN, mean_of_finite
from models.equator_prior import equator_prior
from projection import solid_angles
from video.reader import read_picture, resize

UNIFORM, EQUATOR, TRAINING = FLOORS
FRAMES_AT_ONCE = 8  # scored together
CEILING_EVERY = 5  # scored frames, for the human ceiling, which takes longer than the scores
TRAINING_FRAMES = 50  # of each clip, evenly spread, in the mean of the training maps
SAME_TRUTH = 0.98  # correlation of the given truth with the one made of its fixations


@dataclass
class ClipScores:
    """Of one clip: predictor → metric → one value for each of the frames `numbers`."""

    numbers: list[int] = field(default_factory=list)
    frames: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    human: dict[str, float] = field(default_factory=dict)  # metric → score
    picture: Picture | None = None  # of one frame

    def means(self) -> dict[str, dict[str, float]]:
        """Predictor → metric → mean over the frames that have a score."""
        means = {
            predictor: {metric: mean_of_finite(values) for metric, values in scores.items()}
            for predictor, scores in self.frames.items()
        }
        return means | ({HUMAN: self.human} if self.human else {})


class Scorer:
    """Scores clips of a data set by one protocol, on a grid of `height` × 2 `height` pixels.

    train_root: data set whose training maps make the mean; that of `data` if not given, except
        where its own training split is scored.
    sigma: degrees, of the Gaussian that the data set's maps were made with; for the ceiling.
    irregular: what was wrong with the ground truth: (kind, file).
    notes: what a reader of the scores must know.
    """

    def __init__(
        self,
        data: SaliencyVideos,
        protocol: str,
        height: int,
        sigma: float,
        train_root: Path | None = None,
    ):
        self.data, self.sigma, self.size = data, sigma, (height, 2 * height)
        self.protocol = Protocol(protocol, *self.size)
        self.areas = solid_angles(*self.size)
        self.irregular: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.floors = {UNIFORM: torch.ones(self.size), EQUATOR: equator_prior(*self.size)}
        if train_root or data.split != "train":
            self._add_training_mean(train_root or data.root)
        known = ((name, data.fixations.of(name)) for name in data.clips)
        self.fixated = {  # over all frames of a clip; those of other clips make the shuffled AUC
            name: fixation_map(f.longitudes, f.latitudes, *self.size) for name, f in known if f
        }
        self.like_truth: list[float] = []

    def _add_training_mean(self, root: Path) -> None:
        """The mean of the training maps, each with integral 1."""
        try:
            data = SaliencyVideos(root, "train", self.data.spec)
        except InputError as error:
            self.notes.append(f"No mean of the training maps: {error}")
            return
        total = torch.zeros(self.size)
        for files in tqdm(data.clips.values(), "training mean", unit="clip", leave=False):
            known = [file for file in files if file.truth]
            for file in known[:: math.ceil(len(known) / TRAINING_FRAMES) or 1]:
                if (truth := self._truth(file, [])) is not None:
                    total += truth / (truth * self.areas).sum()
        if total.any():
            self.floors[TRAINING] = total
        else:
            self.notes.append("No mean of the training maps: none of them can be used.")

    def _truth(self, file: File, irregular: list[tuple[str, str]]) -> Tensor | None:
        """Its ground truth, (H, W), where it has one that can be used."""
        if not file.truth:
            return None  # the data set has counted it
        try:
            return read_truth(file.truth, *self.size)[0]
        except InputError as error:
            irregular.append(("unusable ground truth", str(error)))
            return None

    def score(
        self, clip: str, name: str, maps: Iterable[tuple[File, Tensor]], picture: bool = False
    ) -> ClipScores:
        """maps: frames of the clip, in order, with what `name` predicts, (h, w) of any size.

        picture: whether to keep the middle one of the clip's frames, to be shown.
        Raises InputError for maps that no metric can take.
        """
        scores = ClipScores(frames={p: defaultdict(list) for p in (name, *self.floors)})
        gaze = ClipGaze(self, clip)
        middle = len(self.data.clips[clip]) // 2
        batch: list[tuple[int, Tensor, Tensor]] = []
        shown = None
        for file, saliency in maps:
            if (truth := self._truth(file, self.irregular)) is None:
                continue
            saliency = torch.from_numpy(resize(saliency.numpy(), *self.size))
            batch.append((file.number, saliency, truth))
            if shown is None or len(scores.numbers) + len(batch) <= middle:
                shown = file, saliency, truth
            if len(batch) == FRAMES_AT_ONCE:
                self._score_batch(batch, name, gaze, scores)
                batch = []
        if batch:
            self._score_batch(batch, name, gaze, scores)
        if picture and shown:
            scores.picture = self._picture(clip, *shown)
        scores.human = gaze.human.scores()
        return scores

    def _score_batch(self, batch: list, name: str, gaze: "ClipGaze", scores: ClipScores) -> None:
        numbers = [number for number, _, _ in batch]
        pred, truth = (torch.stack([item[k] for item in batch]) for k in (1, 2))
        truths = {"target": truth, **gaze.of(numbers)}
        for predictor, maps in {name: pred, **self.floors}.items():
            try:
                values = self.protocol(maps.expand_as(truth), **truths)
            except ValueError as error:
                raise InputError(
                    f"clip {gaze.clip}, frames {numbers[0]} to {numbers[-1]}: map of {predictor}: "
                    f"{error}; make it again"
                ) from error
            for metric, value in values.items():
                scores.frames[predictor][metric] += value
        for index in range(-len(scores.numbers) % CEILING_EVERY, len(batch), CEILING_EVERY):
            gaze.add_to_ceiling(numbers[index], truth[index])
        scores.numbers += numbers

    def _picture(self, clip: str, file: File, saliency: Tensor, truth: Tensor) -> Picture:
        frame = resize(read_picture(file.picture), *self.size)
        fixations = self.data.fixations.of(clip)
        places = np.stack(fixations.at(file.number), axis=-1) if fixations else None
        title = f"{clip}, frame {file.number}"
        return Picture(title, frame, truth.numpy(), saliency.numpy(), places)


class ClipGaze:
    """The fixations of one clip, as metrics take them, and what people make of each other."""

    def __init__(self, scorer: Scorer, clip: str):
        self.clip, self.scorer = clip, scorer
        self.fixations = scorer.data.fixations.of(clip)
        others = [m for name, m in scorer.fixated.items() if name != clip]
        self.others = torch.stack(others).sum(0) if others else torch.zeros(scorer.size)
        height, width = scorer.size
        self.human = HumanCeiling(
            scorer.protocol,
            scorer.areas,
            scorer.floors[EQUATOR],
            partial(fixation_map, height=height, width=width),
            partial(gaussian_map, height=height, width=width, sigma=scorer.sigma),
            seed=zlib.crc32(clip.encode()),
        )

    def of(self, numbers: list[int]) -> dict[str, Tensor]:
        """Counts in each pixel of those frames, (N, H, W), and of other clips; {} if unknown."""
        if not self.fixations:
            return {}
        counts = [fixation_map(*self.fixations.at(n), *self.scorer.size) for n in numbers]
        return {"fixations": torch.stack(counts), "others": self.others}

    def add_to_ceiling(self, number: int, truth: Tensor) -> None:
        """Let people predict each other in that frame, and see what its truth was made of."""
        if not self.fixations:
            return
        there = self.fixations.frames == number
        places = self.fixations.longitudes[there], self.fixations.latitudes[there]
        if there.any():
            made = self.human.blur(*places)
            self.scorer.like_truth.append(cc(made, truth, self.scorer.areas).item())
        self.human.add(*places, self.fixations.observers[there], self.others)
