"""Turns the frames of a video as its display matrix says, as every player does.

Phones store frames as the sensor reads them, and beside them how they are to be shown.
"""

import struct
from pathlib import Path

import av

from common.errors import InputError

TURNS = {  # FFmpeg's filters, each with its option, by the angle counterclockwise in degrees
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


def turned(frame: av.VideoFrame, path: Path) -> av.VideoFrame:
    """Return a frame of the video at `path` as it is to be shown.

    Raises InputError for any other angle, for mirrored frames, and for a panorama turned on end.
    """
    entry = frame.side_data.get("DISPLAYMATRIX")
    if entry is None:
        return frame
    a, b, _, c, d = struct.unpack_from("=5i", bytes(entry))
    filters = TURNS.get(frame.rotation % 360)
    upended = frame.rotation % 180 and frame.width > frame.height
    if filters is None or upended or a * d < b * c:
        command = f"ffmpeg -display_rotation 0 -i {path.name} -c copy OUT"
        refused = "to be shown mirrored, on its end or at no multiple of 90°"
        raise InputError(f"{path}: declares {refused}; if it is upright as stored: {command}")
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    nodes = [graph.add(name, option) for name, option in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
