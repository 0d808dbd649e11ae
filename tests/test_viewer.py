"""The viewer page in a browser, opened from a file as its users do."""

import base64
import io
import json
import math
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from common.files import OUTPUT_RECORD
from projection import directions
from recipes.perspective import Equi2Perspective
from tests.browser import Browser, find_browser
from tests.clips import write_video
from tests.commands import paint, success
from views import viewer
from views.follow import follow_path
from views.overlay import COLORMAPS
from views.viewer import MAP_ROWS, concentration, pack

FRAMES, FPS, HEIGHT, WIDTH = 30, 10, 256, 512
GRID = directions(HEIGHT, WIDTH, torch.float64).numpy()
MEASURED_SIZE = directions(64, 128, torch.float64).numpy()


def towards(lon, lat):
    """The direction of a longitude and a latitude in degrees."""
    lon, lat = math.radians(lon), math.radians(lat)
    return np.array([math.cos(lat) * math.sin(lon), math.sin(lat), math.cos(lat) * math.cos(lon)])


def picture(frame):
    """(H, W, 3) uint8: colours that tell directions and frames apart."""
    waves = np.sin(GRID @ np.array([[4, 1, 0], [0, 5, 2], [-2, 1, 6]]) + [0, 1, 2 + 0.4 * frame])
    return np.rint(127 + 90 * waves).astype(np.uint8)


def peak(frame):
    """Longitude and latitude of the most salient place: across ±180°."""
    return (160 + 1.5 * frame + 180) % 360 - 180, 20 - frame / 2


def saliency(frame):
    near = np.exp(40 * (MEASURED_SIZE @ towards(*peak(frame)) - 1))
    return np.rint(255 * near).astype(np.uint8)


def write_maps(folder, count=FRAMES):
    folder.mkdir()
    for k in range(count):
        Image.fromarray(saliency(k)).save(folder / f"sal_{k + 1:04d}.png")
    return folder


def make(source, maps, output, *more):
    success(paint(source, maps, output, "--preset", "veryfast", *more))
    return output


def embedded(page):
    """The clip in a page, and its facts."""
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r'<script type="text/plain" class="clip">(.*?)</script>', text)
    facts = re.search(r'<script id="facts" type="application/json">(.*?)</script>', text)[1]
    return b"".join(map(base64.b64decode, parts)), json.loads(facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    write_maps(folder / "maps")
    options, sound = {"crf": "10", "preset": "veryfast"}, ("libopus", 48000, "stereo")
    pictures = [picture(k) for k in range(FRAMES)]
    write_video(folder / "a <b> & c.mkv", pictures, fps=FPS, sound=sound, options=options)
    make(folder / "a <b> & c.mkv", folder / "maps", folder / "page.html", "--crf", 12)
    return folder


@pytest.fixture(scope="module")
def running():
    if not (path := find_browser()):
        pytest.skip("no Chromium or Chrome here; `make browser` installs one")
    try:
        browser = Browser(path)
    except (EOFError, BrokenPipeError, TimeoutError) as error:
        pytest.skip(f"{path} does not start here ({error})")
    with browser:
        yield browser


@pytest.fixture
def browser(running):
    """The browser, in whose page nothing may go wrong."""
    running.resize(960, 640)
    running.prefer(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
    yield running
    assert running.errors == []
    assert {url.split(":")[0] for url in running.requests} <= {"file", "blob", "data", "about"}


@pytest.fixture
def page(browser, folder):
    """The browser with the page opened; `open_page` opens another."""
    return open_page(browser, folder / "page.html")


def open_page(browser, path, fragment=""):
    browser.open(path.as_uri() + fragment)
    browser.wait("facts.still ? source.naturalWidth : source.readyState > 2 && !source.seeking")
    browser.wait("drawing === 0")
    return browser


def shown(browser):
    """The pixels of the view: (H, W, 3) float in [0, 255]."""
    data = browser.run("(draw(), $('view').toDataURL('image/png'))")
    image = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))
    return np.asarray(image.convert("RGB"), float)


