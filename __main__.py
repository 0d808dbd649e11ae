"""Show where people look in a 360° clip: predict its maps, then write an overlay over the clip.

Instead of the overlay, --viewer writes a page to look around in, --follow an ordinary video that
follows attention, and --export a file of numbers. This is infer_video and make_video, one after the
other, which have more options and take several clips.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import shlex
import sys
from collections.abc import Callable

from common import options
from common.errors import InputError, run_script


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="saliency360", description=__doc__, formatter_class=options.HelpFormatter
    )
    add = parser.add_argument
    add("clip", help="video, folder of frames, or picture")
    kind = parser.add_mutually_exclusive_group().add_argument
    kind("--viewer", action="store_true", help="write a page to look around in")
    kind("--follow", action="store_true", help="write an ordinary video, whose camera turns to "
        "where people would look")  # fmt: skip
    add("--export", action="append", default=[], metavar="FILE", help="write all maps as one file, "
        "with the end .csv, .npz or .npy; without --viewer and --follow nothing else")  # fmt: skip
    add("--quality", choices=["fast"], help="fast: maps of 75%% of the height and width")
    add("--fps", type=options.frame_rate, help="pictures a second of a folder of frames "
        "(default: 8)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace maps of another clip of this name")
    options.add_layout_options(add)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.clip.startswith("-"):  # which the scripts would take for an option
        args.clip = f"./{args.clip}"

    import infer_video
    import make_video

    shared, quality = given(args, "fps", "stereo", "coverage"), given(args, "quality")
    exports = [f"--export={file}" for file in args.export]
    own = *exports, *quality, *(["--overwrite", "other"] * args.overwrite)
    try:
        run(infer_video.main, "--video_path", args.clip, *own, *shared)
    except InputError as error:  # this command has no --output_dir
        message = str(error).replace("choose another --output_dir", "move that folder away")
        raise type(error)(message) from error
    if args.viewer or args.follow or not exports:
        kind = given(args, "viewer", "follow")
        run(make_video.main, "--original_video", args.clip, *kind, *shared)
        if not kind:
            name = "saliency360" if __package__ else f"{options.python()} ."
            print(f"next: {name} {shlex.join([args.clip, *shared, *quality])} --viewer")


def given(args: argparse.Namespace, *names: str) -> list[str]:
    """Return those of the named options that were given, as words of a command line."""
    words: list[str] = []
    for name in names:
        if value := getattr(args, name):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    return words


def run(script: Callable[[], None], *words: str) -> None:
    sys.argv = ["saliency360", *words]
    script()


def command() -> None:
    sys.argv[0] = "saliency360"  # as errors begin
    run_script(main)


if __name__ == "__main__":
    command()
