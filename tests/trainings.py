"""Scripts in processes that can be killed at a moment of one's choice, alone or in groups.

They are forked from a server that has imported everything already, so each starts at once.
"""

import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401  which the first optimizer would import

import evaluate_video  # noqa: F401  in sys.modules for _run
import infer_video  # noqa: F401
import make_video  # noqa: F401
import models
import train_video
from common import processes
from common.errors import run_script
from losses import SMSE
from tests.clips import write_data_set, write_eccv_clip
from training.config import Config

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--model_args", "height=40", "width=80", "base_channels=4")


class WatchedSMSE(SMSE):
    """A loss that needs fixations."""

    needs_fixations = True

    def loss(self, pred, target, areas, fixations):
        return super().loss(pred, target, areas)


def write_data(root: Path) -> Path:
    """Three training clips of four frames and one to validate."""
    for n in range(4):
        write_eccv_clip(root / f"clip{n}", range(1 + n, 5 + n), 20, 40)
    splits = {"train": ["clip0", "clip1", "clip2"], "val": ["clip3"]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


def write_long_clips(root: Path) -> Path:
    """Two clips of 40 frames to train on, two windows of 20 each, and one to validate."""
    write_eccv_clip(root / "c", range(1, 21), 24, 32)
    return write_data_set(root, "ab", range(1, 41), 24, 32, train=["a", "b"], val=["c"])


def resolve(options: list[str]) -> tuple[Config, models.SaliencyModel]:
    """What train_video.py makes of its options."""
    args = train_video.parse_args(options)
    return train_video.resolve(args, train_video.recipe_of(args.model, args.recipe))


def train(data, output, *options, fault=None, code=0, processes=1) -> str:
    """A training in processes of its own. Checks its exit code and returns what it printed.

    fault: the name of a function below and when it happens, counted from 1.
    """
    arguments = [
        "--data_root", data, "--output_dir", output, "--workers", 0, "--precision", "fp32",
        *TINY, *options,
    ]  # fmt: skip
    return run(train_video, arguments, Path(data) / "printed", fault, code, processes)


def server():
    """The multiprocessing context whose processes are forked from the server."""
    os.environ["PYTHONPATH"] = str(ROOT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainings"])
    forkserver.ensure_running()  # now: it would keep signals blocked that its first user blocks
    return context


def run(script, arguments, printed: Path, fault=None, code=0, processes=1) -> str:
    """The same for the module of any script, with the file that the first process prints to."""
    context = server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(processes):
        group |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        ours = (script.__name__, [*map(str, arguments)], f"{printed}{rank}.txt", fault, group)
        started.append(context.Process(target=_run, args=ours))
        started[-1].start()
    for process in started:
        process.join(60)
    text = Path(f"{printed}0.txt").read_text(encoding="utf-8")
    assert [process.exitcode for process in started] == [code] * processes, text
    assert "Traceback" not in text
    return text


def _run(script: str, arguments: list[str], printed: str, fault, group: dict[str, str]) -> None:
    with open(printed, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data workers
    os.environ |= group
    sys.argv = [f"{script}.py", *arguments]
    if fault:
        name, number = fault
        globals()[name](number)
    run_script(processes.session(sys.modules[script].main))


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_call(owner, name: str, number: int, act) -> None:
    """Calls act() before the number-th call of a function."""
    function, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def wrapped(*args, **kwargs):
        if next(calls) == number:
            act(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def die_in_step(number: int) -> None:
    before_call(train_video, "train_step", number, lambda *_: kill())


def die_in_backward(number: int) -> None:
    before_call(torch.Tensor, "backward", number, lambda *_, **__: kill())


def die_in_validation(number: int) -> None:
    before_call(train_video, "validate", number, lambda *_: kill())


def die_half_way_through_a_save(number: int) -> None:
    def half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        kill()

    before_call(Path, "write_bytes", number, half)


def die_before_a_rename(number: int) -> None:
    before_call(os, "replace", number, lambda *_: kill())


def die_after_logging(number: int) -> None:
    before_call(train_video, "save", number, lambda *_: kill())


def interrupt_a_step(number: int) -> None:
    interrupt = lambda *_: signal.raise_signal(signal.SIGINT)  # noqa: E731
    before_call(train_video, "train_step", number, interrupt)


def interrupt_validation(number: int) -> None:
    before_call(train_video, "validate", number, lambda *_: signal.raise_signal(signal.SIGINT))


def fill_the_disk(number: int) -> None:
    def full(*_):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before_call(torch, "save", number, full)


def compile_fast(number: int) -> None:
    """All of torch.compile but the code that it writes, which takes a minute."""
    torch.compile = partial(torch.compile, backend="aot_eager")


def lose_the_loss(number: int) -> None:
    def spoil(run, batch):
        run.model.head.bias.data.fill_(float("nan"))

    before_call(train_video, "train_step", number, spoil)