def go(browser, frame):
    browser.run(f"goTo({frame})")
    browser.wait("!source.seeking && wanted === null && drawing === 0")
    assert browser.run("index") == frame


def projected(image, size, lon, lat):
    """What projection/ shows of an (H, W, C) image: float in [0, 255], 90° from left to right."""
    image = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    return Equi2Perspective(90, size)(image, yaw=lon, pitch=lat)[0].permute(1, 2, 0).numpy()


def psnr(image, expected):
    return 10 * math.log10(255**2 / np.mean((image - expected) ** 2))


def test_it_plays_with_its_sound_and_pauses(page):
    assert page.run("[source.paused, index]") == [True, 0]
    page.press(" ")
    page.wait("source.currentTime > 0.6 && index > 4")
    assert page.run("$('play').ariaLabel") == "Pause"
    assert not page.run("$('mute').hidden") and page.run("source.webkitAudioDecodedByteCount") > 0
    page.press("m")
    assert page.run("source.muted")
    page.press(" ")
    page.wait("source.paused && $('said').textContent.startsWith('Paused at 0:0')")
    page.press("End")
    page.wait(f"index === {FRAMES - 1} && !source.seeking")
    page.press(" ")  # from the beginning
    page.wait("0.2 < source.currentTime && source.currentTime < 2")


def test_a_click_plays_and_pauses_and_the_clip_goes_round(page):
    page.run("follow(true)")
    page.drag((300, 200), (302, 201))
    page.wait("!source.paused")
    page.run("source.currentTime = seconds[last]")
    page.wait("source.currentTime < seconds[last] - 0.5 && index < last")
    page.drag((300, 200), (300, 200))
    assert page.run("[source.paused, following]") == [True, True]
    page.drag((300, 200), (340, 200))
    assert page.run("[source.paused, following]") == [True, False]


