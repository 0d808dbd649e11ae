"""Writer of the viewer: one HTML file in which to look around in a 360° video or picture.

The grey map, MAP_ROWS high, is packed above the picture into one video, so that both stay in sync
and the page can blend them in any way. viewer.html is the template.
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
MAP_ROWS = 240  # a multiple of 16, so that no H.264 block contains parts of both
OFFERED_COLORMAPS = ("turbo", "inferno", "viridis", "cividis", "hot", "bone")  # colour maps
MAX_ROWS = 8192  # of the clip; together with the map, within the encoder's 16384
MAX_BIT_RATE = 3_200_000  # limit per second: a minute with sound is less than 40 MB in base64
CLIP_CHUNK_BYTES = 3 << 20  # bytes of the clip that are inserted at a time
MEASURED_SIZE = 64, 128  # rows and columns of maps for the attention curve
TOP_SHARE = 0.05  # part of the sphere for the attention curve


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
    """Write the page of a video or picture, in constant memory except for a few bytes per frame.

    frames: of `source`. title: name of the clip. width: largest width of the clip in pixels.
    colormap: a key of COLORMAPS. alpha: opacity where a map is 255. crf, preset: see write_video.
    """
    still, maps, seconds, shares = source.pictures == (source.path,), [], [], []
    tables = {
        name: base64.b64encode(colours(name).tobytes()).decode()  # 256 RGB values
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

    clip = path.with_name(f".{path.name}.clip")  # left by SIGKILL, the next run replaces it
    try:
        if still:
            ((picture, _),) = packed()
            image = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            image.to_image(src_colorspace="ITU709").save(clip, "JPEG", quality=92)
        else:
            limits = {"maxrate": str(MAX_BIT_RATE), "bufsize": str(2 * MAX_BIT_RATE)}
            keyframes = str(max(1, round(source.fps)))  # one per second, for fast seeking
            crf = max(1, crf)  # browsers can't play lossless H.264
            write_video(clip, source, packed(), crf, preset, browser=True, g=keyframes, **limits)
            with av.open(clip) as written:
                facts["sound"] = bool(written.streams.audio)
        directions = follow_path((read_picture(path, "L") for path in maps), seconds)
        facts["path"] = np.round(directions, 2).tolist()
        _write_page(path, title, facts, clip)
    finally:
        clip.unlink(missing_ok=True)


def _write_page(path: Path, title: str, facts: dict, clip: Path) -> None:
    """Write viewer.html with its title, facts and, in chunks, its clip."""
    before, _, after = PAGE_TEMPLATE.read_text(encoding="utf-8").partition("{{clip}}\n")
    texts = {"title": html.escape(title), "facts": json.dumps(facts).replace("<", "\\u003c")}
    before = re.sub(r"{{(\w+)}}", lambda match: texts[match[1]], before)
    # Question marks replace characters that are not UTF-8.
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

    saliency: (h, w) uint8. width: the largest W in pixels; H keeps the aspect ratio of the left
    eye's panorama. Map values of 0 and 255 become black and white in the frame's luma range.
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

    saliency: (H, W), any scale. The share is 0.05 for a uniform map, 0 for an all-zero one.
    """
    values = saliency.astype(float).ravel()
    area = solid_angles(*saliency.shape).numpy().repeat(saliency.shape[1])
    order = np.argsort(-values)
    attention, covered = np.cumsum(values[order] * area[order]), np.cumsum(area[order])
    top = np.interp(TOP_SHARE * 4 * np.pi, [0, *covered], [0, *attention])
    return float(top / attention[-1]) if attention[-1] else 0.0
