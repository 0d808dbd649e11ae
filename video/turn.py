"""Applies the display-matrix rotation to the frames of a video.

Phones store frames as the sensor reads them, and beside them how they are to be shown.
"""

import struct
from pathlib import Path

import av

from common.errors import InputError

Turn = tuple[tuple[str, str], ...]  # FFmpeg's filters, each with its option
TURNS: dict[float, Turn] = {  # by the angle counterclockwise in degrees
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


def find_turn(frame: av.VideoFrame, path: Path) -> Turn:
    """Return the filters that show a video as its first frame declares.

    Raises InputError for any other angle, for mirrored frames, and for a panorama turned on end.
    """
    if not (entry := frame.side_data.get("DISPLAYMATRIX")):
        return ()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(entry))
    upended = frame.rotation % 180 and frame.width > frame.height
    if frame.rotation % 360 not in TURNS or upended or a * d < b * c:
        command = f"ffmpeg -display_rotation 0 -i {path.name} -c copy OUT"
        refused = "to be shown mirrored, on its end or at no multiple of 90°"
        raise InputError(f"{path}: declares {refused}; if it is upright as stored: {command}")
    return TURNS[frame.rotation % 360]


def turned(frame: av.VideoFrame, filters: Turn) -> av.VideoFrame:
    """Return a frame after filters of TURNS."""
    if not filters:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(template=frame)
    nodes = [graph.add(name, option) for name, option in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
