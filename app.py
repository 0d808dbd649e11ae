"""Serve a page on which you drop a 360° clip or picture and look around in its saliency maps.

The page shows the viewer of make_video.py and offers the overlay, the maps and a table of their
peaks. It takes one clip at a time. What belongs to a browser tab is deleted when the tab closes or
the server ends. Only this machine reaches the page, unless --host says otherwise, and the page
loads nothing from the internet.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import html
import math
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

from common.errors import InputError, run_script
from common.options import HelpFormatter, at_least

LAYOUTS = {  # the choices on the page, as options of infer_video.py
    "As the file declares": (),
    "One eye": ("--stereo", "none"),
    "Two, one above the other": ("--stereo", "top-bottom"),
    "Two, side by side": ("--stereo", "left-right"),
    "VR180": ("--stereo", "left-right", "--coverage", "-90", "90", "-90", "90"),
}
DOWNLOADS = {"overlay": "Overlay", "saliency": "Maps", "peaks": "Peaks", "viewer": "Viewer"}
BAR = re.compile(r"(\d+)(?:/(\d+)|frame) \[")  # of tqdm: frames that are done, and all of them
STYLE = """
.gradio-container { width: 100% !important; max-width: 1080px !important; margin: auto !important }
.html-container { padding: 0 !important }
h1 { margin: 16px 0 4px; font-size: 24px; font-weight: 600 }
iframe { width: 100%; height: min(84vh, 760px); border: 1px solid var(--border-color-primary) }
.problem { padding: 10px 14px; border-left: 4px solid #c4320a; background: #c4320a18 }
.bar { height: 6px; margin: 8px 0; background: #8883 }
.bar div { height: 100%; background: #0a5cc2 }
.results a { display: inline-block; margin: 8px 8px 8px 0; padding: 6px 14px; color: inherit;
  border: 1px solid var(--border-color-primary); border-radius: 6px; text-decoration: none }
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; with 0.0.0.0, everybody who "
        "reaches this machine can use the page")  # fmt: skip
    add("--port", type=at_least(0, 65536, int), default=7860, help="port; 0: any that is free")
    add("--max_megabytes", type=at_least(1, kind=int), default=500, help="size of the largest file")
    add("--max_seconds", type=at_least(1, kind=int), default=120, help="length of the longest clip")
    return parser.parse_args()


def write_results(clip: Path, layout: str, longest: int, pipe: Connection) -> None:
    """Write all results of a clip into `outputs` beside it, in a process of its own.

    layout: a key of LAYOUTS. longest: seconds. pipe: takes what the scripts print and their bars.
    """
    terminal: Any = SimpleNamespace(write=pipe.send, flush=lambda: None, isatty=lambda: True)
    sys.stdout = sys.stderr = terminal
    sys.argv = ["app.py"]
    os.chdir(clip.parent)
    name, results = f".{os.sep}{clip.name}", f"outputs/{clip.stem}"

    def run() -> None:
        import infer_video
        import make_video

        if (seconds := duration(clip)) > longest:
            raise InputError(f"{clip.name}: lasts {seconds:.1f} seconds, {longest} are allowed; "
                "cut it, or start app.py with a larger --max_seconds")  # fmt: skip
        table = "--export", f"{results}_peaks.csv"
        step("Predicting maps", infer_video, "--video_path", name, *table, *LAYOUTS[layout])
        step("Writing the viewer", make_video, "--original_video", name, "--viewer")
        step("Painting the overlay", make_video, "--original_video", name)
        shutil.make_archive(f"{results}_saliency", "zip", f"{results}_saliency")

    def step(text: str, script: ModuleType, *words: str) -> None:
        print(f"step: {text}")
        sys.argv[1:] = words
        script.main()

    run_script(run)


def duration(clip: Path) -> float:
    """Return the seconds between a video's packets, since headers may lie; 0 of anything else."""
    from video.decoding import open_video

    with suppress(Exception), open_video(clip) as container:  # infer_video.py says what is wrong
        times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
        return float((max(times) - min(times)) * container.streams.video[0].time_base)
    return 0


class Session:
    """What belongs to one browser tab: a folder with a clip, and the process that works on it."""

    def __init__(self, parent: Path, upload: Path):
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        self.clip = Path(shutil.move(upload, self.folder))
        self.key = ""  # in the addresses of its results, new for each run
        self.process: Any = None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process:
            process.terminate()
            process.join()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, layout: str, longest: int) -> Iterator[str]:
        """Work on the clip, and yield as HTML how far it is and at last what came of it."""
        shutil.rmtree(self.folder / "outputs", ignore_errors=True)
        self.key, context = secrets.token_urlsafe(), get_context("spawn")
        pipe, end = context.Pipe(duplex=False)
        given = self.clip, layout, longest, end
        process = self.process = context.Process(target=write_results, args=given, daemon=True)
        process.start()
        end.close()
        yield message("Starting")
        texts: dict[str, list[str]] = {"step": [], "note": [], "app.py": []}
        with suppress(EOFError, OSError):  # the process has ended
            while True:
                text = pipe.recv()
                kind, _, rest = text.partition(": ")
                texts.get(kind, []).append(rest)
                if bar := BAR.search(text):
                    done, total = int(bar[1]), int(bar[2] or 0)
                    frames = f"frame {done:,}" + f" of {total:,}" * bool(total)
                    width = f"{100 * done / max(total, done, 1):.1f}%"
                    share = f'<div class="bar"><div style="width: {width}"></div></div>'
                    yield message(f"{texts['step'][-1]}: {frames}") + share
        process.join()
        stopped, self.process = not self.process, None
        if process.exitcode == 0:
            yield "".join(map(message, dict.fromkeys(texts["note"]))) + self.results()
        elif not stopped:
            unknown = f"{self.clip.name}: the work ended with the code {process.exitcode}"
            yield message(" ".join(texts["app.py"]) or f"{unknown}; drop it again", "problem")

    def outputs(self) -> dict[str, Path]:
        """Return the files that are offered, by their names."""
        return {path.name: path for path in self.folder.glob("outputs/*_*.*") if path.is_file()}

    def results(self) -> str:
        """Return the viewer and links to all files as HTML."""
        frame, links = "", ""
        for name, path in sorted(self.outputs().items()):
            address, kind = f"/results/{self.key}/{quote(name)}", path.stem.rpartition("_")[2]
            size = path.stat().st_size / 1e6
            amount = f"{size:.1f} MB" if size >= 1 else f"{math.ceil(1000 * size)} kB"
            text = f"{DOWNLOADS[kind]} ({path.suffix}, {amount})"
            links += f'<a href="{address}" download>{text}</a>'
            if kind == "viewer":
                frame = f'<iframe src="{address}" title="Viewer" allow="fullscreen"></iframe>'
        return f'{frame}<p class="results">{links}</p>'


def message(text: str, kind: str = "message") -> str:
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>'


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Serve the page until Ctrl-C or SIGTERM. folder: takes all temporary files."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    import fastapi
    import gradio
    import uvicorn
    from fastapi.responses import FileResponse

    sessions: dict[str | None, Session] = {}

    def wait(request: gradio.Request) -> str:
        if session := sessions.get(request.session_hash):
            session.stop()
        busy = any(session.process for session in sessions.values())
        return message("Waiting for the clip before this one" if busy else "Starting")

    def show(upload: str | None, layout: str, request: gradio.Request) -> Iterator[str]:
        if upload:
            leave(request)
            sessions[request.session_hash] = Session(folder, Path(upload))
        if session := sessions.get(request.session_hash):
            yield from session.run(layout, args.max_seconds)
        else:
            yield ""

    def leave(request: gradio.Request) -> None:
        if session := sessions.pop(request.session_hash, None):
            session.close()

    with gradio.Blocks(title="360° saliency", delete_cache=(600, 3600)) as page:
        gradio.HTML(f"<h1>Where would people look?</h1><p>Drop a 360° clip or picture, up to "
            f"{args.max_seconds} seconds and {args.max_megabytes} MB. It stays on the machine "
            "that serves this page, and is deleted when you close the tab.</p>")  # fmt: skip
        with gradio.Row():
            clip = gradio.File(label="360° clip or picture", height=130, scale=3)
            layout = gradio.Dropdown(list(LAYOUTS), label="Stereo and coverage", filterable=False)
        output = gradio.HTML()
        for begin, given in (clip.upload, clip), (layout.input, gradio.State()):
            begin(wait, None, output, queue=False, show_progress="hidden").then(
                show, [given, layout], output, show_progress="hidden",
                trigger_mode="multiple", concurrency_limit=1, concurrency_id="clip",
            )  # fmt: skip
        page.unload(leave)

    server = fastapi.FastAPI(openapi_url=None)

    @server.get("/results/{key}/{name}")
    def result(key: str, name: str) -> FileResponse:
        for session in list(sessions.values()):
            if secrets.compare_digest(session.key, key) and name in session.outputs():
                return FileResponse(session.outputs()[name])
        raise fastapi.HTTPException(404)

    server = gradio.mount_gradio_app(server, page, "/", footer_links=[], run_history=False,
        max_file_size=f"{args.max_megabytes}mb", ssr_mode=False, css=STYLE,
        theme=gradio.themes.Base())  # fmt: skip
    try:
        listener = socket.create_server((args.host, args.port))
    except OSError as error:
        where = f"{args.host}, port {args.port}"
        raise InputError(f"{where}: {error.strerror}; give another --host or --port") from error
    print("http://{}:{}  (Ctrl-C ends it)".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(server, log_level="critical", timeout_graceful_shutdown=1)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])
    finally:
        for session in sessions.values():
            session.close()


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory(prefix="saliency-", ignore_cleanup_errors=True) as folder:
        try:
            serve(args, Path(folder))
        except ModuleNotFoundError as error:
            how = f"run pip install -r {startup.ROOT / 'requirements-app.txt'}"
            raise InputError(f"the package '{error.name}' is missing; {how}") from error


if __name__ == "__main__":
    run_script(main)
