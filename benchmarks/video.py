"""How much of the time that a clip takes is the network's and the encoder's own.

    python -m benchmarks.video [clip] [--repeats 3] [--long]

Without a clip, one of 3840×1920 is made up: four seconds of a panorama that turns, with grain.
Both sides of a ratio run in turn in this process, with all threads that they take by themselves.
The network alone and the encoder alone find their pictures in memory, so a clip should be short.
--long adds what takes a quarter of an hour: peak memory for a clip ten times as long, and times
over length and resolution with the exponents of frames and pixels by which they grow.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch

import infer_video
import make_video
import models
from benchmarks.timing import interleaved
from common.devices import autocast, choose_device, choose_precision
from common.options import CHECKPOINT
from maps.folder import MapFolder
from maps.interpolate import interpolate
from maps.saved import write_map
from video.decoding import Damage, probe
from video.reader import read_frames
from video.writer import write_video
from views.frames import frames_with_maps
from views.overlay import painted_pictures

ROOT = Path(__file__).resolve().parents[1]
# Runs a command and prints its peak memory in MB, as a process that is small by itself: the peak of
# a process begins with the memory of the one that starts it.
MEASURE = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"""
ENCODED = 120  # frames that wait in memory for the encoder: 1.3 GB at 3840×1920


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path, nargs="?", help="video; made up if not given")
    parser.add_argument("--width", type=int, default=3840, help="its pixels, if made up")
    parser.add_argument("--frames", type=int, default=120, help="its length, if made up")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each measurement")
    parser.add_argument("--long", action="store_true", help="also memory, lengths and resolutions")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: auto)")
    args = parser.parse_args()
    device = choose_device(args.device)
    precision = autocast(device, choose_precision("auto", device))
    with tempfile.TemporaryDirectory() as folder, precision:
        folder = Path(folder)
        clip = args.clip or made_up(folder / "clip.mp4", args.width, args.frames)
        compare(clip, folder, device, args.repeats)
        if args.long:
            memory(clip, looped(clip, 10, folder / "long.mp4"), folder)
            growth(folder, device)


def deployed(device: torch.device) -> models.SaliencyModel:
    """Return the shipped network as infer_video.py runs it."""
    model = models.load(CHECKPOINT, device)
    return models.deploy(model, choose_precision("auto", device))


def compare(clip: Path, folder: Path, device: torch.device, repeats: int) -> None:
    """Print the ratios for one clip."""
    model, info = deployed(device), probe(clip)
    rate, looks = float(info.fps), list(read_frames(clip, model.spec))
    some = models.Spec(model.spec.height, model.spec.width, motion="none")
    every = replace(some, fps=rate)
    infer(model, clip, folder / "maps")
    number, pairs = len(list((folder / "maps").glob("*.png"))), list(models.predict(model, looks))
    painted = list(islice(paint(clip, folder / "maps"), ENCODED))

    def write_alone() -> None:
        (folder / "alone").mkdir(exist_ok=True)
        for n, saliency in interpolate(pairs):
            write_map(folder / f"alone/sal_{n:04d}.png", saliency, save_npy=False)

    def encode(pictures: Iterable) -> None:
        write_video(folder / "overlay.mp4", info, pictures)

    parts = {
        "the network alone": lambda: deque(models.predict(model, looks), 0),
        "decoding alone": lambda: deque(read_frames(clip, model.spec), 0),
        "writing alone": write_alone,
    }
    functions = parts | {
        "infer_video": lambda: infer(model, clip, folder / "maps"),
        "overlay": lambda: encode(islice(paint(clip, folder / "maps"), len(painted))),
        "encoding alone": lambda: encode(painted),
        "every frame, small": lambda: deque(read_frames(clip, every), 0),
        "every frame, OpenCV": lambda: opencv(clip, every, 1),
        "looks, small": lambda: deque(read_frames(clip, some), 0),
        "looks, OpenCV": lambda: opencv(clip, some, max(1, round(rate / some.fps))),
        "infer_video.py --help": lambda: run("infer_video.py", "--help"),
    }
    times = interleaved(functions, repeats)
    firsts = [first_map(clip, folder / "first") for _ in range(repeats)]
    times["first map"] = statistics.median(firsts), min(firsts)
    processor = {name: processor_seconds(function) for name, function in parts.items()}
    cores, seconds = os.cpu_count(), number / rate
    network = times["the network alone"][1]
    floor = max(network, sum(processor.values()) / cores)

    print(
        f"{cores} cores, threads of torch {torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}"
    )
    print(f"{info.width}×{info.height}, {seconds:.1f} s, {number} frames, {len(looks)} looks\n")
    print(f"{'seconds':25}   median  minimum  of processors")
    for name, (median, least) in times.items():
        used = f"{processor[name]:9.2f}" if name in processor else ""
        print(f"{name:25} {median:8.2f} {least:8.2f} {used}")
    print()
    for one, other, wanted in (
        ("infer_video", "the network alone", "≤ 1.15"),
        ("overlay", "encoding alone", "≤ 1.25"),
        ("every frame, OpenCV", "every frame, small", "≥ 1.5"),
        ("looks, OpenCV", "looks, small", ""),
    ):
        ratios = (f"{a / b:7.2f}" for a, b in zip(times[one], times[other]))
        print(f"{one + ' / ' + other:42}", *ratios, f"  {wanted}")
    print(f"{'infer_video at the least, from processors':42} {'':7} {floor / network:7.2f}")
    real = (f"{seconds / taken:7.2f}" for taken in times["infer_video"])
    print(f"{'seconds of video / infer_video':42}", *real, "  > 1")


