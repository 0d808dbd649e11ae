"""How much later than its frame a map comes, by counting the pictures that were taken by then."""

import re
import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import models
from models.predict import THREADS
from tests.clips import moving_disc
from video import Frame

ROOT = Path(__file__).resolve().parents[1]
SAMPLED = 4  # pictures at 30 a second for each frame of a network at 8


def delays(model, given, **options):
    """The number of pictures taken after the one whose map comes, for all but the stream's end."""
    taken = 0

    def counted():
        nonlocal taken
        for item in given:
            taken += 1
            yield item

    pairs = models.predict(model, counted(), **options)
    return [taken - frame.number for frame, _ in pairs if taken < len(given)]


def pictures(height, count):
    return [np.full((height, 2 * height, 3), n % 256, np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def u_net():
    return models.CubeUNet(height=40, width=80, base_channels=1).eval()


def test_a_map_of_the_u_net_comes_one_frame_later(u_net):
    assert set(delays(u_net, pictures(40, 20), live=True)) == {1}
    assert set(delays(u_net, pictures(40, 20), live=True, fps=30)) == {SAMPLED}
    frames = [Frame(n, n / 8, torch.zeros(3, 40, 80), torch.zeros(1, 40, 80)) for n in range(1, 12)]
    assert set(delays(u_net, frames, live=True)) == {0}
    # Where nobody waits for a map: eight at once by each thread, and eight that wait for one.
    threads = min(torch.get_num_threads(), THREADS)
    assert max(delays(u_net, pictures(40, 80))) == 8 * (threads + (threads > 1))


def test_maps_are_the_same_live(u_net):
    given = [moving_disc(n, 40, 80) for n in range(19)]
    one, other = (list(models.predict(u_net, given, live=live)) for live in (False, True))
    for (frame, saliency), (same, found) in zip(one, other, strict=True):
        assert frame.number == same.number
        torch.testing.assert_close(saliency, found, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("sampling", "least", "most"), [("seamless", 6, 17), ("reference", 2, 21)])
def test_a_map_of_sst_sal_comes_when_its_clip_is_full(sampling, least, most):
    model = models.SSTSal(3, 1, sampling=sampling, height=8, width=16).eval()
    for options, step in (({}, 1), ({"fps": 30}, SAMPLED)):
        found = delays(model, pictures(8, 200), live=True, **options)
        assert (min(found), max(found)) == (least * step, most * step)
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8").replace("\n", " ")
    assert f"{least} to {most}" in page


def test_the_socket_of_the_page_works(monkeypatch, u_net, capsys):
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "socket" in c)
    monkeypatch.setattr(models, "load", lambda path: u_net)
    with socket.create_server(("localhost", 0)) as server:

        def send():
            with server.accept()[0] as connection:
                for n in range(5):
                    content = cv2.imencode(".png", moving_disc(n, 40, 80))[1].tobytes()
                    connection.sendall(len(content).to_bytes(4, "big") + content)

        sender = threading.Thread(target=send)
        sender.start()
        exec(code.replace("5000", str(server.getsockname()[1])), {})
        sender.join()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("12345")
