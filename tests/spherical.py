"""Reads the 360° metadata of an MP4 file, which video/spherical_metadata.py writes."""

import re
import struct
from pathlib import Path

from common.files import reading
from video.spherical_metadata import V1_UUID, read_index


def read_spherical(path: str | Path) -> dict:
    """Return the metadata of a file with one video track: {"v1": … or None, "v2": … or None}.

    v1 is a dictionary of the names and texts in its XML. v2 has stereo_mode (0 is mono), source,
    pose (yaw, pitch, roll in degrees) and bounds (top, bottom, left, right: cropped fractions of
    the panorama). Raises InputError for a file without an index.
    """
    with reading(path, "its index can't be read ({})"), open(path, "rb") as file:
        _, index = read_index(file)

    def content(kind: bytes) -> bytes:
        """Return what the only box of a kind holds; zeros where there is none."""
        if (place := index.find(kind)) < 0:
            return bytes(20)
        return index[place + 4 : place - 4 + struct.unpack_from(">I", index, place - 4)[0]]

    v1 = v2 = None
    if (xml := content(b"uuid")).startswith(V1_UUID):
        v1 = dict(re.findall(r"<GSpherical:(\w+)>\s*(.*?)\s*</", xml[16:].decode()))
    if b"sv3d" in index:
        v2 = {
            "stereo_mode": content(b"st3d")[4],
            "source": content(b"svhd")[4:].rstrip(b"\0").decode(),
            "pose": tuple(n / 2**16 for n in struct.unpack_from(">3i", content(b"prhd"), 4)),
            "bounds": tuple(n / 2**32 for n in struct.unpack_from(">4I", content(b"equi"), 4)),
        }
    return {"v1": v1, "v2": v2}
