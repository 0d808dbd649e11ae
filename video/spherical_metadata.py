"""Metadata that mark MP4 files and pictures as equirectangular panoramas of a layout.

Pictures have XMP in Google's GPano schema,
https://developers.google.com/streetview/spherical-metadata. Videos have Spherical Video V1 and V2,
since some players read only one of them: V1 is a `uuid` box with XML at the end of the video track,
V2 are the boxes `st3d` and `sv3d` in the visual sample entry. The specification of V1 does not
define cropped panoramas clearly, so only V2 states them.
https://github.com/google/spatial-media/tree/master/docs
"""

import os
import shutil
import struct
from pathlib import Path
from typing import BinaryIO

from common.files import atomic, reading
from video.layout import MONO, STEREO, Layout

SOFTWARE = "360-video-saliency"
V1_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
V1_XML = """<?xml version="1.0"?>
<rdf:SphericalVideo
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">
{}</rdf:SphericalVideo>
"""
V1_FIELD = "<GSpherical:{0}>{1}</GSpherical:{0}>\n"
GPANO = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"{}/>
</rdf:RDF>
</x:xmpmeta>"""
POSE = ("PoseHeadingDegrees", "PosePitchDegrees", "PoseRollDegrees")
VISUAL_ENTRY = 78  # bytes of a sample entry before its boxes, the first of which is avcC
# Boxes on the path to the video track's description, with the bytes before their inner boxes.
CONTAINERS = dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl"), 0)
CONTAINERS |= {b"stsd": 8, b"avc1": VISUAL_ENTRY}
NESTED = {*CONTAINERS, b"moof", b"traf", b"mvex", b"edts", b"dinf", b"udta"}
OFFSET_TABLES = {b"stco": "I", b"co64": "Q"}  # tables of the chunks' positions in the file
MAX_INDEX_BYTES = 1 << 28  # enough for weeks of video
MAX_BOXES = 500_000  # in a file, enough for half a day in fragments of a second


def panorama_xmp(height: int, width: int, layout: Layout = MONO) -> str:
    """Return the XMP of a picture of this size. It can't express stereo."""
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


def read_index(file: BinaryIO) -> tuple[int, bytes]:
    """Return position and bytes of the `moov` box, the index of an MP4 file; 0 and b"" without one.

    Raises ValueError if FFmpeg would take minutes, for a too large index or too many boxes.
    """
    count, index, ranges = 0, (0, b""), [(0, file.seek(0, os.SEEK_END))]
    while ranges:
        start, end = ranges.pop()
        while start + 8 <= end:
            file.seek(start)
            size, kind, size64 = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            size = size64 if size == 1 else size or end - start
            count += 1
            if count > MAX_BOXES or (kind == b"moov" and size > MAX_INDEX_BYTES):
                raise ValueError("too many boxes")
            if size < 8:
                break
            if kind == b"moov" and not index[1]:
                file.seek(start)
                index = start, file.read(size)
            if kind in NESTED:
                ranges.append((start + 8 + CONTAINERS.get(kind, 0), min(end, start + size)))
            start += size
    return index


def write_spherical(path: str | Path, layout: Layout = MONO) -> None:
    """Add metadata of both kinds to the H.264 track of an MP4 file written by video.writer.

    Pictures and sound are copied unchanged. Raises InputError for any other file.
    """
    with open(path, "rb") as source:
        with reading(path, "not an MP4 file that can be marked as 360° ({}); make it again"):
            start, index = read_index(source)
            marked = _marked(index, start, *_marks(layout))
            if len(marked) == len(index):
                raise ValueError("no H.264 track")
        with atomic(path) as temporary, open(temporary, "wb") as target:
            source.seek(0)
            target.write(source.read(start))
            target.write(marked)
            source.seek(start + len(index))
            shutil.copyfileobj(source, target)


def _marked(boxes: bytes, index: int, v1: bytes, v2: bytes) -> bytes:
    """Return boxes with metadata added to the video track. index: position of the index."""
    out, start = b"", 0
    while start < len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, start)
        if not 8 <= size <= len(boxes) - start:
            raise ValueError(f"a box of {size} bytes")
        content = boxes[start + 8 : start + size]
        if kind in CONTAINERS:
            own = CONTAINERS[kind]
            content = content[:own] + _marked(content[own:], index, v1, v2)
        if kind == b"trak" and b"avc1" in content:
            content += v1
        elif kind == b"avc1":  # before the optional boxes
            end = VISUAL_ENTRY + struct.unpack_from(">I", content, VISUAL_ENTRY)[0]
            content = content[:end] + v2 + content[end:]
        elif kind in OFFSET_TABLES:  # a longer index moves pictures and sound
            form = f">{struct.unpack_from('>I', content, 4)[0]}{OFFSET_TABLES[kind]}"
            offsets = struct.unpack_from(form, content, 8)
            moved = (offset + len(v1 + v2) * (offset > index) for offset in offsets)
            content = content[:8] + struct.pack(form, *moved)
        out += _box(kind, content)
        start += size
    return out


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def _marks(layout: Layout) -> tuple[bytes, bytes]:
    """Return the boxes of V1 (none for a partial sphere) and of V2."""
    version = bytes(4)
    west, east, south, north = layout.coverage
    cropped = (90 - north) / 180, (south + 90) / 180, (west + 180) / 360, (180 - east) / 360
    pose = _box(b"prhd", version, struct.pack(">3i", *(round(a * 2**16) for a in layout.pose)))
    bounds = _box(b"equi", version, struct.pack(">4I", *(round(c * 2**32) for c in cropped)))
    header = _box(b"svhd", version, SOFTWARE.encode(), b"\0")
    stereo = _box(b"st3d", version, bytes([STEREO.index(layout.stereo)]))
    v2 = stereo + _box(b"sv3d", header, _box(b"proj", pose, bounds))
    fields = {"Spherical": "true", "Stitched": "true", "StitchingSoftware": SOFTWARE}
    fields["ProjectionType"] = "equirectangular"
    if layout.stereo != "none":
        fields["StereoMode"] = layout.stereo
    text = V1_XML.format("".join(V1_FIELD.format(*field) for field in fields.items()))
    return _box(b"uuid", V1_UUID, text.encode()) if layout.whole else b"", v2