@pytest.mark.parametrize("lon, lat", [(0, 0), (175, -20), (60, 80), (-100, -90)])
def test_a_view_is_the_projection_of_its_frame(page, lon, lat):
    """Straight ahead, over the seam, near a pole and at one."""
    page.run(f"$('strength').value = 0; Object.assign(look, {{lon: {lon}, lat: {lat}}})")
    for frame in (0, 7, FRAMES - 1):
        go(page, frame)
        image = shown(page)
        expected = projected(picture(frame), image.shape[:2], lon, lat)
        rows, columns = (slice(n // 4, 3 * n // 4) for n in image.shape[:2])
        assert psnr(image[rows, columns], expected[rows, columns]) >= 30
        assert psnr(image, expected) >= 30
        assert psnr(image, projected(picture(frame + 2), image.shape[:2], lon, lat)) < 30


def test_frame_by_frame(page):
    page.run("$('strength').value = 0")
    for keys, frame in ((".", 1), ("...", 4), (",", 3), (",,,,,", 0), (".", 1)):
        page.press(*keys)
        page.wait(f"index === {frame} && !source.seeking && wanted === null && drawing === 0")
        image = shown(page)
        scores = [psnr(image, projected(picture(k), image.shape[:2], 0, 0)) for k in range(6)]
        assert int(np.argmax(scores)) == frame
        assert page.run("$('frame').textContent") == f"frame {frame + 1} of {FRAMES}"


@pytest.mark.parametrize("frame", [0, 13, FRAMES - 1])
def test_the_map_lies_where_it_should(page, frame):
    lon, lat = peak(frame)
    page.run(f"setMode('beside'); Object.assign(look, {{lon: {lon} + 10, lat: {lat} - 5}})")
    page.run("$('colormap').value = 'bone'; uploadColours()")
    go(page, frame)
    image = shown(page)
    heat = image[:, image.shape[1] // 2 + 1 :]
    bright = heat.sum(-1)
    row, column = (np.mean(k) for k in np.nonzero(bright > 0.9 * bright.max()))
    size = max(heat.shape[:2])  # 90° along the longer side
    x, y = ((2 * column + 1 - heat.shape[1]) / size, (heat.shape[0] - 2 * row - 1) / size)
    ray = x * towards(lon + 100, 0) + y * towards(lon + 10, lat + 85) + towards(lon + 10, lat - 5)
    assert math.degrees(math.acos(ray @ towards(lon, lat) / np.linalg.norm(ray))) < 1.5
    left = image[:, : image.shape[1] // 2 - 1]
    assert psnr(left, heat) < 20  # the clip, without the map


def test_strength_and_colours_are_those_of_the_overlay(page):
    """The colour beside the peak is blended as views.overlay says."""
    lon, lat = peak(9)[0] + 7, peak(9)[1]
    page.run(f"Object.assign(look, {{lon: {lon}, lat: {lat}}})")
    go(page, 9)
    assert page.run("$('strength').value") == "50"
    below = projected(picture(9), (99, 99), lon, lat)[49, 49]
    value = projected(saliency(9)[..., None], (99, 99), lon, lat)[49, 49, 0] / 255
    assert 0.5 < value < 0.9
    for name, alpha in (("turbo", 0.7), ("viridis", 1), ("hot", 0.3)):
        page.run(f"$('strength').value = {100 * alpha}")
        page.run(
            f"$('colormap').value = '{name}'; $('colormap').dispatchEvent(new Event('change'))"
        )
        image = shown(page)
        middle = image[image.shape[0] // 2, image.shape[1] // 2]
        level = np.full((1, 1), round(255 * value), np.uint8)
        heat = cv2.applyColorMap(level, COLORMAPS[name])[0, 0, ::-1]
        opacity = alpha * value * (2 - value)
        np.testing.assert_allclose(middle, (1 - opacity) * below + opacity * heat, atol=12)


def test_the_flat_view_is_the_picture(page):
    page.run("$('strength').value = 0; setMode('flat')")
    go(page, 5)
    image = shown(page)
    height, width = image.shape[0], 2 * image.shape[0]
    left = (image.shape[1] - width) // 2
    assert left > 20  # the view is wider than the picture
    part = image[:, left + 1 : left + width - 1]
    expected = cv2.resize(picture(5), (width, height), interpolation=cv2.INTER_LINEAR)[:, 1:-1]
    assert psnr(part, expected) >= 30
    assert (image[:, : left - 1] == image[0, 0]).all()


def test_dragging_changes_the_view(page):
    before = shown(page)
    page.drag((480, 250), (380, 290))
    lon, lat = page.run("[look.lon, look.lat]")
    assert 8 < lon < 20 and 3 < lat < 9  # what is held moves with the mouse
    assert psnr(shown(page), before) < 30
    page.run("setMode('flat')")
    page.drag((480, 250), (240, 250))
    assert page.run("flat.lon") == pytest.approx(240 * 180 / page.run("$('view').clientHeight"))
    page.send("Input.dispatchMouseEvent", type="mouseWheel", x=480, y=250, deltaX=0, deltaY=-500)
    page.wait("flat.zoom > 2.5")
    page.run("setMode('sphere')")
    page.send("Input.dispatchMouseEvent", type="mouseWheel", x=480, y=250, deltaX=0, deltaY=200)
    page.wait("look.fov > 125")


def test_fingers_on_a_phone(page):
    page.resize(390, 780, phone=True)
    page.wait("$('view').width === 780")
    for mode in ("sphere", "flat", "beside"):
        page.run(f"setMode('{mode}')")
        assert page.run("document.documentElement.scrollWidth") == 390
        assert page.run("document.documentElement.scrollHeight") == 780
    assert page.run("$('view').clientHeight") > 400
    page.run("setMode('sphere')")
    page.touch([(200, 300)], [(150, 300)])
    assert 5 < page.run("look.lon") < 15
    page.touch([(150, 300), (250, 300)], [(100, 300), (300, 300)])
    assert page.run("look.fov") == pytest.approx(45, abs=1)
    small = page.run("[...document.querySelectorAll('button, select')].filter((b) => !b.hidden"
                     " && b.offsetHeight && b.offsetHeight < 36).length")  # fmt: skip
    assert small == 0


def test_the_keyboard_alone(page):
    page.press("Tab")
    named = []
    for _ in range(20):
        named.append(page.run("document.activeElement.id || document.activeElement.value || ''"))
        page.press("Tab")
    for name in ("link", "help", "view", "timeline", "play", "sphere", "follow", "strength"):
        assert name in named, named
    page.run("document.activeElement.blur()")
    page.press("ArrowRight", "ArrowRight", "ArrowUp", "+")
    assert page.run("[look.lon, look.lat]") == pytest.approx([10, 5])
    assert page.run("$('said').textContent") == "lon 10°, lat 5°"
    assert page.run("look.fov") < 90
    page.press("2")
    assert page.run("mode + document.querySelector('[name=mode]:checked').value") == "flatflat"
    page.press("1", "r", "]", "c")
    assert page.run("[look.lon, look.fov]") == [0, 90]
    assert page.run("[$('strength').value, $('colormap').value]") == ["60", "inferno"]
    page.run("$('play').focus()")
    page.press("ArrowLeft")  # a button has no use for it
    assert page.run("look.lon") == -5
    page.run("$('timeline').focus()")
    page.press("ArrowRight")
    page.wait("index === 1 && !source.seeking")
    assert page.run("look.lon") == -5
    page.press("?")
    assert page.run("$('keys').open")
    page.press("ArrowRight")
    assert page.run("look.lon") == -5
    page.press("Escape")
    assert not page.run("$('keys').open")


@pytest.mark.parametrize("control", ["follow", "play", "help", "flat"])
def test_space_pressed_the_button_again_that_was_clicked_before(page, control):
    """The focus stayed there; by the Tab key it still goes there, and Space presses it."""
    x, y = page.run("((b) => [b.x + b.width / 2, b.y + b.height / 2])($('follow')"
                    ".getBoundingClientRect())")  # fmt: skip
    if control != "follow":
        shown = f"$('{control}') || document.querySelector('[value={control}] + span')"
        x, y = page.run(f"((b) => [b.x + b.width / 2, b.y + b.height / 2])(({shown})"
                        ".getBoundingClientRect())")  # fmt: skip
    page.drag((x, y), (x, y))
    if control == "help":
        page.wait("$('keys').open")
        page.press("Escape")
        page.wait("!$('keys').open && !$('keys').contains(document.activeElement)")
    before, pressed = page.run("[source.paused, $('follow').ariaPressed]")
    page.press(" ")
    page.wait(f"source.paused !== {json.dumps(before)}")
    assert page.run("$('follow').ariaPressed") == pressed
    page.run("$('follow').focus()")
    page.press(" ")
    page.wait(f"$('follow').ariaPressed !== {json.dumps(pressed)}")


def test_a_screen_reader_finds_a_name_for_every_control(page):
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    kinds = {"button", "slider", "combobox", "radio", "application", "image", "radiogroup"}
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in kinds
    ]
    assert all(name for _, name in controls), controls
    assert {"button", "slider", "combobox", "radio"} <= {kind for kind, _ in controls}
    value = page.run("$('timeline').getAttribute('aria-valuetext')")
    assert re.fullmatch(r"0:00.00, Attention .*: \d+ %", value)


def test_the_curve_is_clicked_on(page):
    left, top, width = page.run("(({left, top, width}) => [left, top, width])"
                                "($('time').getBoundingClientRect())")  # fmt: skip
    place = (int(left + 0.7 * width), int(top + 20))
    page.drag(place, place)
    page.wait("index > 0 && !source.seeking")
    assert page.run("index") == pytest.approx(0.7 * (FRAMES - 1), abs=1)
    points = page.run("$('curve').getAttribute('d')").split()
    assert len(points) == FRAMES + 5


def test_follow_turns_as_the_path_says(page):
    path = follow_path([saliency(n) for n in range(FRAMES)], np.arange(FRAMES) / FPS)
    page.press("a")
    assert page.run("$('follow').ariaPressed") == "true"
    page.run("source.loop = false")
    page.press(" ")
    page.wait(f"index === {FRAMES - 1} && source.paused", 30)
    page.wait("drawing === 0")
    lon, lat = page.run("[look.lon, look.lat]")
    assert math.degrees(math.acos(min(1, towards(lon, lat) @ towards(*path[-1])))) < 1
    page.run("setMode('flat')")
    page.wait("!$('ring').hidden")
    page.press("ArrowLeft")
    assert page.run("$('follow').ariaPressed") == "false"


def test_follow_turns_at_once_where_less_motion_is_preferred(page):
    page.prefer(prefers_reduced_motion="reduce")
    page.press("a")
    page.wait("drawing === 0")
    away = towards(*page.run("[look.lon, look.lat]")) @ towards(*page.run("path[0]"))
    assert away > 0.9999


def test_a_link_to_a_time_and_a_direction(browser, folder):
    open_page(browser, folder / "page.html", "#t=1.25&lon=30&lat=-5")
    assert browser.run("[index, look.lon, look.lat]") == [12, 30, -5]
    browser.run("copyLink()")
    assert browser.run("location.hash") == "#t=1.2&lon=30&lat=-5"
    browser.run("location.hash = '#t=nonsense&lon=400&lat=1e9'")
    browser.wait("look.lon === 40")
    assert browser.run("[index, look.lat]") == [12, 90]


def test_a_name_with_html_is_text(page):
    assert page.run("document.title") == "a <b> & c.mkv"
    assert page.run("document.querySelector('h1').textContent") == "a <b> & c.mkv"
    assert page.run("$('view').ariaLabel") == "a <b> & c.mkv"


def test_a_still_picture(browser, folder):
    source = folder / "still.png"
    Image.fromarray(picture(3)).save(source)
    write_maps(folder / "still_maps", 1)
    output = make(source, folder / "still_maps", folder / "still.html")
    open_page(browser, output, "#lon=20&lat=10")
    browser.run("$('strength').value = 0; redraw()")
    image = shown(browser)
    assert psnr(image, projected(picture(3), image.shape[:2], 20, 10)) >= 30
    assert browser.run("$('play').closest('.moving').hidden && $('time').hidden")
    browser.press("a", " ", ".")
    browser.wait("drawing === 0")
    away = towards(*browser.run("[look.lon, look.lat]")) @ towards(*peak(0))
    assert math.degrees(math.acos(away)) < 10
    assert browser.run("fragment()").startswith("#lon=")


def test_what_fails_is_said_in_a_sentence(browser, folder, tmp_path):
    text = (folder / "page.html").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('class="clip">', 'class="clip">AAAA'), encoding="utf-8")
    browser.open(broken.as_uri())
    browser.wait("!$('problem').hidden")
    assert "can't play the clip" in browser.run("$('problem').textContent")
    without = tmp_path / "without.html"
    remove = "<head><script>HTMLCanvasElement.prototype.getContext = () => null</script>"
    without.write_text(text.replace("<head>", remove), encoding="utf-8")
    browser.open(without.as_uri())
    browser.wait("!$('problem').hidden")
    assert "WebGL 2" in browser.run("$('problem').textContent")


def test_the_clip_in_the_page(folder):
    clip, facts = embedded(folder / "page.html")
    with av.open(io.BytesIO(clip)) as file:
        video, sound = file.streams.video[0], file.streams.audio[0]
        context = video.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert sound.codec_context.name == "aac"
        assert (context.width, context.height) == (WIDTH, MAP_ROWS + HEIGHT)
        assert (context.color_range, context.colorspace) == (1, 6)  # 256 rows: BT.601
        times = [float(frame.pts * frame.time_base) for frame in file.decode(video)]
    assert clip.find(b"moov") < clip.find(b"mdat")
    assert facts["seconds"] == pytest.approx(times, abs=1e-3)
    assert len(facts["path"]) == len(facts["shares"]) == FRAMES
    assert facts["sound"] and not facts["still"]
    assert list(facts["colormaps"])[0] == "turbo" and "viridis" in facts["colormaps"]
    assert "://" not in viewer.PAGE_TEMPLATE.read_text("utf-8")


def test_a_page_is_at_most_as_wide_as_wished(folder, tmp_path):
    source, maps = folder / "a <b> & c.mkv", folder / "maps"
    page = make(source, maps, tmp_path / "p.html", "--viewer_width", 101, "--colormap", "jet")
    clip, facts = embedded(page)
    with av.open(io.BytesIO(clip)) as file:
        context = file.streams.video[0].codec_context
        assert (context.width, context.height) == (100, MAP_ROWS + 50)
    assert facts["colormap"] == "jet" and list(facts["colormaps"])[0] == "jet"
    assert {path.name for path in tmp_path.iterdir()} == {"p.html", OUTPUT_RECORD}


def test_noise_keeps_to_the_bit_rate(tmp_path):
    """A minute stays under 40 MB whatever is in it."""
    random = np.random.default_rng(0)
    (tmp_path / "maps").mkdir()
    (tmp_path / "frames").mkdir()
    for k in range(90):
        noise = random.integers(0, 255, (160, 320, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"frames/{k:04d}.png", compress_level=1)
        Image.fromarray(noise[..., 0]).save(
            tmp_path / f"maps/sal_{k + 1:04d}.png", compress_level=1
        )
    paths = (tmp_path / name for name in ("frames", "maps", "p.html"))
    page = make(*paths, "--fps", 30, "--crf", 0)
    allowed = viewer.MAX_BIT_RATE / 8 * (3 + 2)  # and the encoder's buffer of two seconds
    assert 0.5 * allowed < len(embedded(page)[0]) < allowed
    minute = viewer.MAX_BIT_RATE / 8 * (60 + 2) + 192_000 / 8 * 60
    assert minute * 4 / 3 < 39e6


@pytest.mark.parametrize("given, words", [
    (["--viewer", "--output_path", "{}/o.mp4"], "ends with .html"),
    (["--side_by_side"], "--side_by_side"),
    (["--viewer_width", "10"], "64 or more"),
])  # fmt: skip
def test_refusals(tmp_path, given, words):
    source = write_video(tmp_path / "clip.mp4", frames=2)
    maps, given = write_maps(tmp_path / "maps", 2), [word.format(tmp_path) for word in given]
    assert words in paint(source, maps, tmp_path / "o.html", *given)[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "maps"]


def test_the_map_is_packed_above_the_picture():
    values = np.linspace(0, 255, MAP_ROWS).round().astype(np.uint8)[:, None].repeat(480, 1)
    for range_, black, white in ((1, 16, 235), (2, 0, 255)):
        frame = av.VideoFrame.from_ndarray(np.full((300, 480), 90, np.uint8), format="yuv420p")
        frame.color_range = range_
        packed = pack(frame, values, 480)
        assert packed.shape == (3 * (MAP_ROWS + 200) // 2, 480)
        grey = packed[:MAP_ROWS].astype(float)
        expected = black + (white - black) * (values / 255)
        assert np.abs(grey - expected).max() <= 0.5 + 1e-9
        assert (packed[MAP_ROWS : MAP_ROWS + 200] == 90).all()


def test_concentration():
    z = directions(256, 512, torch.float64)[..., 2].numpy()  # uniform on the sphere
    assert concentration(np.full((64, 128), 7)) == pytest.approx(0.05, rel=1e-4)
    assert concentration(np.zeros((64, 128))) == 0
    assert concentration(z > 0.96) == pytest.approx(1)  # 2 % of the sphere
    assert concentration(z > 0.8) == pytest.approx(0.5, abs=0.01)  # 10 %
    closed = (math.exp(4) - math.exp(4 * 0.9)) / (math.exp(4) - math.exp(-4))
    assert concentration(np.exp(4 * z)) == pytest.approx(closed, abs=1e-3)
    assert Path(viewer.PAGE_TEMPLATE).is_file()
