"""Marks MP4 files and pictures as equirectangular panoramas, and writes their layout.

Pictures have XMP in Google's GPano schema,
https://developers.google.com/streetview/spherical-metadata. Videos have Spherical Video V1 and V2:
V1 is a `uuid` box with XML at the end of the video track; V2 are the boxes `st3d` and `sv3d` in
the visual sample entry. Both state the same, but some players read only one of them. What V1 means
by a cropped panorama is not clear from its specification, so V2 alone states one.
https://github.com/google/spatial-media/tree/master/docs
"""

import io
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from common.files import atomic
from video.layout import MONO, STEREO, Layout

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
{{stereo}}</rdf:SphericalVideo>
"""
V1_STEREO = "<GSpherical:StereoMode>{}</GSpherical:StereoMode>\n"
GPANO = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"{}/>
</rdf:RDF>
</x:xmpmeta>"""
POSE = ("PoseHeadingDegrees", "PosePitchDegrees", "PoseRollDegrees")
# Boxes that hold other boxes, with the size of their own fields before these.
CONTAINERS = dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"sv3d", b"proj"), 0)
CONTAINERS[b"stsd"] = 8
VISUAL_ENTRY = 78
ANY = b"any kind"
SAMPLE_TABLE = (b"mdia", b"minf", b"stbl")  # path from a track
SAMPLE_ENTRIES = (*SAMPLE_TABLE, b"stsd", ANY)
OFFSETS = {b"stco": "I", b"co64": "Q"}  # tables of the chunks' positions in the file
OPTIONAL = {b"clap", b"pasp", b"colr", b"btrt", b"fiel", b"gama", b""}  # follow sv3d
LARGEST_INDEX = 1 << 28  # bytes: that of weeks of video


@dataclass
class Box:
    """A box of an MP4 file: its own bytes, then the boxes in it."""

    kind: bytes  # four letters; none for bytes that are no box
    fields: bytes = b""
    boxes: list["Box"] = field(default_factory=list)

    @classmethod
    def parse(cls, kind: bytes, content: bytes, own: int | None = None) -> "Box":
        """own: size of the box' own fields; given by its kind if None."""
        own = CONTAINERS.get(kind, len(content)) if own is None else own
        inner = content[own:]
        boxes = [cls.parse(p.kind, inner[p.content : p.end]) for p in places(io.BytesIO(inner))]
        return cls(kind, content[:own], boxes)

    def __bytes__(self) -> bytes:
        content = self.fields + b"".join(map(bytes, self.boxes))
        return struct.pack(">I4s", len(content) + 8, self.kind) + content if self.kind else content

    def find(self, kind: bytes, *path: bytes) -> Iterator["Box"]:
        """Yield all boxes at a path of kinds below this one."""
        for box in self.boxes:
            if box.kind == kind or (kind == ANY and box.kind):
                yield from box.find(*path) if path else [box]


class Place(NamedTuple):
    """Where a box is in a file: positions of its first byte, its content and its end."""

    kind: bytes
    start: int
    content: int
    end: int


def places(file: BinaryIO) -> Iterator[Place]:
    """Yield the boxes of a file from their headers; bytes that are no box come last, kindless."""
    length, start = file.seek(0, os.SEEK_END), 0
    while start < length:
        file.seek(start)
        size, kind, size64 = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\xff"))
        content = start + (16 if size == 1 else 8)
        # Size 1: 64 bits with the size follow. Size 0: the box reaches to the end of the file.
        end = {0: length, 1: start + size64}.get(size, start + size)
        if not content <= end <= length:
            kind, content, end = b"", start, length
        yield Place(kind, start, content, end)
        start = end


def panorama_xmp(height: int, width: int, layout: Layout = MONO) -> str:
    """Return the XMP of a picture of this size. It has no word for stereo."""
    west, east, south, north = layout.coverage
    full_height, full_width = layout.panorama_size(height, width)
    left = round((west + 180) * width / (east - west))
    top = round((90 - north) * height / (north - south))
    fields = {
        "ProjectionType": "equirectangular",
        "UsePanoramaViewer": "True",
        "StitchingSoftware": SOFTWARE,
        "FullPanoWidthPixels": full_width,
        "FullPanoHeightPixels": full_height,
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
        "CroppedAreaLeftPixels": min(left, full_width - width),
        "CroppedAreaTopPixels": min(top, full_height - height),
        **{name: f"{angle:g}" for name, angle in zip(POSE, layout.pose) if angle},
    }
    return GPANO.format("".join(f' GPano:{name}="{value}"' for name, value in fields.items()))


