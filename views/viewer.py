"""Writes a page in which one looks around in a 360° video or picture and its maps: one HTML file.

Picture and map are packed into one video: the map, in grey and MAP_ROWS high, above the picture. So
both come from the same decoded frame and can't get out of step, and the page blends them as its
user likes. viewer.html is the page; what it shows is put into it as JSON and base64.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from projection import solid_angles
from video.decoding import VideoInfo
from video.layout import MONO, Layout
from video.pictures import read_picture
from video.writer import write_video
from video.yuv import FULL, Colour, mono, planes, to_yuv420p
from views.follow import follow_path
from views.frames import FrameWithMap
from views.overlay import colours, resize_map, scaled

PAGE_TEMPLATE = Path(__file__).with_name("viewer.html")
MAP_ROWS = 240  # a multiple of 16, so that no block of H.264 holds parts of both
OFFERED_COLORMAPS = ("turbo", "inferno", "viridis", "cividis", "hot", "bone")  # colour maps
MAX_ROWS = 8192  # rows of the clip; with those of the map, within the encoder's 16384
MAX_BIT_RATE = 3_200_000  # at most, a second: with sound and as base64, a minute is less than 40 MB
CLIP_CHUNK_BYTES = 3 << 20  # bytes of the clip that are put into the page at a time
MEASURED_SIZE = 64, 128  # rows and columns of the maps that are measured
TOP_SHARE = 0.05  # part of the sphere in which attention is counted


def write_viewer(
    path: Path,
    source: VideoInfo,
    frames: Iterable[FrameWithMap],
    title: str,
    width: int = 1920,
    colormap: str = "turbo",
    alpha: float = 0.5,
    crf: float = 20,
    preset: str = "fast",
) -> None:
    """Write the page of a video or picture, in constant memory but for a few bytes a frame.

    frames: those of `source`. title: name of the clip. width: columns to which the clip is reduced.
    colormap: a key of COLORMAPS and alpha: opacity where a map is 255, both changed in the page.
    crf, preset: see write_video. Raises OSError where the file can't be written.
    """
    still, maps, seconds, shares = source.pictures == (source.path,), [], [], []
    tables = {
        name: base64.b64encode(colours(name).tobytes()).decode()  # 256 times RGB
        for name in dict.fromkeys([colormap, *OFFERED_COLORMAPS])
    }
    facts = {"mapRows": MAP_ROWS, "seconds": seconds, "shares": shares, "colormap": colormap}
    facts |= {"alpha": alpha, "colormaps": tables, "still": still}

    def packed() -> Iterator[tuple[np.ndarray, av.VideoFrame]]:
        for frame in frames:
            saliency = frame.saliency()
            maps.append(frame.path)
            seconds.append(round(frame.image.time, 4))
            small = cv2.resize(saliency, MEASURED_SIZE[::-1], interpolation=cv2.INTER_AREA)
            shares.append(round(concentration(small), 4))
            saliency = scaled(saliency, frame.factor)
            yield pack(frame.image, saliency, width, source.layout), frame.image

    clip = path.with_name(f".{path.name}.clip")  # after SIGKILL, the next run replaces it
    try:
        if still:
            ((picture, _),) = packed()
            image = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            image.to_image(src_colorspace="ITU709").save(clip, "JPEG", quality=92)
        else:
            limits = {"maxrate": str(MAX_BIT_RATE), "bufsize": str(2 * MAX_BIT_RATE)}
            keyframes = str(max(1, round(source.fps)))  # one a second: jumps are quick
            crf = max(1, crf)  # browsers do not play lossless H.264
            write_video(clip, source, packed(), crf, preset, browser=True, g=keyframes, **limits)
            with av.open(clip) as written:
                facts["sound"] = bool(written.streams.audio)
        directions = follow_path((read_picture(path, "L") for path in maps), seconds)
        facts["path"] = np.round(directions, 2).tolist()
        _write_page(path, title, facts, clip)
    finally:
        clip.unlink(missing_ok=True)


def _write_page(path: Path, title: str, facts: dict, clip: Path) -> None:
    """Write viewer.html with its title, its facts and, a part at a time, its clip."""
    before, _, after = PAGE_TEMPLATE.read_text(encoding="utf-8").partition("{{clip}}\n")
    texts = {"title": html.escape(title), "facts": json.dumps(facts).replace("<", "\\u003c")}
    before = re.sub(r"{{(\w+)}}", lambda match: texts[match[1]], before)
    # A name that is not UTF-8 has question marks.
    with open(path, "w", encoding="utf-8", errors="replace") as page, open(clip, "rb") as content:
        page.write(before)
        while part := content.read(CLIP_CHUNK_BYTES):
            text = base64.b64encode(part).decode()
            page.write(f'<script type="text/plain" class="clip">{text}</script>\n')
        page.write(after)


def pack(
    frame: av.VideoFrame, saliency: np.ndarray, width: int, layout: Layout = MONO
) -> np.ndarray:
    """Return the map above the picture: (3·(MAP_ROWS + H)/2, W) uint8 yuv420p.

    saliency: (h, w) uint8. width: the largest W, in pixels; H keeps the shape of the panorama,
    which is the left eye's whole sphere where the frame has another layout. A map of 0 is black
    and 255 is white in the range of brightness that the frame has.
    """
    picture = mono(to_yuv420p(frame), layout)
    rows, columns = len(picture) * 2 // 3, picture.shape[1]
    width = min(width, columns) // 2 * 2
    height = min(max(2, 2 * round(rows * width / columns / 2)), MAX_ROWS)
    packed = np.full((3 * (MAP_ROWS + height) // 2, width), 128, np.uint8)
    for source, target in zip(planes(picture), planes(packed), strict=True):
        below = target[MAP_ROWS * len(target) // (MAP_ROWS + height) :]
        below[:] = cv2.resize(source, below.shape[::-1], interpolation=cv2.INTER_AREA)
    grey = resize_map(saliency, MAP_ROWS, width)
    limited = np.rint(16 + np.arange(256) * (219 / 255)).astype(np.uint8)
    packed[:MAP_ROWS] = grey if Colour.of(frame).range == FULL else limited[grey]
    return packed


def concentration(saliency: np.ndarray) -> float:
    """Return the share of attention in the most salient 5 % of the sphere, by solid angle.

    saliency: (H, W), any scale. 0.05 for a uniform map, 1 where nothing else is salient, 0 for a
    map without any.
    """
    values = saliency.astype(float).ravel()
    area = solid_angles(*saliency.shape).numpy().repeat(saliency.shape[1])
    order = np.argsort(-values)
    attention, covered = np.cumsum(values[order] * area[order]), np.cumsum(area[order])
    top = np.interp(TOP_SHARE * 4 * np.pi, [0, *covered], [0, *attention])
    return float(top / attention[-1]) if attention[-1] else 0.0
