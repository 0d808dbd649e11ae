"""Make the viewer's sample page and the README's animation from a part of a clip.

    python -m recipes.sample ../shared/media/courtyard_640x322_30fps.mp4

writes outputs/sample.html and outputs/overlay.webp; `make sample` writes them into docs/.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import av

from common.errors import run_script
from common.options import HelpFormatter

ROOT = Path(__file__).resolve().parents[1]
START, SECONDS = 28, 12  # part of the courtyard clip, from the previous keyframe


def cut(clip: Path, part: Path, start: float, seconds: float) -> None:
    """Copy a part of a video without re-encoding, from the last keyframe before `start`."""
    with av.open(clip) as source, av.open(part, "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        source.seek(round(start / stream.time_base), stream=stream)
        packets = [p for p in source.demux(stream) if p.pts is not None]
        first = packets[0].dts
        for packet in packets:
            if packet.pts * stream.time_base < start + seconds:
                packet.pts -= first
                packet.dts -= first
                packet.stream = copied
                target.mux(packet)


def save_webp(video: Path, path: Path, width: int, every: int, quality: int) -> None:
    """Write every n-th frame of a video as a looping animation."""
    with av.open(video) as source:
        stream = source.streams.video[0]
        height, milliseconds = width * stream.height // stream.width, 1000 / stream.average_rate
        frames = [frame.to_image(width=width, height=height, interpolation="AREA")
                  for n, frame in enumerate(source.decode(stream)) if n % every == 0]  # fmt: skip
    options = {"duration": round(every * milliseconds), "loop": 0, "quality": quality, "method": 6}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("clip", type=Path, help="360° video")
    add("--output_dir", type=Path, default="outputs", help="folder for both files")
    args = parser.parse_args()

    part = Path("outputs", f"{args.clip.stem.partition('_')[0]}.mp4")
    part.parent.mkdir(exist_ok=True)
    cut(args.clip, part, START, SECONDS)
    page = "--viewer", "--output_path", str(args.output_dir / "sample.html"), "--crf", "28"
    paint = "make_video.py", "--overwrite", "--original_video", part
    for script, *words in (
        ("infer_video.py", "--video_path", part, "--overwrite", "other"),
        paint,
        (*paint, *page, "--preset", "slower"),
    ):
        subprocess.run([sys.executable, ROOT / script, *words], check=True)
    overlay = part.with_name(f"{part.stem}_overlay.mp4")
    save_webp(overlay, args.output_dir / "overlay.webp", width=640, every=4, quality=50)


if __name__ == "__main__":
    run_script(main)
