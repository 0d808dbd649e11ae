"""Turns the frames of a video as its display matrix says, as every player does.

Phones store frames as the sensor reads them, and beside them how they are to be shown.
"""

import struct
from pathlib import Path

import av

from common.errors import InputError

# FFmpeg's filters by a, b, c and d of the display matrix, divided by the largest of them:
# pixel (x, y) is shown at (a·x + c·y, b·x + d·y), y downwards.
TURNS = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, -1): (("hflip", ""), ("vflip", "")),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, -1, 1, 0): (("transpose", "cclock"),),
}
Turn = tuple[tuple[str, str], ...]  # filters, each with its option


def find_turn(path: Path, frame: av.VideoFrame) -> Turn:
    """Return the filters of TURNS that show a video as it declares.

    Raises InputError for any other angle, for mirrored frames, and for a panorama turned on end.
    """
    entry = frame.side_data.get("DISPLAYMATRIX")
    if entry is None:
        return ()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(entry))
    size = max(map(abs, (a, b, c, d))) or 1
    turn = TURNS.get(tuple(round(n / size) for n in (a, b, c, d)))
    if a * d < b * c:
        refused = "a mirrored picture"
    elif turn is None:
        refused = "a turn by no multiple of 90°"
    elif len(turn) == 1 and frame.width > frame.height:
        refused = "a turn which stands it on its end"
    else:
        return turn
    command = f"ffmpeg -display_rotation 0 -i {path.name} -c copy OUT"
    raise InputError(f"{path}: declares {refused}; if it is upright as stored: {command}")


def turned(frame: av.VideoFrame, turn: Turn) -> av.VideoFrame:
    """Return a frame turned by filters of TURNS."""
    if not turn:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    filters = [graph.add(name, option) for name, option in turn]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()
