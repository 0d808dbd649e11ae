"""The page of app.py: in a browser, with the shipped checkpoint, where Gradio is installed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

import app
from app import LAYOUTS, Session
from tests.browser import Browser, find_browser
from tests.clips import write_video
from tests.commands import ROOT
from tests.trainings import server

DECLARED = next(iter(LAYOUTS))
RESULTS = {f"clip_{kind}" for kind in ("overlay.mp4", "saliency.zip", "peaks.csv", "viewer.html")}


@pytest.fixture
def session(tmp_path):
    session = Session(tmp_path, write_video(tmp_path / "clip.mp4", frames=2, fps=1))
    yield session
    session.close()
    assert not list(tmp_path.iterdir())


def test_a_clip_becomes_a_viewer_and_files(session):
    said = list(session.run(DECLARED, longest=5))
    for step in ("Predicting maps", "Writing the viewer", "Painting the overlay"):
        assert any(f"{step}: frame 2 of 2" in text for text in said), step
    assert session.outputs().keys() == RESULTS
    assert said[-1].startswith("<iframe") and said[-1].count("download>") == 4


def test_a_clip_that_is_too_long_is_refused_in_a_sentence(session, monkeypatch):
    monkeypatch.setattr(app, "get_context", lambda _: server())
    said = list(session.run(DECLARED, longest=0))
    assert "clip.mp4: lasts 1.0 seconds, 0 are allowed; cut it" in said[-1]
    assert 'class="problem"' in said[-1] and not session.outputs()


def test_a_missing_gradio_is_one_line(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError('none', name='gradio')")
    (tmp_path / "fastapi.py").write_text("")
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)})  # fmt: skip
    how = f"pip install -r {ROOT / 'requirements-app.txt'}"
    assert done.stderr == f"app.py: the package 'gradio' is missing; run {how}\n"
    assert done.returncode == 2


@pytest.fixture
def page(tmp_path):
    """Start app.py: its process, its address and its folder of temporary files."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("no Gradio here; `make app` installs it")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, ROOT / "app.py", "--port", "0", "--max_megabytes", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary)}) as process:  # fmt: skip
        try:
            yield process, process.stdout.readline().split()[0], temporary
        finally:
            process.kill()


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


def files(folder):
    """The files with content in a folder; Gradio leaves empty ones."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def test_the_page_in_a_browser(page, browser, tmp_path):
    process, address, temporary = page
    assert address.startswith("http://127.0.0.1:")
    browser.open(address)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    drop(browser, text)
    browser.wait("document.querySelector('.problem')")
    assert "text.mp4: no video or picture" in browser.run("document.body.innerText")

    browser.run("document.querySelector('button[aria-label=Clear], button[title=Clear]').click()")
    drop(browser, write_video(tmp_path / "<clip>.mp4", frames=2, fps=4))
    browser.wait("document.querySelector('iframe')", 60)
    browser.wait("document.querySelector('iframe').contentDocument?.body"
                 "?.innerText.includes('frame 1 of 2')")  # fmt: skip
    sizes = browser.run("""Promise.all([...document.querySelectorAll('.results a')].map(
        async (link) => (await (await fetch(link.href)).blob()).size))""")
    assert len(sizes) == 4 and min(sizes) > 100
    assert {url.split(":")[0] for url in browser.requests} <= {"http", "blob", "data", "about"}
    assert all(url.startswith(address) for url in browser.requests if url.startswith("http"))

    assert files(temporary)
    browser.send("Page.navigate", url="about:blank")
    end = time.monotonic() + 20
    while files(temporary) and time.monotonic() < end:
        time.sleep(0.1)
    assert not files(temporary), "what belonged to the tab is left"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert not list(temporary.iterdir())