def infer(model: models.SaliencyModel, clip: Path, folder: Path) -> None:
    """Write the maps of a clip anew."""
    for path in folder.glob("*"):
        path.unlink()
    words = "--video_path", str(clip), "--output_dir", str(folder)
    dtype = choose_precision("auto", next(model.buffers()).device)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        infer_video.infer(model, clip, folder, dtype, options(infer_video, *words))


def paint(clip: Path, maps: Path) -> Iterable[tuple[np.ndarray, av.VideoFrame]]:
    """Return an iterator of the painted pictures of a clip."""
    args = options(make_video, "--original_video", str(clip), "--saliency_dir", str(maps))
    info = probe(clip)
    found = MapFolder(maps).find(info, args.scale)
    frames = frames_with_maps(info, maps, found, Damage())
    return painted_pictures(frames, info.layout, args.colormap, args.alpha, args.side_by_side)


def options(script, *words: str) -> argparse.Namespace:
    """Return what a script makes of its words."""
    sys.argv[1:] = words
    return script.parse_args()


def opencv(clip: Path, spec: models.Spec, step: int) -> None:
    """Decode a clip with OpenCV and reduce every `step`th frame."""
    capture, number = cv2.VideoCapture(str(clip)), 0
    while capture.grab():
        if number % step == 0:
            size = spec.width, spec.height
            cv2.resize(capture.retrieve()[1], size, interpolation=cv2.INTER_AREA)
        number += 1


def run(*words: object) -> float:
    """Run a script and return its peak memory in MB."""
    command = [sys.executable, "-c", MEASURE, sys.executable, *map(str, words)]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[3:])} failed")
    return float(result.stdout)


def first_map(clip: Path, folder: Path) -> float:
    """Return the seconds from the start of infer_video.py to the first map of a clip."""
    start, first = time.perf_counter(), folder / "sal_0001.png"
    words = "infer_video.py", "--video_path", clip.resolve(), "--output_dir", folder
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=-3, stderr=-3)
    while not first.exists() and process.poll() is None:
        time.sleep(0.005)
    taken = time.perf_counter() - start
    process.kill()
    process.wait()
    first.unlink()  # fails where the script did
    return taken


def processor_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def memory(clip: Path, long: Path, folder: Path) -> None:
    """Print the peak memory of the scripts for two clips."""
    print("\npeak memory in MB         once  ten times    ratio, wanted ≤ 1.05")
    used = {"infer_video.py": [], "make_video.py": []}
    for name, path in (("once", clip.resolve()), ("ten", long)):
        maps, output = folder / f"memory_{name}", folder / "memory.mp4"
        words = "infer_video.py", "--video_path", path, "--output_dir", maps
        used[words[0]].append(run(*words))
        words = "make_video.py", "--original_video", path, "--saliency_dir", maps
        used[words[0]].append(run(*words, "--output_path", output, "--preset", "ultrafast"))
    for script, (once, ten) in used.items():
        print(f"{script:20} {once:9.0f} {ten:10.0f} {ten / once:8.3f}")


def growth(folder: Path, device: torch.device) -> None:
    """Print times over length and resolution, and the exponents by which they grow."""
    model, found = deployed(device), []
    for width, times in ((960, 1), (1920, 1), (3840, 1), (3840, 2), (3840, 4)):
        clip = made_up(folder / "grown.mp4", width, 60)
        clip = looped(clip, times, folder / "longer.mp4")
        infer(model, clip, folder / "grown")
        taken = interleaved(
            {
                "infer": lambda clip=clip: infer(model, clip, folder / "grown"),
                "overlay": lambda clip=clip: write_video(
                    folder / "grown.mp4.out", probe(clip), paint(clip, folder / "grown")
                ),
            },
            2,
        )
        found.append((width, 60 * times, *(least for _, least in taken.values())))
    print("\npixels           frames   infer_video   overlay   (seconds, minimum of two)")
    for width, frames, *taken in found:
        print(f"{f'{width}×{width // 2}':15} {frames:7} {taken[0]:13.2f} {taken[1]:9.2f}")
    table = np.log(np.array(found))
    for name, rows, column, scale in (("pixels", table[:3], 0, 2), ("frames", table[2:], 1, 1)):
        slopes = [np.polyfit(scale * rows[:, column], rows[:, k], 1)[0] for k in (2, 3)]
        print(f"{'exponent of ' + name:23} {slopes[0]:13.2f} {slopes[1]:9.2f}")


def made_up(path: Path, width: int, frames: int) -> Path:
    """Write a panorama that turns, with grain, as H.264 of 30 frames a second."""
    random, height = np.random.default_rng(0), width // 2
    scales = [random.integers(0, 60, (15 * s, 30 * s, 3), np.uint8) for s in (1, 4, 16, 32)]
    panorama = sum(cv2.resize(scale, (width, height)) for scale in scales)
    grain = random.normal(0, 5, (height + 64, width + 64)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7)[..., None]
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(30), options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for n in range(frames):
            row, column = random.integers(0, 64, 2)
            moved = np.roll(panorama, n * width // 1920, axis=1)
            noisy = moved + grain[row : row + height, column : column + width]
            picture = np.rint(noisy).clip(0, 255).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


def looped(clip: Path, times: int, path: Path) -> Path:
    """Write the packets of a clip several times after each other."""
    with av.open(str(path), "w") as output:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        output.mux(packet)
                shift += video.duration
    return path


if __name__ == "__main__":
    main()
