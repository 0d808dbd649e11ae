"""Paint saliency maps over their 360° video: H.264 in MP4, with sound and 360° metadata.

Like the video in size (an odd last column or row is cut off), timing, colours and sound. The
stronger the saliency, the more opaque its colour; where there is none the picture is untouched.
With --side_by_side the picture and its heat map lie left and right, twice as wide: that is no
panorama any more, so it is not marked as 360°.
"""

import argparse
import json
import re
import time
from itertools import chain
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from PIL import Image
from tqdm import tqdm

from cli import NEXT_STEP, InputError, atomic, run_script
from video.overlay import COLORMAPS, Overlay, beside, resize_map
from video.reader import VideoInfo, decode, probe
from video.spherical_metadata import write_spherical
from video.writer import VideoWriter

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")


def read_map(path: Path) -> np.ndarray:
    """(h, w) uint8."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "RGB", "RGBA"):
                raise InputError(f"{path}: not an 8-bit picture; run infer_video.py again")
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise InputError(
            f"{path}: can't be read ({size} bytes); delete it and run infer_video.py again"
        ) from error


def find_maps(folder: Path, info: VideoInfo) -> list[Path]:
    """The map of every frame of the video, in order. Raises InputError if they don't fit it."""
    again = "run infer_video.py on this video again"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of saliency maps; run infer_video.py first")
    numbered = {
        int(m[1]): p for p in folder.iterdir() if (m := re.fullmatch(r"sal_(\d+)\.png", p.name))
    }
    if not numbered:
        raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in it; {again}")
    count = max(numbered)
    if (facts_path := folder / "saliency.json").exists():
        try:
            facts = dict(json.loads(facts_path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{facts_path}: can't be read; {again}") from error
        if not facts.get("complete"):
            raise InputError(f"{folder}: not complete yet; {again} to finish")
        size = None if info.path.is_dir() else info.path.stat().st_size
        here = {"video_bytes": size, "width": info.width, "height": info.height}
        for name, value in here.items():
            if facts.get(name) != value:
                raise InputError(
                    f"{folder}: the maps are of another video, {facts.get('video')} ({name} "
                    f"{facts.get(name)}, of {info.path} {value}); {again} or choose the other"
                )
        count = facts.get("frame_count") or count
    elif info.frames and abs(info.frames - count) > max(2, info.frames // 100):  # headers err
        raise InputError(f"{folder}: {count} maps, {info.path} has {info.frames} frames; {again}")
    for number in range(1, count + 1):
        if number not in numbered:
            raise InputError(f"{folder}: no map for frame {number} of {count}; {again} to finish")
    if len(numbered) > count:
        raise InputError(f"{folder}: {len(numbered)} maps for {count} frames; {again}")
    return [numbered[number] for number in range(1, count + 1)]


def render(args: argparse.Namespace, info: VideoInfo, maps: list[Path], output: Path) -> int:
    """Write the video; returns its number of frames."""
    frames = decode(info.path)
    first = next(frames)
    panels = 2 if args.side_by_side else 1
    with VideoWriter(output, info.path, first, info.fps, panels, args.crf, args.preset) as writer:
        overlay = Overlay(
            args.colormap, args.alpha, writer.colour, info.height, opaque=args.side_by_side
        )
        bar = tqdm(chain([first], frames), "rendering", len(maps), unit="frame", disable=None)
        for frame in bar:
            if writer.count == len(maps):
                raise InputError(
                    f"{args.saliency_dir}: only {len(maps)} maps, {info.path} goes on; "
                    "run infer_video.py on this video again"
                )
            picture = writer.picture(frame)
            saliency = resize_map(read_map(maps[writer.count]), frame.height, frame.width)
            painted = overlay(picture, saliency[: writer.height, : writer.width])
            writer.write(beside(picture, painted) if args.side_by_side else painted, frame)
        if writer.count < len(maps):
            raise InputError(
                f"{args.saliency_dir}: {len(maps)} maps for {writer.count} frames of "
                f"{info.path}; run infer_video.py on this video again"
            )
    return writer.count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    needed = {"type": Path, "required": True, "default": argparse.SUPPRESS, "metavar": "PATH"}
    add("--original_video", **needed, help="video, folder of frames or picture")
    add("--saliency_dir", **needed, help="folder that infer_video.py wrote")
    add("--output_path", **needed, help=".mp4 file; replaced when complete")
    add("--alpha", type=float, default=0.7, help="opacity of the strongest saliency, 0 to 1")
    add("--colormap", choices=COLORMAPS, default="turbo", metavar="NAME", help="OpenCV's name")
    add("--side_by_side", action="store_true", help="picture left, heat map right, no overlay")
    add("--crf", type=float, default=20, help="quality, 0 (lossless) to 51 (worst)")
    add("--preset", choices=PRESETS, default="fast", help="of the encoder: slower is smaller")
    args = parser.parse_args()

    output = args.output_path
    if not 0 <= args.alpha <= 1 or not 0 <= args.crf <= 51:
        raise InputError("--alpha is from 0 to 1 and --crf from 0 to 51; change them")
    if output.suffix.lower() != ".mp4" or output.is_dir():
        raise InputError(f"{output}: the output is an MP4 file; give a name that ends with .mp4")
    info = probe(args.original_video)
    if output.exists() and output.samefile(info.path):
        raise InputError(f"{output}: would replace the original; choose another --output_path")
    maps = find_maps(args.saliency_dir, info)
    start = time.perf_counter()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic(output) as temporary:
            count = render(args, info, maps, temporary)
            if not args.side_by_side:
                write_spherical(temporary)
    except (OSError, FFmpegError) as error:  # the sources raise InputErrors
        cause = NEXT_STEP.get(error.errno, f"{error.strerror}; choose another --output_path")
        raise InputError(f"{output}: {cause}") from error
    seconds = time.perf_counter() - start
    print(f"{output}: {count} frames in {seconds:.1f} s, {count / seconds:.1f} frames/s")


if __name__ == "__main__":
    run_script(main)
