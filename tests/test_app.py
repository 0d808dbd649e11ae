"""The page of app.py: in a browser, and asked by hostile clients on this machine."""

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
from PIL import Image

import app
from app import LAYOUTS, Session, delete_abandoned, examine
from tests.browser import Browser, find_browser
from tests.clips import moving_disc, write_video
from tests.commands import ROOT
from tests.trainings import server

DECLARED = next(iter(LAYOUTS))
RESULTS = {f"clip_{kind}" for kind in ("overlay.mp4", "saliency.zip", "peaks.csv", "viewer.html",
                                    "follow.mp4")}  # fmt: skip
BEGIN, SHOW = 0, 1  # numbers of the page's functions


@pytest.fixture
def session(tmp_path):
    (tmp_path / "upload").mkdir()
    clip = write_video(tmp_path / "upload/clip.mp4", frames=2, fps=1)
    (tmp_path / "results").mkdir()
    session = Session(clip, tmp_path / "results")
    yield session
    session.close()
    assert not files(tmp_path) and not list((tmp_path / "results").iterdir())


def test_a_clip_becomes_a_viewer_and_files(session, monkeypatch):
    monkeypatch.setattr(app, "get_context", lambda _: server())
    shown, offered = {}, []
    for text in session.run(DECLARED, longest=5):
        shown[text] = session.viewer()
        offered.append({path.name for path in session.results()})
    steps = "Predicting maps", "Writing the viewer", "Painting the overlay", "Following attention"
    for step in steps:
        assert any(f"{step}: frame 2 of 2" in text for text in shown), step
    assert {path.name for path in session.results()} == RESULTS
    assert session.viewer().startswith("<iframe") and "clip_viewer.html" in session.viewer()
    during = [text for text, viewer in shown.items() if viewer and "Painting" in text]
    assert during, "the viewer is shown as soon as it is there"
    assert RESULTS - {"clip_follow.mp4", "clip_saliency.zip"} in offered
    assert all(before <= after for before, after in zip(offered, offered[1:]))


@pytest.mark.slow
def test_a_clip_that_is_too_long_is_refused_in_a_sentence(session, monkeypatch):
    monkeypatch.setattr(app, "get_context", lambda _: server())
    *_, last = session.run(DECLARED, longest=0)
    assert ">clip.mp4: lasts 2.0 seconds, 0 are allowed; cut it" in last
    assert 'class="problem"' in last and not session.results()


def write_untimed_video(path, frames, **options):
    """A video of which no packet has a time, or all the same one."""
    with av.open(str(path), "w", **options) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        pictures = [av.VideoFrame.from_ndarray(moving_disc(n, 48, 96)) for n in range(frames)]
        for picture in [*pictures, None]:
            for packet in stream.encode(picture):
                packet.pts = packet.dts = 0
                output.mux(packet)
    return path


def test_packets_without_times_count_as_seconds(tmp_path):
    assert examine(write_untimed_video(tmp_path / "raw.h264", 50))[1] == 2
    assert examine(write_untimed_video(tmp_path / "zero.mkv", 50))[1] == 2
    assert examine(write_untimed_video(tmp_path / "zero.ts", 50, format="mpegts"))[1] == 2
    assert examine(write_video(tmp_path / "timed.mp4", frames=20, fps=10))[1] == 2
    (tmp_path / "text.mp4").write_text("no video")
    assert examine(tmp_path / "text.mp4")[1] == 0


