"""Damaged files through every reader, each in a process with limits; and a video without end.

    python -m tests.fuzz [--count 2400] [--seed 0] [--hours 24] [--keep FOLDER]

A reader may return or raise InputError. Any other error, a signal, more than SECONDS of time or
MEMORY is a finding: it is printed, its file is kept, and the exit code is 1. Then a video of so
many hours goes through sampling, prediction, interpolation and writing, and memory and open files
must stay as they are after its first part.
"""

import argparse
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from tqdm import tqdm

import models
from benchmarks import real_gaze
from common import files
from common.errors import InputError
from datasets.gaze_files import read_fixations_csv, read_gaze_csv, read_vinfo
from datasets.layouts import read_map
from datasets.rates import ClipRates
from datasets.splits import read_splits
from maps import saved as saved_maps
from maps.folder import MapFolder
from maps.interpolate import interpolate
from models import EquatorPrior, Spec
from prepare import d_sav360, pvs_hmem, salient360, vr_eyetracking
from prepare.records import RECORD, begin_clip, clip_record, write_files
from tests.clips import moving_disc, write_video
from tests.spherical import read_spherical
from video.decoding import Damage, Decoded, VideoInfo, decode, probe
from video.layout import Layout
from video.pictures import read_picture
from video.reader import FrameReader, read_frames
from video.spherical_metadata import panorama_xmp, write_spherical
from video.writer import write_video as write_output
from video.yuv import to_yuv420p

WATCHED = VideoInfo(Path("a.mp4"), 96, 48, Fraction(24), 4, 4 / 24)  # of which importers read gaze
SECONDS, MEMORY = 20, 3 << 30  # of one reading
SPEC = Spec(height=24, width=48, fps=8.0, motion="difference")


# Seeds: small files of all kinds that are read, and their readers.


def read_clip(path: Path) -> None:
    """As infer_video.py and make_video.py read a clip, with its sound."""
    for _ in read_frames(path, SPEC):
        pass
    info, damage = probe(path), Damage()
    if max(info.width, info.height) > 512:
        return

    def pictures():
        size = None
        for frame in decode(info, damage):
            image = frame.image
            size = size or (image.width, image.height)
            if (image.width, image.height) != size or min(size) < 2:
                raise InputError("another size")
            yield to_yuv420p(image), image

    write_output(path.with_name("out.mp4"), info, pictures(), preset="ultrafast")


def read_still(path: Path) -> None:
    probe(path)
    read_picture(path)
    if path.suffix != ".webp":
        read_map(path)


def read_facts(path: Path) -> None:
    """A record in a folder of maps, as infer_video.py and make_video.py read it."""
    folder = path.parent
    for n in (1, 2):
        Image.new("L", (4, 2)).save(folder / f"sal_{n:04d}.png")
    info = VideoInfo(Path(__file__), 96, 48, Fraction(8), 2, 0.25)
    run = {"npy": False, "checkpoint_sha256": "a", "fingerprint": None, "motion": "none"}
    run |= {"sampling": None, "normalisation": "a", "map_width": 4, "map_height": 2}
    run |= {"quality": None, "front": None, "precision": "a"}
    maps = MapFolder(folder, FrameReader(info, SPEC), run)
    if maps.complete:
        list(maps.read())
    maps.find(info, "clip")
    maps.begin("all")


def read_clip_record(path: Path) -> None:
    begin_clip(clip_record(path.parent, {}))
    write_files(path.parent, {"p.csv": b"another content"})


def read_matlab(path: Path) -> None:
    """As prepare.pvs_hmem reads its file, in a child that SciPy may end by a signal."""
    fork = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    with files.reading(path, "{}"), fork as child:
        matrices = child.submit(pvs_hmem.load, path).result()
    with mock.patch.object(pvs_hmem, "probe", lambda _: WATCHED):
        pvs_hmem.read_gaze(matrices, Path("Lion.mp4"), [path])