def write_spherical(path: str | Path, layout: Layout = MONO) -> None:
    """Add metadata of both kinds to the video tracks of an MP4 file that video.writer has written.

    Pictures and sound are copied as they are, in constant memory.
    """
    with open(path, "rb") as source, atomic(path) as temporary, open(temporary, "wb") as target:
        place, movie, tracks = read_movie(source)
        for track in tracks:
            _mark(track, layout)
        _move_chunks(movie, place)
        source.seek(0)
        target.write(source.read(place.start))  # a header: the index comes before the pictures
        target.write(bytes(movie))
        source.seek(place.end)
        shutil.copyfileobj(source, target)


def read_movie(file: BinaryIO) -> tuple[Place, Box, list[Box]]:
    """Return place and content of the `moov` box, the index of an MP4 file, and its video tracks.

    Raises ValueError for a file without one.
    """
    place = next((place for place in places(file) if place.kind == b"moov"), None)
    if place is None or place.end - place.content > LARGEST_INDEX:
        raise ValueError("it has no index of an MP4 file")
    file.seek(place.content)
    movie, tracks = Box.parse(b"moov", file.read(place.end - place.content)), []
    for track in movie.find(b"trak"):
        if any(handler.fields[8:12] == b"vide" for handler in track.find(b"mdia", b"hdlr")):
            tracks.append(track)
            for entry in track.find(*SAMPLE_ENTRIES):
                entry.boxes = Box.parse(entry.kind, entry.fields, VISUAL_ENTRY).boxes
                entry.fields = entry.fields[:VISUAL_ENTRY]
    return place, movie, tracks


def read_spherical(path: Path) -> tuple[int, bytes, str]:
    """Return (stereo mode, kind of projection, XML) of the first video track of an MP4 file.

    The first two are of V2: 0 and nothing where it has none; the last is of V1.
    Raises an error of any kind for an index that can't be read.
    """
    with open(path, "rb") as file:
        track = [*read_movie(file)[2], Box(b"trak")][0]
    mode, projection, xml = 0, b"", ""
    for box in track.find(*SAMPLE_ENTRIES, b"st3d"):
        mode = box.fields[4]
    for box in track.find(*SAMPLE_ENTRIES, b"sv3d", b"proj", ANY):
        projection = projection if box.kind == b"prhd" else box.kind
    for box in track.find(b"uuid"):
        if box.fields.startswith(V1_UUID):
            xml = box.fields[16:].decode("utf-8", "replace")
    return mode, projection, xml


def _mark(track: Box, layout: Layout) -> None:
    """Put both kinds of metadata into a video track."""
    version = bytes(4)
    west, east, south, north = layout.coverage
    cropped = (90 - north) / 180, (south + 90) / 180, (west + 180) / 360, (180 - east) / 360
    stereo = Box(b"st3d", version + bytes([STEREO.index(layout.stereo)]))
    header = Box(b"svhd", version + SOFTWARE.encode() + b"\0")
    pose = Box(b"prhd", version + struct.pack(">3i", *(round(a * 2**16) for a in layout.pose)))
    bounds = Box(b"equi", version + struct.pack(">4I", *(round(c * 2**32) for c in cropped)))
    spherical = Box(b"sv3d", b"", [header, Box(b"proj", b"", [pose, bounds])])
    for entry in track.find(*SAMPLE_ENTRIES):
        entry.boxes += [stereo, spherical]
        entry.boxes.sort(key=lambda box: box.kind in OPTIONAL)
    if layout.whole:
        name = V1_STEREO.format(layout.stereo) if layout.stereo != "none" else ""
        track.boxes.append(Box(b"uuid", V1_UUID + V1_XML.format(stereo=name).encode()))


def _move_chunks(movie: Box, place: Place) -> None:
    """Correct the positions of chunks that lie behind a `moov` box which has grown."""
    growth = len(bytes(movie)) - (place.end - place.start)
    for table in movie.find(b"trak", *SAMPLE_TABLE, ANY):
        if table.kind in OFFSETS:
            count = struct.unpack_from(">I", table.fields, 4)[0]
            form = f">{count}{OFFSETS[table.kind]}"
            offsets = struct.unpack_from(form, table.fields, 8)
            moved = [offset + growth * (offset >= place.start) for offset in offsets]
            table.fields = table.fields[:8] + struct.pack(form, *moved)
