"""Paint saliency maps over their 360° video: H.264 in MP4, with sound and 360° metadata.

The result has the size of the video (an odd last column or row is cut off), its timing, its
colours and its sound. The stronger the saliency, the more opaque its colour; where there is none,
the picture is unchanged. With --side_by_side the picture is on the left and its heat map on the
right, twice as wide in all: that is no panorama any more, so it is not marked as 360°.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from cli import NEXT_STEP, HelpFormatter, InputError, atomic, run_script
from video.overlay import COLORMAPS, Overlay, beside, resize_map
from video.reader import VideoInfo, decode, probe, read_picture
from video.spherical_metadata import write_spherical
from video.writer import write_video
from video.yuv import Colour, to_yuv420p

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    needed = {"type": Path, "required": True, "metavar": "PATH"}
    add("--original_video", **needed, help="video, folder of frames, or picture")
    add("--saliency_dir", **needed, help="folder of maps that infer_video.py wrote")
    add("--output_path", **needed, help="MP4 file to write; replaced when it is complete")
    add("--alpha", type=float, default=0.7, help="opacity of the strongest saliency, 0 to 1")
    add("--colormap", choices=COLORMAPS, default="turbo", metavar="NAME", help="OpenCV's name")
    add("--side_by_side", action="store_true", help="picture left, heat map right, no overlay")
    add("--crf", type=float, default=20, help="H.264 quality, 0 (lossless) to 51 (worst)")
    slower = "speed of the encoder; a slower one makes smaller files"
    add("--preset", choices=PRESETS, default="fast", help=slower)
    args = parser.parse_args()
    if not 0 <= args.alpha <= 1 or not 0 <= args.crf <= 51:
        raise InputError("--alpha is from 0 to 1 and --crf from 0 to 51; change them")
    return args


def main() -> None:
    args = parse_args()
    output = args.output_path
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
            write_video(temporary, info, painted_pictures(info, maps, args), args.crf, args.preset)
            if not args.side_by_side:
                write_spherical(temporary)
    except OSError as error:  # whatever can't be read raises InputError
        cause = NEXT_STEP.get(error.errno, f"{error.strerror}; choose another --output_path")
        raise InputError(f"{output}: {cause}") from error
    seconds = time.perf_counter() - start
    print(f"{output}: {len(maps)} frames in {seconds:.1f} s, {len(maps) / seconds:.1f} frames/s")


def painted_pictures(
    info: VideoInfo, maps: list[Path], args: argparse.Namespace
) -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
    """Yield (picture, frame): (3·H/2, W) uint8 yuv420p and the video's frame that it shows."""
    number, size, again = 0, None, "run infer_video.py on this video again"
    for frame in tqdm(decode(info.path), "rendering", len(maps), unit="frame", disable=None):
        number += 1
        if number > len(maps):
            raise InputError(
                f"{args.saliency_dir}: only {len(maps)} maps, {info.path} has more frames; {again}"
            )
        if size is None:
            size, colour = (frame.width, frame.height), Colour.of(frame)
            overlay = Overlay(args.colormap, args.alpha, colour, frame.height, args.side_by_side)
        if (frame.width, frame.height) != size or min(size) < 2:
            raise InputError(
                f"{info.path}: frame {number} has {frame.width}×{frame.height} pixels, the first "
                f"{size[0]}×{size[1]}; bring all frames to one size of at least 2×2"
            )
        picture = to_yuv420p(frame, colour)
        saliency = resize_map(read_picture(maps[number - 1], "L"), frame.height, frame.width)
        painted = overlay(picture, saliency)
        yield beside(picture, painted) if args.side_by_side else painted, frame
    if number < len(maps):
        raise InputError(
            f"{args.saliency_dir}: {len(maps)} maps for {number} frames of {info.path}; {again}"
        )


def find_maps(folder: Path, info: VideoInfo) -> list[Path]:
    """Return the map of each frame of the video, in order.

    Raises InputError for maps that are incomplete or of another video.
    """
    again = "run infer_video.py on this video again"
    found = len(list(folder.glob("sal_*.png")))
    if not found:
        raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in this folder; {again}")
    count = found
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
                    f"{folder}: these maps are of another video, {facts.get('video')} ({name} "
                    f"{facts.get(name)}, for {info.path} {value}); {again} or choose its folder"
                )
        count = facts.get("frame_count") or found
    elif info.frames and abs(info.frames - found) > max(2, info.frames // 100):  # headers err
        raise InputError(f"{folder}: {found} maps, {info.path} has {info.frames} frames; {again}")
    maps = [folder / f"sal_{number:04d}.png" for number in range(1, count + 1)]
    for number, path in enumerate(maps, 1):
        if not path.exists():
            raise InputError(f"{folder}: no map for frame {number} of {count}; {again} to finish")
    if found > count:
        raise InputError(f"{folder}: {found} maps for {count} frames; {again}")
    return maps


if __name__ == "__main__":
    run_script(main)
