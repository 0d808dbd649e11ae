"""Serve a page on which you drop a 360° clip or picture to explore its saliency maps.

The page shows the viewer of make_video.py and offers the overlay, a video that follows attention,
the maps and a table of their peaks, each as soon as it is ready. It processes one clip at a time.
The files of a browser tab are deleted when the tab is closed or the server ends. Without --host,
only this machine can reach the page. The page loads nothing from the internet.
"""

from common import startup  # noqa: F401  # isort: skip

import argparse
import html
import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

from common.errors import InputError, run_script
from common.options import HelpFormatter, at_least

LAYOUTS = {  # the choices on the page, as options of infer_video.py
    "From the file's metadata": (),
    "Mono, whole sphere": ("--stereo", "none"),
    "Stereo, top-bottom": ("--stereo", "top-bottom"),
    "Stereo, left-right": ("--stereo", "left-right"),
    "VR180, left-right": ("--stereo", "left-right", "--coverage", "-90", "90", "-90", "90"),
}
FOLDER_PREFIX = "saliency-page-"  # of a server's temporary folder
MAX_AGE = 24 * 3600.0  # seconds after which the files of a tab are deleted in any case
CLEANING_INTERVAL = 30.0  # seconds between deletions
QUEUE_SIZE = 20  # clips that may wait
# Finished frames, total, and time left.
TQDM_BAR = re.compile(r"(\d+)(?:/(\d+)|frame) \[(?:[\d:]+<([\d:]+))?")
EXAMPLE = "example.mp4"  # a rendered scene
STYLE = """
.gradio-container { width: 100% !important; max-width: 1080px !important; margin: auto !important }
.html-container { padding: 0 !important }
h1 { margin: 16px 0 4px; font-size: 24px; font-weight: 600 }
iframe { width: 100%; height: min(84vh, 760px); border: 1px solid var(--border-color-primary) }
.problem { padding: 10px 14px; border-left: 4px solid #c4320a; background: #c4320a18 }
progress { width: 100%; accent-color: #0a5cc2 }
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; with 0.0.0.0, everybody who "
        "can reach this machine can use the page")  # fmt: skip
    add("--port", type=at_least(1, 65536, int), help="port (default: the first free one from 7860)")
    add("--max_megabytes", type=at_least(1, kind=int), default=500, help="largest size of a file")
    add("--max_seconds", type=at_least(1, kind=int), default=120, help="longest duration of a clip")
    return parser.parse_args()


def write_results(folder: Path, clip: str, layout: str, longest: int, pipe: Connection) -> None:
    """Write all results of the clip in a folder to its outputs/, in a separate process.

    layout: a key of LAYOUTS. longest: seconds. pipe: receives messages and progress bars.
    """
    terminal: Any = SimpleNamespace(write=pipe.send, flush=lambda: None, isatty=lambda: True)
    sys.stdout = sys.stderr = terminal
    sys.argv = ["app.py"]
    os.chdir(folder)
    name, results = f"./{clip}", f"outputs/{Path(clip).stem}"

    def run() -> None:
        import infer_video
        import make_video
        from prepare import synthetic
        from video.pictures import list_pictures

        if clip == EXAMPLE and not Path(clip).exists():
            size = "--frames", "48", "--height", "480", "--width", "960", "--seed", "14"
            step("Rendering an example", synthetic, "--video", name, *size)
        doubt, seconds = examine(Path(clip))
        if doubt and not LAYOUTS[layout]:
            raise InputError(f"{clip}: {doubt}; choose its layout above")
        if seconds > longest:
            raise InputError(f"{clip}: lasts {seconds:.1f} seconds, {longest} are allowed; "
                "cut it, or start app.py with a larger --max_seconds")  # fmt: skip
        table = "--export", f"{results}_peaks.csv"
        step("Predicting maps", infer_video, "--video_path", name, *table, *LAYOUTS[layout])
        step("Writing the viewer", make_video, "--original_video", name, "--viewer")
        step("Painting the overlay", make_video, "--original_video", name)
        if not list_pictures(Path(clip)):
            step("Following attention", make_video, "--original_video", name, "--follow")
        shutil.make_archive(".maps", "zip", f"{results}_saliency")
        os.replace(".maps.zip", f"{results}_saliency.zip")

    def step(text: str, script: ModuleType, *words: str) -> None:
        print(f"step: {text}")
        sys.argv[1:] = words
        script.main()

    run_script(run)


def examine(clip: Path) -> tuple[str, float]:
    """Return doubts about a clip's shape, and the longer of two estimates of its seconds."""
    from video.declared import STRETCHED_NOTE
    from video.decoding import open_video, probe

    doubt, seconds = "", 0.0
    with suppress(Exception):  # infer_video.py says what is wrong
        info = probe(clip)
        doubt = "".join(note for note in info.notes if STRETCHED_NOTE in note)
        with open_video(clip) as container:
            stream, first, last = container.streams.video[0], float("inf"), float("-inf")
            for count, packet in enumerate(container.demux(stream)):  # the last one is empty
                if packet.pts is not None:
                    first, last = min(first, packet.pts), max(last, packet.pts)
                seconds = max(count / float(info.fps), (last - first) * float(stream.time_base))
    return doubt, seconds


