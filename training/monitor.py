"""Training metrics and logging: running loss, scores, best constant map, TensorBoard."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common import processes
from common.devices import autocast
from common.errors import InputError, RunError
from common.files import atomic, write_text
from datasets.video_saliency import SaliencyVideos
from metrics import METRICS
from projection import solid_angles
from training.batches import loss_sum
from video.layout import rgb_array
from video.pictures import unit

PREDICTIONS = "predictions.png"
LEARNING_RATE_ADVICE = "lower --learning_rate; the previous checkpoint is kept"


class RunningLoss:
    """The mean loss over the valid maps of an epoch, read a step later so that GPUs do not wait.

    total, count: sums over the maps of this process. error: for a loss that is not finite.
    """

    def __init__(self, total: float = 0.0, count: int = 0):
        self.total, self.count, self.error = total, count, ""
        self._pending: tuple[Tensor, dict] | None = None

    def add(self, loss: Tensor, batch: dict) -> None:
        """loss: sum over the valid maps of a batch, a detached scalar."""
        self._read()
        self._pending = loss, batch

    def _read(self) -> None:
        if not self._pending:
            return
        (pending, batch), self._pending = self._pending, None
        loss = pending.item()
        self.total, self.count = self.total + loss, self.count + int(batch["valid"].sum())
        if not math.isfinite(loss) and not self.error:
            frames = [f"{n} {i.tolist()}" for n, i in zip(batch["name"], batch["numbers"])]
            self.error = f"the loss is {loss} at frames {', '.join(frames)}"

    def sums(self) -> tuple[float, int]:
        """Return loss and number of maps over all processes, or raise RunError in all of them."""
        self._read()
        if error := "; ".join(filter(None, processes.gather(self.error))):
            raise RunError(f"{error}; check these frames, or {LEARNING_RATE_ADVICE}")
        total, count = processes.total([self.total, self.count]).tolist()
        return total, int(count)

    def mean(self) -> float:
        """Return the mean over all processes, NaN without a valid map; raises as `sums` does."""
        total, count = self.sums()
        return total / count if count else math.nan


class MeanScores:
    """Means over frames of CC and, given fixations, NSS, weighted by exact solid angles."""

    NAMES = ("cc", "nss")

    def __init__(self, height: int, width: int, device: torch.device):
        self.areas = solid_angles(height, width, torch.float64).to(device)
        self.sums = torch.zeros(len(self.NAMES), 2, dtype=torch.float64)  # of scores, of frames

    def add(self, maps: Tensor, batch: dict) -> None:
        """maps: (B, T, 1, H, W). batch: of SaliencyVideos, whose valid maps count."""
        valid, kinds = batch["valid"], batch.keys() & {"target", "fixations"}
        truths = {kind: batch[kind][valid][:, 0].to(maps.device) for kind in kinds}
        pred = maps[valid.to(maps.device)][:, 0].float()
        for name, sums in zip(self.NAMES, self.sums):
            metric = METRICS[name]
            if truths.keys() >= set(metric.needs):
                needed = (truths[need] for need in metric.needs)
                scores = metric.function(pred, *needed, weights=self.areas).cpu()
                sums += torch.stack([scores.nansum(), (~scores.isnan()).sum()])

    def means(self) -> dict[str, float]:
        """Return the mean of each metric with a score; all processes must call this."""
        sums = processes.total(self.sums).tolist()
        return {name: s / count for name, (s, count) in zip(self.NAMES, sums) if count}


def best_constant(
    data: SaliencyVideos, loss_of: nn.Module, device: torch.device
) -> dict[str, float]:
    """Return loss and scores of the best single map for a split, which a model must beat.

    For a squared error this is the mean map, for a divergence the mean of the maps scaled to sum 1;
    each score is the better one of these two. Keys: best_constant, its loss if finite, and
    best_constant_<metric>. Unusable maps, more than half, raise InputError.
    """
    size = data.spec.height, data.spec.width
    sums, count = torch.zeros(2, 1, *size), 0
    for truth in _usable_truths(data):
        for target in truth["target"][truth["valid"]]:
            sums += torch.stack([target, target / target.sum()])
            count += 1
    count = int(processes.total(count))
    listed = sum(file.truth is not None for sample in data.samples for file in sample.files)
    if 2 * count < listed:
        problem = f"{count} of {listed} maps are usable; 'python evaluate_video.py --check' lists"
        raise InputError(f"{data.root}: split '{data.split}': {problem} what is wrong")
    means = (processes.total(sums) / count).float().to(device)
    losses, scores = [0.0, 0.0], [MeanScores(*size, device) for _ in means]
    for truth in _usable_truths(data):
        for k, mean in enumerate(means):
            maps = mean.expand(truth["target"].shape)
            losses[k] += loss_sum(loss_of, maps, truth).item()
            scores[k].add(maps, truth)
    loss = processes.total(losses).min().item() / count
    one, other = (both.means() for both in scores)
    best = {f"best_constant_{name}": max(one[name], other[name]) for name in one}
    return ({"best_constant": loss} if math.isfinite(loss) else {}) | best


def _usable_truths(data: SaliencyVideos) -> Iterator[dict[str, Tensor]]:
    """Yield the ground truths of this process' valid samples, each as a batch of one."""
    samples = processes.shard(data.samples)
    for sample in tqdm(samples, "best constant map", leave=False, disable=None):
        truths = data.truths(sample, [])
        if truths["valid"].any():
            yield {name: tensor[None] for name, tensor in truths.items()}