def test_the_clip_of_two_tabs_outlives_the_first(tmp_path):
    """Gradio keeps one upload of a file that is dropped twice."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"clip")
    first, second = Session(clip, tmp_path), Session(clip, tmp_path)
    first.close()
    assert (second.folder / "clip.mp4").read_bytes() == b"clip"
    second.close()
    assert not list(tmp_path.iterdir())


def test_what_is_abandoned_is_deleted(tmp_path):
    """An upload that broke off or was never used, and the session of a client that is gone."""
    old = time.time() - 2 * app.MAX_AGE
    (tmp_path / "results").mkdir()
    for name in ("used", "unused", "results/used", "results/gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_text("clip")
    for name in ("half", "new half"):
        (tmp_path / name).write_text("half of a clip")
    for name in ("unused", "results/gone", "results", "half", ""):
        os.utime(tmp_path / name, (old, old))
    delete_abandoned(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {path for path in left if "clip" not in path} == {
        "used", "results", "results/used", "new half"}  # fmt: skip
    assert tmp_path.stat().st_mtime > old, "it is in use"


def test_a_missing_gradio_is_one_line(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError('none', name='gradio')")
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)})  # fmt: skip
    how = f"pip install -r {ROOT / 'requirements-app.txt'}"
    assert done.stderr == f"app.py: the package 'gradio' is missing; run {how}\n"
    assert done.returncode == 2


class Page:
    """A process of app.py, its address, its folder of temporary files, and a client."""

    def __init__(self, temporary, *options):
        if not importlib.util.find_spec("gradio"):
            pytest.skip("no Gradio here; `make app` installs it")
        temporary.mkdir(exist_ok=True)
        command = [sys.executable, ROOT / "app.py", "--max_megabytes", "1", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"TMPDIR": str(temporary)})  # fmt: skip
        _, self.address, *rest = self.process.stdout.readline().split()
        assert rest[:3] == ["in", "a", "browser;"]
        self.address = self.address.rstrip("/")
        self.temporary = temporary
        self.host = self.address.removeprefix("http://")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()

    def ask(self, path, content=None, **headers):
        """Send GET, or POST with a content, and return the status and the answer."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(content, dict):
            content, headers = json.dumps(content), {"Content-Type": "application/json"} | headers
        connection.request("POST" if content else "GET", path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")

    def upload(self, content=b"text", name="clip.mp4", **headers):
        part = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        body = part.encode() + content + b"\r\n--b--\r\n"
        return self.ask("/gradio_api/upload", body, **kind, **headers)

    def call(self, function, *data, session="tab"):
        """Call a function of the page without its queue."""
        given = {"fn_index": function, "data": data, "session_hash": session}
        return self.ask("/gradio_api/run/predict", given)

    def drop(self, path, session="tab", **more):
        return self.call(BEGIN, {"path": str(path), **more}, session=session)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("page") / "temporary") as page:
        yield page


META = {"meta": {"_type": "gradio.FileData"}}


def served(page):
    """The folder of the server that runs."""
    return next(page.temporary.iterdir())


@pytest.mark.parametrize("more", [META, {}, META | {"url": "x", "is_stream": True}])
def test_a_client_names_only_what_was_uploaded(page, tmp_path, more):
    """Gradio copied any path into its cache, and served it through a deep link."""
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody's business")
    os.mkfifo(tmp_path / "fifo")
    paths = [secret, "/etc/hostname", "/dev/zero", tmp_path / "fifo", tmp_path, served(page)]
    paths += [served(page) / "results", f"{secret}\0", "", "http://127.0.0.1:9/clip.mp4"]
    for path in paths:
        status, answer = page.drop(path, session="thief", **more)
        assert status == 500 or "drop it again" in answer, (path, answer)
        assert page.call(SHOW, DECLARED, session="thief")[0] == 404, "outside of the queue"
        _, link = page.ask("/gradio_api/deep_link?session_hash=thief")
        _, config = page.ask(f"/config?deep_link={json.loads(link or '0')}")
        assert "nobody" not in config
    for path in (secret, served(page), "/dev/zero", tmp_path / "fifo", "ключ"):
        quoted = "".join(f"%{byte:02x}" for byte in str(path).encode())
        assert page.ask(f"/gradio_api/file={quoted}")[0] == 403
    assert "nobody" not in "".join(p.read_text() for p in served(page).rglob("*") if p.is_file())
    assert page.ask("/")[0] == 200, "the server answers"


def test_only_whole_uploads_are_accepted(page):
    status, answer = page.upload(b"text")
    (path,) = json.loads(answer)
    assert status == 200 and Path(path).read_bytes() == b"text"
    for wrong in (Path(path).parent, f"{path}x", served(page) / "results/x/clip.mp4"):
        assert "drop it again" in page.drop(wrong, **META)[1]
    assert "drop it again" not in page.drop(path, **META)[1]
    assert page.upload(bytes(2_000_000))[0] == 413