class Session:
    """A browser tab's clip, its results, and the process that makes them."""

    def __init__(self, upload: Path, folder: Path):
        self.upload, self.folder = upload, folder / secrets.token_urlsafe()
        self.folder.mkdir()
        if upload.exists():
            os.link(upload, self.folder / upload.name)  # another tab may have the same upload
        self.process: Any = None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process:
            process.kill()  # its files are replaced or deleted
            process.join()

    def close(self) -> None:
        """Delete the clip and its results."""
        self.stop()
        self.upload.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, layout: str, longest: int) -> Iterator[str]:
        """Process the clip; yield its progress and finally notes or the error, as HTML."""
        shutil.rmtree(self.folder / "outputs", ignore_errors=True)
        context = get_context("spawn")
        pipe, end = context.Pipe(duplex=False)
        given = self.folder, self.upload.name, layout, longest, end
        process = self.process = context.Process(target=write_results, args=given, daemon=True)
        process.start()
        end.close()
        texts: dict[str, list[str]] = {"step": [], "note": [], "app.py": []}
        with suppress(EOFError, OSError):  # the process has ended
            while True:
                kind, _, rest = (text := pipe.recv()).partition(": ")
                texts.get(kind, []).append(rest)
                if bar := TQDM_BAR.search(text):
                    done, total, left = bar.groups()
                    share = f'<progress max="{total or done}" value="{done}"></progress>'
                    frames = f"frame {done} of {total or '?'}" + f", {left} left" * bool(left)
                    yield message(f"{texts['step'][-1]}: {frames}") + share
        process.join()
        stopped, self.process = not self.process, None
        if process.exitcode == 0:
            yield "".join(map(message, dict.fromkeys(texts["note"])))
        elif not stopped:
            unknown = f"{self.upload.name}: processing ended with exit code {process.exitcode}"
            yield message(" ".join(texts["app.py"]) or f"{unknown}; drop it again", "problem")

    def results(self) -> list[Path]:
        """Return the files to offer for download."""
        return sorted(path for path in self.folder.glob("outputs/[!.]*_*.*") if path.is_file())

    def viewer(self) -> str:
        """Return the viewer as HTML, empty if it is not ready yet."""
        pages = (quote(page.as_posix()) for page in self.folder.glob("outputs/*_viewer.html"))
        show = '<iframe src="gradio_api/file={}" title="Viewer" allow="fullscreen"></iframe>'
        return "".join(map(show.format, pages))


def message(text: str, kind: str = "message") -> str:
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>'


def foreign(method: str, headers: Mapping[str, str], hosts: set[str]) -> bool:
    """Return whether a request is for another host or comes from a page of another site.

    Host names can be redirected here (DNS rebinding), addresses can't. hosts: this page's names.
    """
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname
        if name not in hosts:
            ipaddress.ip_address(name or "")
    except ValueError:
        return True
    if site := headers.get("sec-fetch-site"):  # proxies keep it, but not always the host
        link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        return site in ("cross-site", "same-site") and not link
    return urlsplit(headers.get("origin", f"//{host}")).netloc != host


def delete_abandoned(folder: Path) -> None:
    """Delete old uploads and sessions in a server's folder."""
    for used in (folder / "results", folder):
        os.utime(used)
        for path in used.iterdir():
            delete_old(path)