class Monitor:
    """Progress bar, TensorBoard events and log.jsonl of a run, in the main process."""

    def __init__(self, folder: Path, run):
        self.folder, main = folder, processes.is_main()
        validated = run.step < (len(run.log) + 1) * run.order.epoch_steps
        purge_step = run.step + validated  # later events are of a killed run
        self.board = SummaryWriter(folder / "tensorboard", purge_step=purge_step) if main else None
        self.bar = tqdm(total=run.order.steps, initial=run.step, unit="step", disable=not main)

    def show(self, run) -> None:
        """Show epoch, loss and validation scores, in () those of the best constant map."""
        epoch = math.ceil(run.step / run.order.epoch_steps)
        self.bar.set_description(f"epoch {epoch}/{run.config.epochs}", refresh=False)
        constant, last = run.best_constant, run.log[-1] if run.log else {}
        mean = f"{run.losses.total / run.losses.count:.4g}" if run.losses.count else "…"
        text = f"loss {mean} ({constant.get('best_constant', math.nan):.4g})"
        for name in MeanScores.NAMES:
            if (score := last.get(f"val_{name}")) is not None:
                text += f", {name.upper()} {score:.3f} ({constant[f'best_constant_{name}']:.3f})"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(run.step - self.bar.n)

    @torch.inference_mode()
    def write(self, run, **scalars: float) -> None:
        """Write log.jsonl, and scalars and pictures of four validation clips to TensorBoard.

        They show last frame, ground truth and prediction, each map divided by its maximum.
        predictions.png contains all four.
        """
        if not self.board:
            return
        for name, value in scalars.items():
            self.board.add_scalar(name, value, run.step)
        rows, training = [], run.result.training
        count, device = len(run.data["val"]), run.config.device
        run.result.eval()
        for index in sorted({(2 * k + 1) * count // 8 for k in range(4)}):
            clip = run.data["val"][index]
            clip |= {name: unit(clip[name]) for name in ("frames", "motion")}
            with autocast(device, run.config.precision):
                frames, motion = (clip[name][None].to(device) for name in ("frames", "motion"))
                prediction = run.result(frames, motion)[0, -1].float().cpu()
            row = [clip["frames"][-1]]
            for saliency in (clip["target"][-1], prediction):
                shown = saliency.clamp(min=0) / saliency.max().clamp(min=1e-12)
                row.append(shown.expand(3, -1, -1))
            name = f"frame, truth, prediction/{clip['name']} {clip['numbers'][-1]}"
            rows.append(torch.cat(row, dim=-1).clamp(0, 1))
            self.board.add_image(name, rows[-1], run.step)
        with atomic(self.folder / PREDICTIONS) as temporary:
            Image.fromarray(rgb_array(torch.cat(rows, dim=-2))).save(temporary)
        run.result.train(training)
        self.board.flush()
        write_text(self.folder / "log.jsonl", "".join(f"{json.dumps(line)}\n" for line in run.log))
