"""Several processes compute what one does: gloo on the CPU, with and without torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import evaluate_video
import infer_video
import models
from common import processes
from common.errors import run_script
from datasets.video_saliency import SaliencyVideos, collate
from losses import SMSE, SphericalKLDivergence
from tests.clips import write_video
from tests.trainings import ROOT, TINY, run, server, train, write_data, write_long_clips
from training.batches import Batches

pytestmark = pytest.mark.slow

# Where learning is fast, rounding makes ReLUs switch: with the default recipe two orders of the
# same batch in one process differ by more than 1e-4 after a few steps of so small a network.
OPTIONS = ("--epochs", 2, "--batch_size", 4, "--ema", 0.9, "--augment", "yaw", "mirror", "light",
           "--recipe", "paper", *TINY, "backbone=plain")  # fmt: skip
SST_SAL = ("--model", "sst_sal", "--motion", "none", "--epochs", 2, "--skip_frames", 0,
           "--batch_size", 2, "--lr", 5, "--model_args", "height=24", "width=32")  # fmt: skip


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def pictures(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def assert_same_losses(one, other):
    assert [line["epoch"] for line in log(one)] == [line["epoch"] for line in log(other)]
    for name in ("train_loss", "val_loss", "val_cc", "best_constant", "best_constant_cc",
                 "learning_rate", "step"):  # fmt: skip
        values = [[line[name] for line in log(folder)] for folder in (one, other)]
        np.testing.assert_allclose(*values, rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """With a map in each of two clips that can't be used: shares of a batch are not equal."""
    root = write_data(tmp_path_factory.mktemp("data") / "scenes")
    for name in ("clip0/0002", "clip3/0004"):
        np.save(root / f"{name}_gt.npy", np.zeros((20, 40), np.float32))
    return root


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(data, folder, *OPTIONS)
    return folder


def gradient_descent(root, model, loss_of, batch_size, steps, rate):
    """Plain steps on whole batches: what the training loop must do, however it is divided."""
    clips = SaliencyVideos(root, "train", model.spec)
    for keys, _ in zip(Batches(len(clips), 0, batch_size, seed=0, epochs=2), range(steps)):
        batch = collate([clips[index] for _, index in keys])
        maps = model.train()(batch["frames"], batch["motion"])
        valid = batch["valid"]
        loss = loss_of(maps[valid], batch["target"][valid])
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, tuple(model.parameters()))):
            p.data -= rate * g
    return model.state_dict()


