"""Paint saliency maps over their 360° video: H.264 in MP4, with sound and 360° metadata.

The result has the size of the video (an odd last column or row is cut off), its timing, its
colours and its sound. The stronger the saliency, the more opaque its colour; where there is none,
the picture is unchanged. With --side_by_side the picture is on the left and its heat map on the
right, twice as wide in all: that is no panorama any more, so it is not marked as 360°.
"""

import startup  # noqa: F401  # isort: skip

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from cli import HelpFormatter, InputError, RunError, atomic, run_script
from files import fingerprint, read_json
from video.overlay import COLORMAPS, Overlay, beside, resize_map
from video.pictures import list_pictures, read_picture
from video.reader import Damage, VideoInfo, decode, probe
from video.spherical_metadata import write_spherical
from video.writer import write_video
from video.yuv import Colour, to_yuv420p

LARGEST = 16384  # pixels along a side of a video in H.264
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
    width = info.width * (1 + args.side_by_side)
    if max(width, info.height) > LARGEST:
        raise InputError(
            f"{info.path}: {width}×{info.height} pixels, H.264 holds {LARGEST}×{LARGEST}; make it "
            "smaller"
        )
    for note in info.notes:
        print(f"note: {info.path}: {note}", file=sys.stderr)
    maps, damage = find_maps(args.saliency_dir, info), Damage()
    start = time.perf_counter()
    with atomic(output) as temporary:
        pictures = painted_pictures(info, maps, damage, args)
        write_video(temporary, info, pictures, args.crf, args.preset)
        if not args.side_by_side:
            write_spherical(temporary)
    seconds = time.perf_counter() - start
    print(f"{output}: {len(maps)} frames in {seconds:.1f} s, {len(maps) / seconds:.1f} frames/s")
    if str(damage):
        raise RunError(f"{info.path}: {damage}")


def painted_pictures(
    info: VideoInfo, maps: dict[int, Path], damage: Damage, args: argparse.Namespace
) -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
    """Yield (picture, frame): (3·H/2, W) uint8 yuv420p and the video's frame that it shows.

    Pictures that can't be read are left out, so that the one before is shown for longer.
    """
    number, size, again = 0, None, "run infer_video.py on this video again"
    frames = decode(info.path, damage)
    for frame in tqdm(frames, "rendering", len(maps), unit="frame", disable=None):
        number += 1
        while number in damage.unreadable:
            number += 1
        if number not in maps:
            raise InputError(f"{args.saliency_dir}: no map for frame {number}; {again}")
        if size is None:
            size, colour = (frame.width, frame.height), Colour.of(frame)
            overlay = Overlay(args.colormap, args.alpha, colour, frame.height, args.side_by_side)
        if (frame.width, frame.height) != size or min(size) < 2:
            raise InputError(
                f"{info.path}: frame {number} has {frame.width}×{frame.height} pixels, the first "
                f"{size[0]}×{size[1]}; bring all frames to one size of at least 2×2"
            )
        picture = to_yuv420p(frame, colour)
        saliency = resize_map(read_picture(maps[number], "L"), frame.height, frame.width)
        painted = overlay(picture, saliency)
        yield beside(picture, painted) if args.side_by_side else painted, frame
    if missing := [n for n in maps if n > number and n not in damage.unreadable]:
        raise InputError(
            f"{args.saliency_dir}: maps of {len(missing)} more frames than {info.path} has; {again}"
        )


def find_maps(folder: Path, info: VideoInfo) -> dict[int, Path]:
    """Return the map of each frame of the video by its number.

    Raises InputError for maps that are incomplete or of another video.
    """
    again = "run infer_video.py on this video again"
    found = len(list(folder.glob("sal_*.png")))
    if not found:
        raise InputError(f"{folder}: no saliency maps (sal_0001.png …) in this folder; {again}")
    count, unreadable = found, []
    if (facts_path := folder / "saliency.json").exists():
        facts = read_json(facts_path, frame_count=(int, type(None)), unreadable=list)
        if not facts.get("complete"):
            raise InputError(f"{folder}: not complete yet; {again} to finish")
        here = {"width": info.width, "height": info.height}
        if "fingerprint" in facts:  # there since maps of equal size were once mixed up
            here["fingerprint"] = fingerprint(list_pictures(info.path) or [info.path])
        else:
            here["video_bytes"] = None if info.path.is_dir() else info.path.stat().st_size
        for name, value in here.items():
            if facts.get(name) != value:
                raise InputError(
                    f"{folder}: these maps are of another video, {facts.get('video')} ({name} "
                    f"{facts.get(name)}, for {info.path} {value}); {again} or choose its folder"
                )
        count, unreadable = facts.get("frame_count") or found, facts.get("unreadable", [])
        if count - found > len(unreadable):
            raise InputError(f"{folder}: {found} maps for {count} frames; {again} to finish")
    elif info.frames and abs(info.frames - found) > max(2, info.frames // 100):  # headers err
        raise InputError(f"{folder}: {found} maps, {info.path} has {info.frames} frames; {again}")
    numbers = (n for n in range(1, count + 1) if n not in unreadable)
    maps = {number: folder / f"sal_{number:04d}.png" for number in numbers}
    for number, path in maps.items():
        if not path.exists():
            raise InputError(f"{folder}: no map for frame {number} of {count}; {again} to finish")
    if found > count:
        raise InputError(f"{folder}: {found} maps for {count} frames; {again}")
    return maps


if __name__ == "__main__":
    run_script(main)
