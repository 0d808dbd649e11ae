"""Marks MP4 files as 360° panoramas: Spherical Video V1 and V2, mono and equirectangular.

V1 is a `uuid` box of XML at the end of the video track. V2 are the boxes `st3d` and `sv3d`
in the visual sample entry. Both say the same; some players read only one of them.
https://github.com/google/spatial-media/tree/master/docs
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cli import InputError, atomic

SOFTWARE = "360-video-saliency"
V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
V1_XML = f"""<?xml version="1.0"?>
<rdf:SphericalVideo
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">
<GSpherical:Spherical>true</GSpherical:Spherical>
<GSpherical:Stitched>true</GSpherical:Stitched>
<GSpherical:StitchingSoftware>{SOFTWARE}</GSpherical:StitchingSoftware>
<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>
</rdf:SphericalVideo>
"""
SAMPLE_TABLE = (b"mdia", b"minf", b"stbl")  # the way from a track to its tables
ENTRY_FIELDS = 78  # bytes of a visual sample entry before its own boxes
OPTIONAL = {b"clap", b"pasp", b"colr", b"btrt", b"fiel", b"gama"}  # must follow st3d and sv3d
COPY = 1 << 20  # bytes held in memory of the pictures and sounds


class Box(NamedTuple):
    kind: bytes  # four letters; empty for bytes that are no box
    payload: bytes


class Place(NamedTuple):
    """A box of the file, by its bytes' positions."""

    kind: bytes
    start: int
    payload: int
    end: int


def write_spherical(path: str | Path) -> None:
    """Add both kinds of metadata to the video tracks of an MP4 file; what it had is replaced.

    Pictures and sounds are copied as they are, in constant memory, and the file is replaced
    at once at the end. Raises InputError for a file that is no complete, unfragmented MP4.
    """
    path = Path(path)
    with open(path, "rb") as source, atomic(path) as temporary, open(temporary, "wb") as target:
        places = list(_top_level(source, path))
        moov = _movie(places, path)
        if any(place.kind == b"moof" for place in places):
            raise InputError(f"{path}: a fragmented MP4 file; write it again in one piece")
        for place in places:
            source.seek(place.start)
            if place is not moov:
                _copy(source, target, place.end - place.start)
                continue
            source.seek(moov.payload)
            target.write(_grown_movie(source.read(moov.end - moov.payload), moov, path))


def read_spherical(path: str | Path) -> dict:
    """What the first video track says: {"v1": {name: text} or None, "v2": {...} or None}.

    v2 has stereo_mode (0 is mono), source, pose (yaw, pitch, roll in degrees) and bounds (top,
    bottom, left, right: cropped fractions of the panorama).
    """
    path = Path(path)
    with open(path, "rb") as file:
        moov = _movie(list(_top_level(file, path)), path)
        file.seek(moov.payload)
        track = next(filter(_is_video, _find(file.read(moov.end - moov.payload), b"trak")), b"")
    xml = [uuid[16:] for uuid in _find(track, b"uuid") if uuid.startswith(V1_UUID)]
    fields = [re.findall(r"<GSpherical:(\w+)>\s*(.*?)\s*</", text.decode()) for text in xml]
    stsd = next(_find(track, *SAMPLE_TABLE, b"stsd"), b"")
    boxes = b"".join(entry.payload[ENTRY_FIELDS:] for entry in _split(stsd[8:]))
    equirectangular = next(_find(boxes, b"sv3d", b"proj", b"equi"), None)
    v2 = equirectangular and {
        "stereo_mode": next(_find(boxes, b"st3d"), bytes(5))[4],
        "source": next(_find(boxes, b"sv3d", b"svhd"))[4:].rstrip(b"\0").decode(),
        "pose": _fixed(next(_find(boxes, b"sv3d", b"proj", b"prhd")), "iii", 16),
        "bounds": _fixed(equirectangular, "IIII", 32),
    }
    return {"v1": dict(fields[0]) if fields else None, "v2": v2}


def _fixed(full_box: bytes, kinds: str, fraction_bits: int) -> tuple[float, ...]:
    return tuple(n / 2**fraction_bits for n in struct.unpack_from(f">{kinds}", full_box, 4))


def _top_level(file: BinaryIO, path: Path) -> Iterator[Place]:
    """The boxes of a file, from their headers alone."""
    length, start = path.stat().st_size, 0
    while start < length:
        file.seek(start)
        header = file.read(16)
        size, kind = struct.unpack(">I4s", header[:8]) if len(header) >= 8 else (-1, b"")
        payload = start + 8
        if size == 1 and len(header) == 16:  # a size of 64 bits follows
            size, payload = struct.unpack(">Q", header[8:])[0], start + 16
        end = length if size == 0 else start + size  # 0: up to the end of the file
        if not payload <= end <= length:
            raise InputError(f"{path}: truncated or no MP4 file (at byte {start}); write it again")
        yield Place(kind, start, payload, end)
        start = end