def test_own_names_of_this_machine_are_served_and_others_refused(page):
    """A page whose name is made to lead here, by DNS rebinding, would read all answers."""
    for host in ("localhost", "127.0.0.1:1", "192.168.1.5:7860", "[::1]:7860"):
        assert page.ask("/config", Host=host)[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "evil:7860"):
        assert page.ask("/config", Host=host)[0] == 403


def test_pages_of_other_sites_can_not_upload(page):
    own = page.address
    assert page.upload(Origin=own)[0] == 200
    assert page.upload(Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    before = list(served(page).rglob("*"))
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"{own}.evil.example"):
        assert page.upload(b"evil", Origin=origin)[0] == 403
    for site in ("cross-site", "same-site"):  # whatever a proxy does to the host and the origin
        assert page.upload(b"evil", Sec_Fetch_Site=site)[0] == 403
        assert page.upload(b"evil", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 403
        assert page.ask("/config", Sec_Fetch_Site=site)[0] == 403
        assert page.ask("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200, "a link"
    assert list(served(page).rglob("*")) == before


@pytest.mark.slow
def test_the_queue_is_bounded_and_ctrl_c_ends_the_page(tmp_path):
    """With clips of clients that never listen in work and in the queue."""
    leftover, foreign = tmp_path / f"{app.FOLDER_PREFIX}old", tmp_path / "saliency-of-others"
    running = tmp_path / f"{app.FOLDER_PREFIX}running"
    for folder in (leftover, foreign, running):
        folder.mkdir()
        (folder / "clip.mp4").write_text("clip")
    for folder in (leftover, foreign):
        os.utime(folder, (1e9, 1e9))
    with Page(tmp_path) as page:
        assert not leftover.exists(), "what a killed server left"
        assert foreign.exists() and running.exists()
        (path,) = json.loads(page.upload(write_clip(tmp_path))[1])
        answers = []
        for number in range(app.QUEUE_SIZE + 5):
            tab = f"tab{number}"
            page.drop(path, session=tab, **META)
            given = {"fn_index": SHOW, "data": [DECLARED], "session_hash": tab}
            answers.append(page.ask("/gradio_api/queue/join", given))
        assert {status for status, _ in answers} == {200, 503}
        assert "Queue is full" in answers[-1][1]
        waiting = time.monotonic() + 30
        while not list(tmp_path.glob(f"{app.FOLDER_PREFIX}*/results/*/outputs")):
            assert time.monotonic() < waiting, "nothing is done"
            time.sleep(0.1)
        half = http.client.HTTPConnection(page.host)  # an upload that breaks off
        half.putrequest("POST", "/gradio_api/upload")
        half.putheader("Content-Type", "multipart/form-data; boundary=b")
        half.putheader("Content-Length", "1000")
        half.endheaders(b"--b\r\n")
        page.process.send_signal(signal.SIGINT)
        start = time.monotonic()
        assert page.process.wait(20) == 0
        assert time.monotonic() - start < 3
        half.close()
    assert set(tmp_path.iterdir()) == {foreign, running, tmp_path / "long.mp4"}


def write_clip(folder):
    return write_video(folder / "long.mp4", frames=400, fps=8).read_bytes()


@pytest.fixture
def browser():
    if not (path := find_browser()):
        pytest.skip("no Chromium or Chrome here; `make browser` installs one")
    with Browser(path) as browser:
        yield browser


def drop(browser, path):
    browser.wait("document.querySelector('input[type=file]')")
    page = browser.send("DOM.getDocument")["root"]["nodeId"]
    field = browser.send("DOM.querySelector", nodeId=page, selector="input[type=file]")
    browser.send("DOM.setFileInputFiles", nodeId=field["nodeId"], files=[str(path)])


def press(browser, name):
    button = f"[...document.querySelectorAll('button')].find((b) => b.innerText === '{name}')"
    browser.wait(button)
    browser.run(f"{button}.click()")


def choose(browser, number):
    """Choose the option of this number in the list that says how the clip lies on the sphere."""
    field = "document.querySelector('input[role=combobox]').getBoundingClientRect()"
    place = browser.run(f"((box) => [box.x + 20, box.y + 10])({field})")
    browser.drag(place, place)
    browser.wait("document.querySelector('[role=option]')")
    browser.run(f"document.querySelectorAll('[role=option]')[{number}].dispatchEvent("
                "new MouseEvent('mousedown', {bubbles: true}))")  # fmt: skip


def files(folder):
    """The files with content in a folder; Gradio leaves empty ones."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.slow
def test_the_page_in_a_browser(browser, tmp_path):
    with Page(tmp_path / "temporary") as page:
        assert page.address.startswith("http://127.0.0.1:")
        browser.open(page.address)
        text = tmp_path / "text.mp4"
        text.write_text("no video")
        drop(browser, text)
        browser.wait("document.body.innerText.includes('text.mp4')")
        press(browser, "Start")
        browser.wait("document.querySelector('.problem')", 60)
        assert "text.mp4: no video or picture" in browser.run("document.body.innerText")
        assert str(tmp_path) not in browser.run("document.body.innerText")

        clear = "button[aria-label=Clear], button[title=Clear]"
        browser.run(f"document.querySelector('{clear}').click()")
        drop(browser, write_video(tmp_path / "<clip>.mp4", frames=2, fps=4))
        browser.wait("document.body.innerText.includes('clip>')")
        press(browser, "Start")
        browser.wait("document.querySelector('iframe')", 120)
        browser.run("document.querySelector('iframe').dataset.first = 1")
        browser.wait("document.querySelector('iframe').contentDocument?.body"
                     "?.innerText.includes('frame 1 of 2')")  # fmt: skip
        results = (
            "[...document.querySelectorAll('a[download]')].filter(a => a.href.match('results'))"
        )
        browser.wait(f"{results}.length === 5", 120)
        sizes = browser.run(f"""Promise.all({results}.map(
            async (link) => (await (await fetch(link.href)).blob()).size))""")
        assert min(sizes) > 100
        assert browser.run("document.querySelector('iframe').dataset.first"), "it was loaded anew"
        assert {url.split(":")[0] for url in browser.requests} <= {"http", "blob", "data", "about"}
        pages = [url for url in browser.requests if url.startswith("http")]
        assert all(url.startswith(page.address) for url in pages)

        assert files(page.temporary)
        browser.send("Page.navigate", url="about:blank")
        end = time.monotonic() + 20
        while files(page.temporary) and time.monotonic() < end:
            time.sleep(0.1)
        assert not files(page.temporary), "what belonged to the tab is left"
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(20) == 128 + signal.SIGTERM
        assert not list(page.temporary.iterdir())


@pytest.mark.slow
def test_stereo_was_asked_after_the_maps(browser, tmp_path):
    """A picture that is not 2:1 was taken for a panorama; there was no example to press."""
    with Page(tmp_path / "temporary") as page:
        browser.open(page.address)
        browser.wait("document.querySelector('input[type=file]')")
        press(browser, "Start")
        browser.wait("document.querySelector('.problem')?.innerText === 'Drop a file first'", 30)
        square = tmp_path / "square.png"
        Image.fromarray(moving_disc(3, 96, 96)).save(square)
        drop(browser, square)
        browser.wait("document.body.innerText.includes('square')")
        press(browser, "Start")
        browser.wait("document.querySelector('.problem')?.innerText.includes('96×96')", 60)
        said = browser.run("document.querySelector('.problem').innerText")
        assert said.endswith("choose its layout above")
        assert not list(page.temporary.rglob("sal_*.png"))
        choose(browser, 2)  # top-bottom
        press(browser, "Start")
        browser.wait("document.querySelector('iframe')", 120)
        record = json.loads(next(page.temporary.rglob("saliency.json")).read_text())
        assert record["stereo"] == "top-bottom"
        press(browser, "Example")
        browser.wait("document.body.innerText.match(/frame \\d+ of 48, [\\d:]+ left/)", 120)
        browser.wait("document.querySelector('iframe')?.src.includes('example_viewer')", 240)
