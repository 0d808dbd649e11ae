"""The boxes that make an MP4 file a 360° video, read back by other means."""

import struct

import av
import numpy as np
import pytest

from tests.clips import write_video
from tests.spherical import read_spherical
from video.spherical_metadata import write_spherical

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"sv3d", b"proj"}


def clip(path, faststart=True):
    container = {"movflags": "+faststart"} if faststart else {}
    return write_video(path, 10, 32, 64, 25, sound=("aac", 8000, "mono"), container=container)


def walk(content, start=0, end=None, path=()):
    """(path, payload) of all boxes, straight from the layout in the specifications."""
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", content, start + 8)[0], 16
        stop = end if size == 0 else start + size
        assert start + header <= stop <= end, (kind, size)
        inner = start + header
        yield (*path, kind.decode("latin1")), content[inner:stop]
        if kind == b"stsd":
            inner += 8
        if kind == b"avc1":
            inner += 78
        if kind in CONTAINERS | {b"stsd", b"avc1"}:
            yield from walk(content, inner, stop, (*path, kind.decode()))
        start = stop


def find(path, *names):
    """Payloads of the boxes whose path ends with these names."""
    return [p for where, p in walk(path.read_bytes()) if where[-len(names) :] == names]


def packets(path):
    with av.open(str(path)) as file:
        return [(p.stream_index, p.pts, p.dts, bytes(p)) for p in file.demux() if p.size]


def pictures(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray() for frame in file.decode(video=0)]


def top_level(path):
    return [where[0] for where, _ in walk(path.read_bytes()) if len(where) == 1]


@pytest.mark.parametrize("faststart", [True, False])
def test_pictures_and_sounds_are_what_they_were(tmp_path, faststart):
    path = clip(tmp_path / "clip.mp4", faststart)
    order, before, seen = top_level(path), packets(path), pictures(path)
    assert (order.index("moov") < order.index("mdat")) == faststart
    write_spherical(path)
    assert top_level(path) == order
    assert packets(path) == before and {stream for stream, *_ in before} == {0, 1}
    assert all(np.array_equal(a, b) for a, b in zip(pictures(path), seen, strict=True))
    assert list(tmp_path.iterdir()) == [path]


def test_boxes_are_those_of_the_specifications(tmp_path):
    path = clip(tmp_path / "clip.mp4")
    assert read_spherical(path) == {"v1": None, "v2": None}
    write_spherical(path)
    entry = ("stsd", "avc1")
    assert find(path, *entry, "st3d") == [bytes(5)]
    assert find(path, *entry, "sv3d", "svhd") == [bytes(4) + b"360-video-saliency\0"]
    assert find(path, *entry, "sv3d", "proj", "prhd") == [bytes(4 + 12)]
    assert find(path, *entry, "sv3d", "proj", "equi") == [bytes(4 + 16)]
    inside = [where[-1] for where, _ in walk(path.read_bytes()) if where[-2:-1] == ("avc1",)]
    assert inside.index("avcC") < inside.index("st3d") < inside.index("sv3d")
    assert all(inside.index("sv3d") < inside.index(k) for k in ("pasp", "btrt") if k in inside)

    (xml,) = find(path, "trak", "uuid")
    assert xml[:16].hex() == "ffcc8263f8554a938814587a02521fdd"
    assert b"<GSpherical:Spherical>true</GSpherical:Spherical>" in xml
    assert b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>" in xml
    says = read_spherical(path)
    assert says["v1"]["Stitched"] == "true"
    assert says["v1"]["StitchingSoftware"] == says["v2"]["source"] == "360-video-saliency"
    assert says["v2"]["stereo_mode"] == 0 and set(says["v2"]["bounds"]) == {0.0}


@pytest.mark.parametrize("drop", [b"", b"uuid", b"sv3d"])
def test_ffmpeg_sees_an_equirectangular_video(tmp_path, drop):
    """Either kind alone is enough."""
    path = clip(tmp_path / "clip.mp4")
    write_spherical(path)
    if drop:
        path.write_bytes(path.read_bytes().replace(drop, b"free", 1))
    with av.open(str(path)) as file:
        side = bytes(next(file.decode(video=0)).side_data.get("SPHERICAL"))
    assert struct.unpack_from("=i", side) == (0,)  # AV_SPHERICAL_EQUIRECTANGULAR


def box(kind, payload):
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def tiny_movie(table):
    """A `moov` of one video track with nothing but a description and a chunk table."""
    entry = box(b"avc1", bytes(78) + box(b"avcC", bytes(9)))
    stsd = box(b"stsd", struct.pack(">II", 0, 1) + entry)
    hdlr = box(b"hdlr", bytes(8) + b"vide" + bytes(13))
    minf = box(b"minf", box(b"stbl", stsd + table))
    return box(b"moov", box(b"trak", box(b"mdia", hdlr + minf)))


def chunk_table(offset):
    return box(b"stco", struct.pack(">III", 0, 1, offset))


def offsets(path):
    (kind,) = {where[-1] for where, _ in walk(path.read_bytes())} & {"stco", "co64"}
    (payload,) = find(path, kind)
    count = struct.unpack_from(">I", payload, 4)[0]
    return kind, struct.unpack_from(f">{count}{'I' if kind == 'stco' else 'Q'}", payload, 8)


def test_64_bit_chunk_offsets(tmp_path):
    table = box(b"co64", struct.pack(">IIQQ", 0, 2, 8, 2**33))
    path = tmp_path / "clip.mp4"
    path.write_bytes(box(b"mdat", b"picture") + tiny_movie(table))
    old = path.stat().st_size
    write_spherical(path)
    assert offsets(path) == ("co64", (8, 2**33 + path.stat().st_size - old))
