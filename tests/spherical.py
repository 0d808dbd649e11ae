"""Reads the 360° metadata of an MP4 file, which video/spherical_metadata.py writes."""

import re
import struct
from pathlib import Path

from common.files import reading
from video.spherical_metadata import SAMPLE_ENTRIES, V1_UUID, Box, read_movie

PROJECTION = (b"sv3d", b"proj")  # path from a sample entry


def read_spherical(path: str | Path) -> dict:
    """Return the metadata of the first video track: {"v1": … or None, "v2": … or None}.

    v1 is a dictionary of the names and texts in its XML. v2 has stereo_mode (0 is mono), source,
    pose (yaw, pitch, roll in degrees) and bounds (top, bottom, left, right: cropped fractions of
    the panorama). Raises InputError for a file without an index.
    """
    with reading(path, "its index can't be read ({})"), open(path, "rb") as file:
        track = read_movie(file)[2][0]
    v1 = v2 = None
    for box in track.find(b"uuid"):
        if box.fields.startswith(V1_UUID):
            v1 = dict(re.findall(r"<GSpherical:(\w+)>\s*(.*?)\s*</", box.fields[16:].decode()))
    for entry in track.find(*SAMPLE_ENTRIES):
        paths = [(b"st3d",), (b"sv3d", b"svhd"), (*PROJECTION, b"prhd"), (*PROJECTION, b"equi")]
        if not any(entry.find(*PROJECTION)):
            continue
        zeros = Box(b"", bytes(20))
        stereo, header, pose, bounds = (next(entry.find(*p), zeros).fields for p in paths)
        v2 = {
            "stereo_mode": stereo[4],
            "source": header[4:].rstrip(b"\0").decode(),
            "pose": tuple(n / 2**16 for n in struct.unpack_from(">3i", pose, 4)),
            "bounds": tuple(n / 2**32 for n in struct.unpack_from(">4I", bounds, 4)),
        }
    return {"v1": v1, "v2": v2}