def read_d_sav360(path: Path) -> None:
    with mock.patch.object(d_sav360, "probe", lambda _: WATCHED):
        d_sav360.read_gaze({path: d_sav360.read_samples(path)}, 8.0, Path("1.mp4"), [path])


def read_vr_eyetracking(path: Path) -> None:
    with mock.patch.object(vr_eyetracking, "probe", lambda _: WATCHED):
        vr_eyetracking.read_gaze(Path("003.mp4"), [path])


def read_panoramas(path: Path) -> None:
    """As benchmarks.real_gaze scores a set, with maps that need no model."""
    content = real_gaze.read_set(path)
    gaze = real_gaze.GazeSet(content, 8, 90.0, 5.0)
    for name in gaze.names:
        gaze.score(name, {"uniform": np.ones((8, 16), np.float32)})


def seeds(folder: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """Write the seeds into a folder and return each with its reader."""
    for name, codec in (("a.mp4", "libx264"), ("b.webm", "libvpx"), ("c.avi", "mpeg4"),
                        ("d.ts", "libx264"), ("e.mkv", "libx264"), ("f.gif", "gif")):  # fmt: skip
        _write_clip(folder / name, codec, sound=name in ("a.mp4", "e.mkv"))
    spherical = write_video(folder / "g.mp4", 3)
    layout = Layout("left-right", (-90, 90, -90, 90))
    write_spherical(write_video(folder / "r.mp4", 3), layout)
    xmp = panorama_xmp(24, 48, Layout("none", (-90, 90, -45, 45))).encode()
    Image.fromarray(moving_disc(1, 24, 48)).save(folder / "s.jpg", xmp=xmp)
    grey = np.arange(0, 256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(moving_disc(1, 24, 48)).save(folder / "h.jpg")
    Image.fromarray(moving_disc(1, 24, 48)).save(folder / "i.png")
    Image.fromarray(moving_disc(1, 24, 48)).save(folder / "j.webp")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "k.png")
    Image.fromarray(grey.astype(np.float32)).save(folder / "l.tif")
    np.save(folder / "m.npy", np.random.default_rng(0).random((8, 16), np.float32))
    model = models.CubeUNet(height=40, width=80, base_channels=1)
    models.save(folder / "n.pth", model, run={"loss": "smse"}, step=3)
    torch.save(torch.nn.MaxPool2d(2), folder / "o.pth")
    facts = {"video": "a.mp4", "frame_count": 2, "width": 96, "height": 48, "complete": True,
             "unreadable": [], "npy": False,
             "motion": "none", "fps": 8.0, "peaks": [0.5, 0.25], "times": [0.0, 0.13],
             "checkpoint_sha256": "a", "sampling": None,
             "normalisation": "a", "map_width": 4, "map_height": 2}  # fmt: skip
    (folder / "saliency.json").write_text(json.dumps(facts))
    (folder / "splits.json").write_text('{"train": ["a", "b"], "val": ["c"], "test": [217]}')
    record = {"frames": 3, "samples": 4, "left_out": [["a", "b"]], "written": {"p.csv": "0"}}
    (folder / RECORD).write_text(json.dumps(record))
    (folder / "p.csv").write_text("time,longitude,latitude,observer\n0.1,3,4,x\n0.2,-170,80,y\n")
    (folder / "q.csv").write_text("frame,longitude,latitude,observer\n1,3,4,1\n2,-170,80,2\n")
    fixations = {"217": {"0001": [(0.5, 0.25)], "0002": np.full((2, 2), 0.5)}}
    (folder / "vinfo.pkl").write_bytes(pickle.dumps(fixations, 2))
    matrix = np.full((8, 4), np.nan)
    matrix[::2] = 10, 20, -30, 170
    for name, compressed in (("t.mat", False), ("u.mat", True)):
        savemat(folder / name, {"Lion": matrix, "x": np.arange(9.0)}, do_compression=compressed)
    rows = "0.1,1,ana,0,0.5,0.2,1,1\n0.3,1,ana,2,0.7,0.2,True,False\n0.4,1,ben,3,,,0,0\n"
    (folder / "v.csv").write_text("t,video,id,frame,u,v,fixation,valid_fix_classification\n" + rows)
    (folder / "w.txt").write_text("0,0.5,0.5,0,0.2,0,4\n1,0.25,0.5,0.2,0.1,7,8\n")
    (folder / "x.txt").write_text("frame,1,forward,0,0,eye,0.5,0.5\nframe,2,forward,0,0,eye,1,0\n")
    np.arange(64, dtype="<f4").tofile(folder / "y_8x4x2_32b.bin")
    (folder / "dataset.json").write_text('{"fps": {"a": 8.0, "b": "30000/1001"}}')
    panorama = {"a_rgb": np.zeros((4, 8, 3), np.uint8), "a_gt": np.ones((4, 8)),
                "a_fix": np.zeros((6, 2)), "a_user": np.arange(6) % 3}  # fmt: skip
    np.savez(folder / "z.npz", **panorama, b_rgb=panorama["a_rgb"], b_gt=np.eye(4, 8))
    load = models.load
    readers = {"saliency.json": read_facts, "splits.json": lambda path: read_splits(path.parent),
               RECORD: read_clip_record, "p.csv": read_gaze_csv,
               "t.mat": read_matlab, "u.mat": read_matlab, "v.csv": read_d_sav360,
               "w.txt": salient360.read_scanpaths, "x.txt": read_vr_eyetracking,
               "y_8x4x2_32b.bin": lambda path: np.array(salient360.read_maps(path)),
               "dataset.json": lambda path: ClipRates(path.parent), "z.npz": read_panoramas,
               "q.csv": read_fixations_csv, "vinfo.pkl": read_vinfo, "m.npy": read_map,
               "n.pth": load, "o.pth": load, spherical.name: read_spherical}  # fmt: skip
    stills = {".jpg", ".png", ".webp", ".tif"}
    return [
        (path, readers.get(path.name, read_still if path.suffix in stills else read_clip))
        for path in sorted(folder.iterdir())
    ]


def _write_clip(path: Path, codec: str, sound: bool) -> None:
    kind = ("aac" if path.suffix == ".mp4" else "pcm_s16le", 8000, "mono")
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    write_video(path, 12, 24, 48, 10, codec, pix_fmt=pix_fmt, sound=kind if sound else None)


# Mutations.

NUMBERS = [struct.pack(form, value) for form in (">I", "<I", ">H", "<H", "B", ">Q")
           for value in (0, 1, 2 ** (8 * struct.calcsize(form)) - 1,
                         2 ** (8 * struct.calcsize(form) - 1))]  # fmt: skip
TOKENS = [b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b'""', b"\xff\xfe", b"'", b"\0"]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Return a file's content with one to four changes."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        place, length = (
            draw.randrange(len(content) + 1),
            draw.choice((1, 4, len(content) // 20 + 1)),
        )
        change = draw.randrange(7)
        if change == 0:
            content[place : place + 1] = bytes([draw.randrange(256)])
        elif change == 1:
            content[place : place + length] = bytes(length)
        elif change == 2:
            content[place : place + length] = draw.randbytes(length)
        elif change == 3:
            del content[place : place + length]
        elif change == 4:
            content[place:place] = content[place : place + length] * draw.choice((1, 3))
        elif change == 5:
            number = draw.choice([*NUMBERS, *TOKENS])
            content[place : place + len(number)] = number
        else:
            del content[place:]
    return bytes(content)


def mutate(source: Path, target: Path, draw: random.Random) -> None:
    """Write a mutated copy; half of those of checkpoints have right checksums."""
    if source.suffix == ".pth" and draw.random() < 0.5:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith("data.pkl") or draw.random() < 0.05:
                    content = mutated(content, draw)
                new.writestr(entry.filename, content)
    else:
        target.write_bytes(mutated(source.read_bytes(), draw))


# A child for each reading.


def reading(path: Path, reader: Callable[[Path], object]) -> str:
    """Read a file in a child. Returns "read", "refused", or what is wrong with the reader."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        code = 0
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            torch.set_num_threads(1)
            reader(path)
        except (InputError, OSError):  # run_script makes one line of both
            code = 4
        except BaseException:
            os.write(into, traceback.format_exc()[-3000:].encode())
            code = 3
        os._exit(code)
    os.close(into)
    deadline, status = time.monotonic() + SECONDS, 0
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(out)
            return f"still reading after {SECONDS} s"
        time.sleep(0.001)
    status = os.waitstatus_to_exitcode(found[1])
    with os.fdopen(out) as text:
        told = text.read()
    return {0: "read", 4: "refused"}.get(status, told or f"ended by signal {-status}")


def fuzz(count: int, seed: int, keep: Path | None = None) -> tuple[Counter, list[tuple[str, str]]]:
    """Return how often each kind of file was read or refused, and (name, finding)s."""
    counts, findings = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seeds").mkdir()
        chosen = seeds(Path(folder) / "seeds")
        for number in tqdm(range(count), "readings", disable=None):
            source, reader = chosen[number % len(chosen)]
            here = Path(folder) / "here"
            here.mkdir()
            mutate(source, here / source.name, random.Random(seed * 1_000_003 + number))
            found = reading(here / source.name, reader)
            if found not in ("read", "refused"):
                findings.append((f"{source.name}, number {number}", found))
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(here / source.name, keep / f"{number}_{source.name}")
            counts[source.suffix, found if found in ("read", "refused") else "finding"] += 1
            shutil.rmtree(here)
    return counts, findings


# A video without end.


def simulate(hours: float, fps: int = 30) -> list[tuple[int, int]]:
    """Send a video through the way of a frame up to its map on the disk.

    Returns (bytes of memory, open files) ten times, evenly spread.
    """
    total = round(hours * 3600 * fps)
    picture = av.VideoFrame.from_ndarray(moving_disc(0, 16, 32), format="rgb24")

    def endless():
        for n in range(total):
            yield Decoded(n + 1, n / fps, 1 / fps, lambda: picture)

    info, seen = VideoInfo(Path("endless.mp4"), 32, 16, Fraction(fps), None, None), []
    model = EquatorPrior(8, 16)
    with tempfile.TemporaryDirectory() as folder:
        maps = models.predict(model, FrameReader(info, model.spec, endless()).sampled)
        bar = tqdm(interpolate(maps), f"{hours:g} h", total, disable=None)
        for number, saliency in bar:
            path = Path(folder) / "sal_0001.png"
            saved_maps.write_map(path, saliency, save_npy=number % 100 == 0)
            if number % (total // 10) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                files = len(os.listdir("/proc/self/fd"))
                seen.append((pages * resource.getpagesize(), files))
    assert number == total
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2400, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--hours", type=float, default=24, help="length of the simulated video")
    parser.add_argument("--keep", type=Path, help="folder for files that made findings")
    args = parser.parse_args()
    counts, findings = fuzz(args.count, args.seed, args.keep)
    for (kind, found), number in sorted(counts.items()):
        print(f"{kind:6} {found:8} {number}")
    for name, found in findings:
        print(f"\n{name}: {found}")
    if args.hours:
        seen = simulate(args.hours)
        sizes = ", ".join(f"{size / 2**20:.0f}" for size, _ in seen)
        print(f"{args.hours:g} h of video: {sizes} MiB, open files {[files for _, files in seen]}")
        if seen[-1][0] > 1.05 * seen[1][0] or seen[-1][1] > seen[0][1]:
            sys.exit("memory or open files grow")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
