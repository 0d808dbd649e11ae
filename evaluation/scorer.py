"""Scores of predicted maps, of the baselines and of the observers, clip by clip."""

import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError
from datasets.gaze import fixation_map, gaussian_map
from datasets.layouts import File, read_truth
from datasets.video_saliency import SaliencyVideos
from evaluation.plots import Picture
from evaluation.summary import BASELINES, HUMAN
from metrics import Protocol
from metrics.inter_observer import inter_observer, mean_of_finite
from metrics.saliency import check_maps
from models.equator_prior import equator_prior
from projection import solid_angles
from video.pictures import read_picture, resize

UNIFORM, EQUATOR, TRAINING = BASELINES
OBSERVERS_EVERY = 5  # scored frames; inter-observer scores take longer than the others
TRAINING_FRAMES = 50  # of each clip, evenly spread, in the mean of the training maps


@dataclass
class ClipScores:
    """Scores of one clip.

    frames: frame number → predictor → metric → value.
    irregular: problems found with its files, (kind, file).
    picture: one frame to look at.
    """

    frames: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    irregular: list[tuple[str, str]] = field(default_factory=list)
    picture: Picture | None = None

    def means(self) -> dict[str, dict[str, float]]:
        """Return predictor → metric → mean over the frames that have a score."""
        values: dict[str, dict[str, list[float]]] = {}
        for frame in self.frames.values():
            for predictor, scores in frame.items():
                for metric, value in scores.items():
                    values.setdefault(predictor, {}).setdefault(metric, []).append(value)
        return {
            predictor: {metric: mean_of_finite(column) for metric, column in columns.items()}
            for predictor, columns in values.items()
        }


def common(streams: Iterable[Iterator]) -> Iterator[tuple[File, list[Tensor]]]:
    """Yield the frames that are in all streams of (frame, map), which are in order, with the maps.

    Each frame of a clip is known by its picture.
    """
    streams = list(streams)
    heads = [next(stream, None) for stream in streams]
    while None not in heads:
        last = max((file.number, file.picture) for file, _ in heads)
        behind = [(file.number, file.picture) < last for file, _ in heads]
        if not any(behind):
            yield heads[0][0], [saliency for _, saliency in heads]
            behind = [True] * len(heads)
        heads = [next(s, None) if b else h for s, b, h in zip(streams, behind, heads)]


class Scorer:
    """Scores clips of a data set under one protocol, on a grid of `height` × 2 `height` pixels.

    sigma: width in degrees of the Gaussian that blurs the fixations of observers; it should be
        the one that the data set's ground truth was made with.
    train_root: data set whose training maps make the mean among the baselines; `data` if None.
    device: where metrics are computed.

    notes: sentences that a reader of the scores must know.
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
        self.notes: list[str] = []
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

    def score(self, clip: str, sources: list, picture: bool = False) -> ClipScores:
        """Score what sources predict for a clip, the baselines, and observers in some frames.

        sources: their maps(clip, irregular) yield frames with ground truth, in order, each with a
            map (h, w) of any size, and add problems to the list `irregular`; they have names.
            Frames are scored that all sources have.
        picture: whether to keep the middle frame of the clip with the first source's map.
        Maps that no metric can score are added to `irregular`.
        """
        scores, fixations = ClipScores(), self.data.fixations.of(clip)
        unknown = torch.zeros(self.size, device=self.device)
        others = sum(self.fixated.values(), unknown) - self.fixated.get(clip, unknown)
        predictors = *(source.name for source in sources), *self.baselines
        stack = torch.stack([*[unknown] * len(sources), *self.baselines.values()])
        random = np.random.default_rng(zlib.crc32(clip.encode()))
        for file, maps in common(source.maps(clip, scores.irregular) for source in sources):
            try:
                truth = read_truth(file.truth, *self.size)[0].to(self.device)
            except InputError as error:
                scores.irregular.append(("unusable ground truth", str(error)))
                continue
            maps = [torch.from_numpy(resize(saliency.numpy(), *self.size)) for saliency in maps]
            stack[: len(maps)] = torch.stack(maps)
            truths = {"target": truth.expand_as(stack)}
            if fixations:
                counts = self._count(*fixations.at(file.number))
                truths |= {"fixations": counts.expand_as(stack), "others": others}
            try:
                for name, saliency in zip(predictors, maps):
                    check_maps(**{f"map of {name}": saliency})
            except ValueError as error:
                place = f"clip {clip}, frame {file.number}"
                scores.irregular.append(("unusable map", f"{place}: {error}; make it again"))
                continue
            values = self.protocol(stack, **truths)
            frame = {
                predictor: {metric: value[index] for metric, value in values.items()}
                for index, predictor in enumerate(predictors)
            }
            if fixations and len(scores.frames) % OBSERVERS_EVERY == 0:
                there = fixations.frames == file.number
                columns = fixations.longitudes, fixations.latitudes, fixations.observers
                gaze, draw = (column[there] for column in columns), (self._count, self._blur)
                frame[HUMAN] = inter_observer(*gaze, others, self.protocol, *draw, random)
            scores.frames[file.number] = {name: found for name, found in frame.items() if found}
            if picture and len(scores.frames) <= max(1, len(self.data.clips[clip]) // 2):
                shown = file, maps[0], truth
        if picture and scores.frames:
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

    def _picture(self, clip: str, file: File, saliency: Tensor, truth: Tensor) -> Picture:
        frame = resize(read_picture(file.picture), *self.size)
        fixations = self.data.fixations.of(clip)
        places = np.stack(fixations.at(file.number), axis=-1) if fixations else None
        title = f"{clip}, frame {file.number}"
        return Picture(title, frame, truth.cpu().numpy(), saliency.numpy(), places)