def _movie(places: list[Place], path: Path) -> Place:
    movies = [place for place in places if place.kind == b"moov"]
    if len(movies) != 1:
        raise InputError(f"{path}: no complete MP4 file; write it again")
    return movies[0]


def _grown_movie(payload: bytes, moov: Place, path: Path) -> bytes:
    """The `moov` box with the metadata, and with chunk offsets that follow its growth."""
    if not any(map(_is_video, _find(payload, b"trak"))):
        raise InputError(f"{path}: has no video track to mark as 360°")
    growth = 0
    while True:  # again where offsets pass 4 GiB and their table grows as well
        boxes = [_marked_track(box, moov.start, growth) for box in _split(payload)]
        movie = _join([Box(b"moov", _join(boxes))])
        if len(movie) - (moov.end - moov.start) == growth:
            return movie
        growth = len(movie) - (moov.end - moov.start)


def _marked_track(box: Box, moov_start: int, growth: int) -> Box:
    if box.kind != b"trak":
        return box
    track = _edit(box.payload, SAMPLE_TABLE, lambda table: _moved(table, moov_start, growth))
    if _is_video(track):
        track = _edit(track, (*SAMPLE_TABLE, b"stsd"), _marked_descriptions)
        others = [b for b in _split(track) if b.kind != b"uuid" or b.payload[:16] != V1_UUID]
        track = _join([*others, Box(b"uuid", V1_UUID + V1_XML.encode())])
    return Box(b"trak", track)


def _marked_descriptions(stsd: bytes) -> bytes:
    full_box = bytes(4)
    stereo = Box(b"st3d", full_box + b"\0")  # 0: mono
    header = Box(b"svhd", full_box + SOFTWARE.encode() + b"\0")
    pose = Box(b"prhd", full_box + bytes(3 * 4))  # yaw, pitch, roll
    bounds = Box(b"equi", full_box + bytes(4 * 4))  # nothing is cropped
    spherical = Box(b"sv3d", _join([header, Box(b"proj", _join([pose, bounds]))]))
    entries = []
    for kind, payload in _split(stsd[8:]):
        fields, boxes = payload[:ENTRY_FIELDS], _split(payload[ENTRY_FIELDS:])
        boxes = [box for box in boxes if box.kind not in (b"st3d", b"sv3d")]
        place = next((i for i, box in enumerate(boxes) if box.kind in OPTIONAL | {b""}), len(boxes))
        boxes[place:place] = [stereo, spherical]
        entries.append(Box(kind, fields + _join(boxes)))
    return stsd[:8] + _join(entries)


def _moved(table: bytes, moov_start: int, growth: int) -> bytes:
    """A sample table whose chunks behind the start of `moov` lie `growth` bytes further."""
    boxes = _split(table)
    for i, (kind, payload) in enumerate(boxes):
        if kind not in (b"stco", b"co64"):
            continue
        count = struct.unpack_from(">I", payload, 4)[0]
        width = "I" if kind == b"stco" else "Q"
        offsets = struct.unpack_from(f">{count}{width}", payload, 8)
        offsets = [offset + growth * (offset >= moov_start) for offset in offsets]
        if kind == b"co64" or max(offsets, default=0) >= 2**32:
            kind, width = b"co64", "Q"
        boxes[i] = Box(kind, payload[:8] + struct.pack(f">{count}{width}", *offsets))
    return _join(boxes)


def _split(content: bytes) -> list[Box]:
    """The boxes in a run of bytes; what follows them comes last, as a Box without a kind."""
    boxes, start = [], 0
    while start + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, start)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", content, start + 8)[0], 16
        end = len(content) if size == 0 else start + size
        if not start + header <= end <= len(content):
            break
        boxes.append(Box(kind, content[start + header : end]))
        start = end
    return [*boxes, Box(b"", content[start:])] if start < len(content) else boxes


def _join(boxes: list[Box]) -> bytes:
    return b"".join(
        struct.pack(">I4s", len(payload) + 8, kind) + payload if kind else payload
        for kind, payload in boxes
    )


def _find(content: bytes, *path: bytes) -> Iterator[bytes]:
    """The payloads of all boxes at a path."""
    for box in _split(content):
        if box.kind == path[0]:
            yield from _find(box.payload, *path[1:]) if path[1:] else [box.payload]


def _edit(content: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """The same boxes, with the payloads at a path changed."""
    if not path:
        return change(content)
    return _join(
        [
            Box(box.kind, _edit(box.payload, path[1:], change)) if box.kind == path[0] else box
            for box in _split(content)
        ]
    )


def _is_video(track: bytes) -> bool:
    return any(handler[8:12] == b"vide" for handler in _find(track, b"mdia", b"hdlr"))


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    while length > 0:
        piece = source.read(min(COPY, length))
        if not piece:
            raise OSError("the file became shorter while it was copied")
        length -= target.write(piece)
