"""Show where people look in 360° clips: predict saliency maps and write an overlay for each clip.

Instead of the overlay, --viewer writes a page to look around in, --follow an ordinary video that
follows attention, and --export a file of numbers. The scripts infer_video and make_video, which
this command runs one after the other, have more options.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import os
import shlex
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

from common import VERSION, options
from common.errors import Failures, InputError, run_script
from common.files import output_name
from maps.exports import export_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="saliency360", description=__doc__, formatter_class=options.HelpFormatter
    )
    add = parser.add_argument
    add("clips", nargs="+", metavar="CLIP", help="video, folder of frames, or picture")
    kind = parser.add_mutually_exclusive_group().add_argument
    kind("--viewer", action="store_true", help="write an HTML page to look around in")
    kind("--follow", action="store_true", help="write an ordinary video that follows attention")
    add("--cuts", action="store_true", help="with --follow: the camera may also jump")
    add("--export", type=export_path, action="append", default=[], metavar="FILE", help="write all "
        "maps as one .csv, .npz or .npy file, and no overlay; with several clips, one file beside "
        "the maps of each")  # fmt: skip
    add("--output", type=Path, metavar="PATH", help="file, or folder for all (default: outputs)")
    add("--quality", choices=["fast"], help="fast: maps at 75%% of the height and width")
    add("--fps", type=options.frame_rate, help="frame rate of a folder of frames (default: 8)")
    add("--overwrite", action="store_true", help="replace files of another clip")
    add("--quiet", action="store_true", help="print errors only")
    add("--version", action="version", version=VERSION)
    options.add_layout_options(add)
    args = parser.parse_args()
    if args.cuts and not args.follow:
        raise InputError("--cuts is for the camera of --follow; add --follow or leave out --cuts")
    if args.output and args.output.suffix and len(args.clips) > 1:
        raise InputError(f"--output {args.output}: one file for several clips; give a folder")
    return args


def main() -> None:
    args, failures = parse_args(), Failures()
    with ExitStack() as quiet:
        if args.quiet:
            null = quiet.enter_context(open(os.devnull, "w"))
            quiet.enter_context(redirect_stdout(null))
            quiet.enter_context(redirect_stderr(null))
        for clip in args.clips:
            with failures.collected(clip):
                # A name that begins with a hyphen would be taken for an option.
                show(f"./{clip}" if clip.startswith("-") else clip, args)
    failures.report(len(args.clips))


def show(clip: str, args: argparse.Namespace) -> None:
    """Write a clip's maps and the chosen output. Raises InputError as the two scripts do."""
    import infer_video
    import make_video
    from video.pictures import list_pictures

    if args.follow and list_pictures(Path(clip)) == [Path(clip)]:
        raise InputError(f"{clip}: a still picture, --follow is for videos; leave out --follow")
    folder = args.output if args.output and not args.output.suffix else Path("outputs")
    maps = folder / f"{output_name(Path(clip))}_saliency"
    exports = [maps / file if len(args.clips) > 1 else file for file in args.export]
    own = [f"--export={file}" for file in exports]
    given_maps = folder != Path("outputs")
    own += ["--output_dir", str(maps)] * given_maps + ["--overwrite", "other"] * args.overwrite
    shared, quality = given(args, "fps", "stereo", "coverage"), given(args, "quality")
    try:
        words = ["--video_path", clip, *own, *quality, *shared]
        infer_video.main(infer_video.parse_args(words))
        if args.export and not (args.viewer or args.follow):
            return
        kind = given(args, "viewer", "follow", "cuts", "overwrite")
        kind += ["--saliency_dir", str(maps)] * given_maps
        kind += ["--output_path", str(args.output)] * bool(args.output)
        name = "saliency360" if __package__ else f"{options.python()} ."
        repeated = shlex.join([clip, *shared, *quality, *given(args, "output") * given_maps])
        painting = make_video.parse_args(["--original_video", clip, *kind, *shared])
        make_video.main(painting, f"{name} {repeated} --viewer")
    except InputError as error:  # this command has an option of another name
        raise type(error)(str(error).replace("--output_dir", "--output")) from error


def given(args: argparse.Namespace, *names: str) -> list[str]:
    """Return the named options, as far as they were given, as words of a command line."""
    words: list[str] = []
    for name in names:
        if value := getattr(args, name):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    return words


def command() -> None:
    sys.argv[0] = "saliency360"  # as errors begin
    run_script(main)


if __name__ == "__main__":
    command()
