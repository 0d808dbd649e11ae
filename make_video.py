"""Paint saliency maps over a 360° video or picture.

A video becomes H.264 in MP4 with the same size (an odd last column or row is cut off), timing,
colours and sound, marked as 360°; a picture becomes a PNG or JPEG. Stronger saliency is more
opaque. Stereo video keeps both eyes, with the same map on each.

With --follow, the output is an ordinary video instead, from a virtual camera that turns to where
people would look; with --viewer, it is an HTML page to look around in. Both show the left eye.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

from common.errors import InputError, RunError, advice, counted, run_script
from common.files import atomic, maps_folder, output_name, output_of, protected
from common.options import HelpFormatter, add_layout_options, at_least, frame_rate, python

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--original_video", type=Path, required=True, help="video, folder of frames, or picture")
    add("--saliency_dir", type=Path, metavar="PATH", help="folder of maps written "
        "by infer_video.py (default: outputs/<name>_saliency)")  # fmt: skip
    add("--output_path", type=Path, metavar="PATH", help="output file (.mp4, .html; for a "
        "picture .png or .jpg), or folder for it (default: in outputs, <name>_overlay.mp4 or .png, "
        "_follow.mp4, _follow_cuts.mp4 or _viewer.html)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an output of another clip")
    add("--fps", type=frame_rate, help="rate of a folder of frames (default: that of its maps)")
    add_layout_options(add, "as in infer_video.py, else from the file's metadata")
    add("--scale", choices=["clip", "frame"], default="clip", help="value shown as maximum "
        "saliency; clip: the 95th percentile of all maps' maxima; frame: each map's")  # fmt: skip
    add("--alpha", type=float, help="opacity at maximum saliency, 0 to 1; at half the "
        "maximum it is three quarters of this (default: 0.7, in a viewer 0.5)")  # fmt: skip
    add("--colormap", default="turbo", metavar="NAME", help="name of an OpenCV colour map")
    add("--side_by_side", action="store_true", help="show the picture on the left and the heat map "
        "on the right, without an overlay; the result is not marked as 360°")  # fmt: skip
    add("--viewer", action="store_true", help="write an HTML page to look around in; implied by "
        "an --output_path that ends with .html")  # fmt: skip
    add("--viewer_width", type=at_least(64, 8193, int), default=1920,
        help="largest width of the clip in the page, in pixels")  # fmt: skip
    add("--crf", type=float, default=20, help="H.264 quality, from 0 (lossless) to 51 (worst)")
    add("--preset", choices=PRESETS, default="fast", help="slower ones make smaller files")
    add = parser.add_argument_group("an ordinary video that follows attention").add_argument
    add("--follow", action="store_true", help="show the view of a virtual camera that turns to "
        "where people would look, at up to 30 degrees a second, with a level horizon")  # fmt: skip
    add("--fov", type=at_least(10, 160), default=90, metavar="DEGREES", help="horizontal field of "
        "view; 90 degrees mean 58.7 vertically at 16:9")  # fmt: skip
    add("--size", type=view_size, metavar="WIDTHxHEIGHT", help="pixels of the view (default: "
        "16:9, as wide as the clip, from 320x180 to 1280x720)")  # fmt: skip
    add("--cuts", action="store_true", help="the camera may also jump")
    args = parser.parse_args(arguments)
    if args.follow and args.side_by_side:
        raise InputError("--follow shows no heat map; leave out --side_by_side")
    if not 0 <= (args.alpha or 0) <= 1 or not 0 <= args.crf <= 51:
        raise InputError("give --alpha from 0 to 1 and --crf from 0 to 51")
    return args


def view_size(text: str) -> tuple[int, int]:
    """Return (height, width) for a text such as 1280x720, the argparse type of --size."""
    width, _, height = text.lower().partition("x")
    sizes = [str(n) for n in range(16, 8193, 2)]
    if width in sizes and height in sizes:
        return int(height), int(width)
    raise argparse.ArgumentTypeError(f"{text}: give two even numbers, 16 to 8192, like 1280x720")


if __name__ == "__main__":  # help and wrong options need none of the slow imports
    given_options = run_script(parse_args)

from tqdm import tqdm

from maps.folder import MapFolder, fingerprint
from video.decoding import Damage, VideoInfo, probe
from video.layout import SPHERE
from video.pictures import list_pictures, read_picture, save_picture
from video.spherical_metadata import write_spherical
from video.writer import write_video
from views.camera import followed_views
from views.follow import follow_path
from views.frames import FrameWithMap, frames_with_maps
from views.overlay import COLORMAPS, paint_picture, painted_pictures, scaled
from views.viewer import write_viewer

MAX_SIDE = 16384  # columns and rows of a video in H.264


def main(args: argparse.Namespace | None = None, viewer_command: str = "") -> None:
    """Write the output. viewer_command: command to propose next, by default of this script."""
    args = args or parse_args()
    if args.colormap not in COLORMAPS:
        raise InputError(f"--colormap {args.colormap}: choose one of {', '.join(COLORMAPS)}")
    source, start = args.original_video, time.perf_counter()
    folder = args.saliency_dir or maps_folder(source)
    saved, pictures = MapFolder(folder), list_pictures(source)
    record = saved.stored
    if record:  # as the maps were made
        if pictures and args.fps is None and "fps" in record:
            args.fps = Fraction(record["fps"]).limit_denominator(1001)
        args.stereo = args.stereo or record.get("stereo") or "none"
        args.coverage = args.coverage or record.get("coverage") or SPHERE
    with advice("--coverage"):
        info = probe(source, args.fps, args.stereo, args.coverage)
    for note in info.notes:
        print(f"note: {source}: {note}", file=sys.stderr)
    output = choose_output(args, info, still=pictures == [source])
    kind = output.suffix.lower()
    if args.alpha is None:
        args.alpha = 0.5 if kind == ".html" else 0.7
    maps, damage = saved.find(info, args.scale), Damage()
    frames = frames_with_maps(info, folder, maps, damage)
    inputs = protected(*info.files, *folder.glob("sal_*.*"))
    ours = output_of(fingerprint(info.files), output, args.overwrite)
    with inputs, ours, atomic(output) as temporary:
        if kind == ".html":
            write_viewer(temporary, info, frames, source.name, args.viewer_width, args.colormap,
                args.alpha, args.crf, args.preset)  # fmt: skip
        elif kind != ".mp4":
            write_still(temporary, info, *maps[1], args)
        elif args.follow:
            write_follow(temporary, info, frames, maps, record.get("times"), args)
        else:
            style = args.colormap, args.alpha, args.side_by_side
            pictures = painted_pictures(frames, info.layout, *style)
            write_video(temporary, info, pictures, args.crf, args.preset)
            if not args.side_by_side:
                write_spherical(temporary, info.layout)
    seconds = time.perf_counter() - start
    rate = len(maps) / seconds
    print(f"{output}: {counted(len(maps), 'frame')} in {seconds:.1f} s, {rate:.1f} frames/s")
    if str(damage):
        raise RunError(f"{source}: {damage}")
    if not args.follow and kind != ".html":
        words = ["--original_video", str(source)]
        words += ["--saliency_dir", str(folder)] if args.saliency_dir else []
        own = f"{python()} make_video.py {shlex.join(words)} --viewer"
        print(f"next: {viewer_command or own}")
    print(f"open {output}" + " in a browser" * (kind == ".html"))


def choose_output(args: argparse.Namespace, info: VideoInfo, still: bool) -> Path:
    """Return the output file. Raises InputError if source and options do not match it."""
    source = args.original_video
    if args.follow and still:
        raise InputError(f"{source}: a still picture, --follow is for videos; leave out --follow")
    kind = "viewer" if args.viewer else "follow" + "_cuts" * args.cuts if args.follow else "overlay"
    endings = [".html"] if args.viewer else [".mp4", ".html"]
    if still and not args.viewer:
        endings = [".png", ".jpg", ".jpeg", *endings]
    output = args.output_path or Path("outputs")
    if not output.suffix:
        output /= f"{output_name(source)}_{kind}{endings[0]}"
    ending = output.suffix.lower()
    if ending not in endings or output.is_dir():
        raise InputError(f"{output}: give a name that ends with {' or '.join(endings)}")
    if ending == ".html" and (args.side_by_side or args.follow):
        raise InputError(f"{output}: a viewer includes both; leave out --side_by_side and --follow")
    if ending == ".mp4" and max(info.width * (1 + args.side_by_side), info.height) > MAX_SIDE:
        raise InputError(f"{source}: too large for .mp4 ({MAX_SIDE}×{MAX_SIDE}); make it smaller")
    return output


def write_still(
    path: Path, info: VideoInfo, saliency: Path, factor: float, args: argparse.Namespace
) -> None:
    """Write a picture with its map over it or beside it. factor: for the map's values."""
    rgb, saliency = read_picture(info.path), scaled(read_picture(saliency, "L"), factor)
    style = args.colormap, args.alpha, args.side_by_side
    painted = paint_picture(rgb, saliency, info.layout, *style)
    layout = None if args.side_by_side else info.layout
    if info.layout.stereo != "none":
        print(f"note: {info.path}: pictures have no stereo metadata; the result is "
              "not marked as 360°", file=sys.stderr)  # fmt: skip
        layout = None
    save_picture(path, painted, info.path, layout)


def write_follow(
    path: Path,
    info: VideoInfo,
    frames: Iterator[FrameWithMap],
    maps: dict[int, tuple[Path, float]],
    times: list[float] | None,
    args: argparse.Namespace,
) -> None:
    """Write the view of a camera that follows attention. times: None for a constant rate."""
    saliency = (read_picture(saliency, "L") for saliency, _ in maps.values())
    saliency = tqdm(saliency, "planning", len(maps), unit="frame", disable=None)
    seconds = [times[n - 1] if times else float((n - 1) / info.fps) for n in maps]
    width = min(max(320, info.width // 32 * 32), 1280)  # more pixels would show no more detail
    size = args.size or (width * 9 // 16, width)
    directions = follow_path(saliency, seconds, args.fov, size, args.cuts)
    views = followed_views(frames, dict(zip(maps, directions)), info.layout, args.fov, size)
    write_video(path, info, views, args.crf, args.preset)


if __name__ == "__main__":
    run_script(partial(main, given_options))