def delete_old(path: Path) -> None:
    """Delete this user's file or folder if it has not changed for MAX_AGE seconds."""
    with suppress(OSError):
        facts = path.lstat()
        old = facts.st_mtime < time.time() - MAX_AGE
        if old and facts.st_uid == getattr(os, "getuid", int)():
            shutil.rmtree(path) if stat.S_ISDIR(facts.st_mode) else path.unlink()


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Serve the page until Ctrl-C or SIGTERM. folder: for all temporary files."""
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    os.environ |= settings | {"NO_PROXY": "*"}  # the server asks itself whether it has started
    tempfile.tempdir = str(folder)
    import gradio  # first: it is what a user has to install

    # isort: split
    import fastapi  # a part of gradio's requirements

    sessions: dict[str, Session] = {}
    files = folder / "results"
    files.mkdir()
    name = socket.gethostname().lower()
    hosts = {"localhost", args.host.lower(), name, f"{name}.local"}

    def check(request: fastapi.Request) -> None:
        if foreign(request.method, request.headers, hosts):
            raise fastapi.HTTPException(403, "Another host or site; use its machine's address")

    def begin(upload: str | None, request: gradio.Request) -> str:
        former = sessions.get(request.session_hash or "")
        if former and former.upload == Path(upload or ""):
            former.stop()
            return ""
        whole = upload in page.upload_file_set and Path(upload or "").is_file()
        session = Session(Path(upload), files) if upload and whole else None
        leave(request)
        if not session:
            lost = "This file has not been uploaded; drop it again"
            return message(lost if upload else "Drop a file first", "problem")
        sessions[request.session_hash or ""] = session
        return ""

    def begin_example(request: gradio.Request) -> str:
        leave(request)
        sessions[request.session_hash or ""] = Session(folder / EXAMPLE, files)
        return ""

    def show(layout: str, request: gradio.Request) -> Iterator[tuple]:
        if session := sessions.get(request.session_hash or ""):
            paths: list[Path] | None = None
            for text in session.run(layout, args.max_seconds):
                former, paths = paths, session.results()
                offered = gradio.File([str(path) for path in paths], visible=bool(paths))
                yield text, session.viewer(), gradio.skip() if paths == former else offered

    def leave(request: gradio.Request) -> None:
        if session := sessions.pop(request.session_hash or "", None):
            session.close()

    with gradio.Blocks(title="360° saliency") as page:
        gradio.HTML(
            f"<h1>Where would people look?</h1><p>Drop a 360° clip or picture, up to "
            f"{args.max_seconds} seconds and {args.max_megabytes} MB, and press Start. It stays on "
            "the machine that serves this page and is deleted when you close the tab.</p>"
        )
        with gradio.Row():
            clip = gradio.File(label="360° clip or picture", height=130, scale=3)
            with gradio.Column():
                layout = gradio.Dropdown(list(LAYOUTS), label="Layout",
                    filterable=False)  # fmt: skip
                with gradio.Row():
                    start = gradio.Button("Start", variant="primary", min_width=90)
                    example = gradio.Button("Example", min_width=90)
        downloads = gradio.File(label="Results", visible=False, interactive=False)
        outputs = gradio.HTML(min_height=60), gradio.HTML(), downloads
        private: Any = {"api_visibility": "private", "show_progress_on": outputs[0]}
        for event, step, given in (start.click, begin, clip), (example.click, begin_example, None):
            event(step, given, outputs[0], queue=False, **private).then(
                show, layout, outputs, trigger_mode="multiple", concurrency_id="clip", **private
            )
        page.unload(leave)
    page.queue(api_open=False, max_size=QUEUE_SIZE, default_concurrency_limit=1)

    try:
        page.launch(
            server_name=args.host, server_port=args.port, prevent_thread_lock=True, quiet=True,
            max_file_size=f"{args.max_megabytes}mb", allowed_paths=[str(files)], share=False,
            app_kwargs={"dependencies": [fastapi.Depends(check)]}, footer_links=[],
            run_history=False, enable_monitoring=False, mcp_server=False, ssr_mode=False,
            pwa=False, inline=False, theme=gradio.themes.Base(), css=STYLE,
        )  # fmt: skip
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        print(f"open {page.local_url} in a browser; Ctrl-C ends the page", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(CLEANING_INTERVAL)
                delete_abandoned(folder)
    except OSError as error:
        where = f"{args.host}, port {args.port or '7860 and above'}"
        cure = "give another --host or --port"
        raise InputError(f"{where}: in use, or not an address of this machine; {cure}") from error
    finally:
        for session in sessions.values():
            session.stop()
        if page.is_running:
            page.server.force_exit = True  # do not wait for downloads
            page.close(verbose=False)


def main() -> None:
    args = parse_args()
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        delete_old(path)  # left by a killed server
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True) as folder:
        try:
            serve(args, Path(folder))
        except ModuleNotFoundError as error:
            how = f"run pip install -r {startup.ROOT / 'requirements-app.txt'}"
            raise InputError(f"the package '{error.name}' is missing; {how}") from error


if __name__ == "__main__":
    run_script(main)