@pytest.mark.parametrize("divided", [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["cube_unet", "sst_sal"])
def test_weights_follow_plain_gradient_descent(tmp_path, data, name, divided):
    """For a mean over maps and a sum, in which some maps are invalid; parts change batch norms."""
    processes, parts = divided
    torch.manual_seed(0)
    if name == "cube_unet":
        if parts > 1:
            pytest.skip("each part of a batch has its own batch statistics")
        root, model, loss_of = data, models.CubeUNet(base_channels=4, height=40, width=80), SMSE()
        arguments, rate = (*TINY, "backbone=plain"), 0.02
    else:
        root = write_long_clips(tmp_path / "long")
        for number in range(1, 8):
            (root / f"a/{number:04d}_gt.npy").unlink()
        model = models.SSTSal(3, 9, height=24, width=32)
        loss_of, rate = SphericalKLDivergence(), 5.0
        arguments = SST_SAL
    options = (*arguments, "--epochs", 1, "--samples", 8, "--batch_size", 4, "--recipe", "paper",
               "--momentum", 0, "--weight_decay", 0, "--accumulate", parts)  # fmt: skip
    # The loss of SST-Sal is trained in units of 240×320 pixels.
    scale = 24 * 32 / (240 * 320) if name == "sst_sal" else 1
    train(root, tmp_path / "run", *options, "--lr", rate, processes=processes)
    state = torch.load(tmp_path / f"run/{name}_last.pth", weights_only=True)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    expected = gradient_descent(root, model, loss_of, batch_size=4, steps=2, rate=rate * scale)
    for key, _ in model.named_parameters():  # rounding grows from step to step
        update, error = expected[key] - start[key], expected[key] - state["weights"][key]
        assert error.abs().max() <= 0.01 * update.abs().max(), key
    assert state["step"] == 2


def test_each_process_draws_its_own_dropout_masks(data, tmp_path):
    """Also those that join a run of fewer processes."""
    words = ("--batch_size", 4, "--samples", 4, "--epochs")
    for epochs, count in ((1, 2), (2, 2), (3, 1), (4, 2)):
        train(data, tmp_path, *words, epochs, processes=count)
        states = torch.load(tmp_path / "cube_unet_last.pth", weights_only=True)["random"]
        assert len({state["cpu"].numpy().tobytes() for state in states}) == count


def test_torchrun_follows_the_losses_of_one_process(data, alone, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
               2, ROOT / "train_video.py", "--data_root", data, "--output_dir", tmp_path,
               "--workers", 0, "--precision", "fp32", *TINY, *OPTIONS]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("of the best constant map on val") == 1  # one process prints
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert pictures(tmp_path) == pictures(alone)  # of the same four clips
    assert_same_losses(alone, tmp_path)


def test_parts_are_normalised_alike_in_one_process_and_in_two(data, tmp_path):
    options = (*OPTIONS, "--accumulate", 2)
    train(data, tmp_path / "one", *options)
    train(data, tmp_path / "two", *options, processes=2)
    assert_same_losses(tmp_path / "one", tmp_path / "two")


def test_another_number_of_processes_goes_on_with_a_run(data, alone, tmp_path):
    options = (*OPTIONS, "--save_minutes", 0)
    fault = ("die_in_step", 5)
    train(data, tmp_path, *options, processes=2, fault=fault, code=-signal.SIGKILL)
    assert "resumed after step 4" in train(data, tmp_path, *options)
    assert_same_losses(alone, tmp_path)


def test_all_processes_stop_at_a_loss_that_is_not_finite(data, tmp_path):
    options = ("--epochs", 2, "--batch_size", 4)
    message = train(data, tmp_path, *options, processes=2, fault=("lose_the_loss", 5), code=1)
    assert "the loss is nan at frames clip" in message
    state = torch.load(tmp_path / "cube_unet_last.pth", weights_only=True)
    assert [line["epoch"] for line in state["log"]] == [1]


def test_a_batch_for_all_processes(data, tmp_path):
    message = train(data, tmp_path, "--batch_size", 3, processes=2, code=2)
    assert "--batch_size 3: can't be divided among 2 processes" in message


def test_a_batch_is_the_same_clips_for_any_number_of_processes(monkeypatch):
    order = Batches(clips=10, samples=0, batch_size=4, seed=1, epochs=2)
    whole = list(order)
    monkeypatch.setattr(processes, "world", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        shares.append(list(order))
    for batch, *parts in zip(whole, *shares):
        assert [len(part) for part in parts] == [2, 2]
        assert sorted(sum(parts, [])) == sorted(batch)


def test_clips_are_shared_by_infer(tmp_path):
    model = models.CubeUNet(base_channels=4, height=40, width=80)
    models.save(tmp_path / "tiny.pth", model)
    clips = [write_video(tmp_path / f"{n}.mp4", frames=n, fps=8) for n in (5, 6, 7)]
    options = ("--ckpt_path", tmp_path / "tiny.pth", "--precision", "fp32", "--save_npy")
    shared = ("--output_dir", tmp_path / "shared")
    run(infer_video, ["--video_path", *clips, *shared, *options], tmp_path / "p", processes=2)
    for n, clip in zip((5, 6, 7), clips):
        alone = tmp_path / f"alone{n}"
        run(infer_video, ["--video_path", clip, "--output_dir", alone, *options], tmp_path / "p")
        together = {p.name: p.read_bytes() for p in (tmp_path / f"shared/{n}").iterdir()}
        assert together == {p.name: p.read_bytes() for p in alone.iterdir()}
        assert len(together) == 2 * n + 1


def test_clips_are_shared_by_evaluate(data, alone, tmp_path):
    """With the unusable map of one clip among what is told."""
    told = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        options = ("--ckpt_path", alone / "cube_unet_best.pth", "--precision", "fp32")
        arguments = ("--data_root", data, "--split", "train", "--height", 24, *options)
        run(evaluate_video, [*arguments, "--output_dir", folder], tmp_path / "p", None, 0, number)
        told.append(json.loads((folder / "metrics.json").read_text()) | {"command": ""})
        assert {path.name for path in folder.iterdir()} == {"metrics.json", "metrics.csv"}
    assert told[0] == told[1]
    assert "unusable ground truth" in " ".join(told[0]["notes"])


# Functions for groups of processes; what they assert, they assert in each.


def in_processes(function, count, folder):
    context = server()
    started = [
        context.Process(target=_in_group, args=(function, rank, count, str(folder)))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0] * count


def _in_group(function, rank, count, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count
    )
    function()
    torch.distributed.destroy_process_group()


def batch_norm_is_that_of_all_batches():
    generator = torch.Generator().manual_seed(0)
    x = 5 + torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64).float()
    weight = torch.randn(6, 3, 4, 5, generator=generator)
    share = slice(3 * processes.rank(), 3 * processes.rank() + 3)
    plain, ours = (nn.Sequential(nn.BatchNorm2d(3)) for _ in range(2))
    for network in (plain, ours):
        network[0].weight.data = torch.tensor([0.5, 1.0, 2.0])
        network[0].bias.data = torch.tensor([0.1, 0.2, 0.3])
    ours = processes.parallel(ours, torch.device("cpu"))
    whole, part = x.clone().requires_grad_(), x[share].clone().requires_grad_()
    expected, actual = plain(whole), ours(part)
    (expected * weight).sum().backward()
    (actual * weight[share]).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(actual, expected[share], **close)
    torch.testing.assert_close(part.grad, whole.grad[share], **close)
    for name, parameter in plain.named_parameters():  # gradients are averaged
        averaged = dict(ours.module.named_parameters())[name].grad
        torch.testing.assert_close(2 * averaged, parameter.grad, **close)
    torch.testing.assert_close(ours.module.state_dict(), plain.state_dict(), **close)
    ours.module.eval(), plain.eval()
    torch.testing.assert_close(ours.module(x), plain(x), **close)


def lists_are_shared_and_put_together():
    rank, world = processes.rank(), processes.world()
    assert world == 3
    assert processes.shard("abcdefg") == [["a", "d", "g"], ["b", "e"], ["c", "f"]][rank]
    assert processes.gather(rank * "x") == ["", "x", "xx"]
    assert processes.total([rank, 1, 0.5]).tolist() == [3, 3, 1.5]
    assert processes.total(torch.full((2, 2), rank)).tolist() == [[3, 3], [3, 3]]
    assert processes.is_main() == (rank == 0)


def test_batch_norm_of_two_processes(tmp_path):
    in_processes(batch_norm_is_that_of_all_batches, 2, tmp_path)


def test_lists_of_three_processes(tmp_path):
    in_processes(lists_are_shared_and_put_together, 3, tmp_path)


def meet(rank, port, patient, absent, printed):
    """A script of two processes, of which the second comes late or does not come."""
    for stream in (1, 2):
        os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT), stream)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    processes.START_TIMEOUT, processes.TIMEOUT = timedelta(seconds=3), timedelta(seconds=60)

    def main():
        if patient:
            processes.extend_timeout()
        time.sleep(5 * rank)
        print("sum", processes.total(1).item())

    time.sleep(60 * (rank and absent))
    run_script(processes.session(main))


@pytest.mark.parametrize("patient, absent", [(False, True), (True, False)])
def test_waits_at_the_start_end(tmp_path, patient, absent):
    """A training of two processes hung at its start, with a time limit of a day."""
    context, printed = server(), [tmp_path / n for n in "ab"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=meet, args=(rank, port, patient, absent, printed[rank]))
        for rank in range(2)
    ]
    for process in started:
        process.start()
    started[0].join(60)
    if absent:  # as torchrun ends those that are left
        started[1].kill()
    started[1].join(60)
    codes = [process.exitcode for process in started]
    told = [path.read_text() if path.exists() else "" for path in printed]
    if patient:
        assert codes == [0, 0]
        assert [text.splitlines()[-1] for text in told] == ["sum 2.0"] * 2  # gloo may print, too
    else:
        assert codes[0] == 1 and "sum" not in told[0] and "can't connect" in told[0]
