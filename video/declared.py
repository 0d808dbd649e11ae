"""Metadata about the layout of pictures on the sphere.

Videos: FFmpeg provides most of it with the frames; the rest is read from the boxes of MP4 files.
Pictures: XMP in the GPano schema. For the specifications, see spherical_metadata.py.
"""

import re
import struct
from contextlib import suppress
from dataclasses import dataclass

import av
import numpy as np

from video.layout import SPHERE, STEREO, Coverage, Layout
from video.spherical_metadata import POSE

STEREO3D = {0: "none", 1: "left-right", 2: "top-bottom"}  # AVStereo3DType
TILE, HALF = 2, 3  # of AVSphericalProjection: a part of a panorama, and VR180
VR180 = (-90.0, 90.0, -90.0, 90.0)
PROJECTIONS = {  # other projections, with FFmpeg's filter that converts them
    1: "a cubemap (ffmpeg -i IN -vf v360=c3x2:e OUT)",
    4: "an ordinary flat video (there is no filter for it)",
    5: "a fisheye (ffmpeg -i IN -vf v360=fisheye:e:ih_fov=180:iv_fov=180 OUT)",
    6: "a fisheye of Apple Immersive Video (there is no filter for its lens)",
}
MESH = (
    "a mesh, as VR180 cameras do (of a fisheye: ffmpeg -i IN -vf v360=fisheye:hequirect:"
    "in_stereo=sbs:out_stereo=sbs:ih_fov=180:iv_fov=180 OUT, whose stereo is left-right and "
    "coverage -90 90 -90 90)"
)
CYLINDER = "to be {} (of a cylinder: ffmpeg -i IN -vf v360=cylindrical:e OUT)"
FIELD = re.compile(r"(?<!/)(?:GPano|GSpherical):(\w+)\s*(?:=\s*[\"']|>)\s*([^\"'<]*)")
# Not provided by FFmpeg: boxes of V2.
OTHER_STEREO = re.compile(rb"st3d\0{4}[^\0-\2]")
MESH_BOX = re.compile(rb"prhd.{20}mshp", re.DOTALL)
MAX_XMP = 1 << 20  # largest number of characters of XMP or Spherical Video V1
SIZES = "CroppedAreaImageWidth", "CroppedAreaImageHeight", "FullPanoWidth", "FullPanoHeight"
STRETCHED_NOTE = "taken as a stretched panorama"  # in the note on a doubtful shape
TOLERANCE = 0.05  # relative difference of aspect ratios that count as equal


@dataclass
class Declared:
    """The metadata of a file; default values if it has none."""

    size: tuple[int, int]  # width and height of a picture
    stereo: str | None = "none"  # one of STEREO; None: another arrangement
    projection: str = ""  # description, unless it is equirectangular
    coverage: Coverage | None = SPHERE  # None: invalid bounds
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll in degrees

    def problem(self, stereo: str | None, coverage: Coverage | None) -> str:
        """Return why a file is refused, "" if it is not. stereo, coverage: given by the user."""
        if not (stereo or self.stereo):
            what = "declares stereo in another arrangement, such as with the right eye first"
            return f"{what}; put the eyes top-bottom or left-right, or give --stereo"
        if coverage or (self.coverage and not self.projection):
            return ""
        wrong = self.projection or "to be a part of a panorama that its pixels can't be"
        return f"declares {wrong}; convert it first, or give --coverage if it is equirectangular"

    def layout(self, stereo: str | None, coverage: Coverage | None) -> tuple[Layout, list[str]]:
        """Return the layout of a file without `problem`, and notes for the user.

        Raises ValueError as Layout does.
        """
        covered = coverage or self.coverage or SPHERE
        layout = Layout(stereo or self.stereo or "none", covered, self.pose)
        notes, (_, pitch, roll) = [], self.pose
        if not stereo and layout.stereo != "none":
            one = "maps are made from the left eye and painted over both"
            notes.append(f"declares {layout.stereo} stereo: {one}")
        if not coverage and not layout.whole:
            angles = "{:.4g}° to {:.4g}° of longitude, {:.4g}° to {:.4g}° of latitude"
            notes.append(f"declares to cover {angles.format(*layout.coverage)}")
        if max(abs(pitch), abs(roll)) >= 1:
            tilt = f"pitch {pitch:.3g}°, roll {roll:.3g}°"
            notes.append(f"declares a tilt for players to undo ({tilt}); it is not undone here")
        return layout, notes + _shape_notes(*self.size, layout, stereo)


def video_declares(index: bytes, frame: av.VideoFrame) -> Declared:
    """Return the metadata of a video. index: of an MP4 file, else empty; frame: the first one."""
    declared = Declared((frame.width, frame.height))
    if entry := frame.side_data.get("STEREO3D"):
        stereo, inverted = struct.unpack_from("=2i", bytes(entry))
        declared.stereo = None if stereo and inverted & 1 else STEREO3D.get(stereo)
    if entry := frame.side_data.get("SPHERICAL"):
        projection, *pose, west, north, east, south = struct.unpack_from("=4i4I", bytes(entry))
        declared.projection = PROJECTIONS.get(projection, "")
        declared.pose = tuple(angle / 2**16 for angle in pose)
        if projection == TILE:
            west, north, east, south = (side / 2**32 for side in (west, north, east, south))
            declared.coverage = _coverage(west, north, 1 - east, 1 - south)
        if projection == HALF:
            declared.coverage = VR180
    if OTHER_STEREO.search(index):
        declared.stereo = None
    if MESH_BOX.search(index):
        declared.projection = MESH
    if b"GSpherical:" in index and b"sv3d" not in index:  # V2 takes precedence
        start = index.index(b"GSpherical:")
        fields = dict(FIELD.findall(index[start : start + MAX_XMP].decode("utf-8", "replace")))
        if fields.get("StereoMode", "mono").strip() not in ("mono", *STEREO):
            declared.stereo = None
        shape = frame.width / frame.height
        declared.coverage = _cropped(fields, shape, 2 * shape, shape / 2)
    return declared


def picture_declares(xmp: str, width: int, height: int) -> Declared:
    """Return the metadata in the XMP of a picture of this size."""
    fields = dict(FIELD.findall(xmp[:MAX_XMP]))
    declared = Declared((width, height), coverage=_cropped(fields, width / height))
    kind = fields.get("ProjectionType", "equirectangular").strip()
    if kind.lower() != "equirectangular":
        declared.projection = CYLINDER.format(kind[:20])
    with suppress(ValueError):
        heading, pitch, roll = (float(fields.get(name, 0)) for name in POSE)
        if all(abs(angle) <= 360 for angle in (heading, pitch, roll)):  # none is NaN
            declared.pose = heading, pitch, roll
    return declared


def _cropped(fields: dict[str, str], *shapes: float) -> Coverage | None:
    """Return the coverage in fields of GPano or V1, None unless one of the aspect ratios fits."""
    if "CroppedAreaImageWidthPixels" not in fields:
        return SPHERE
    with suppress(KeyError, ValueError, ArithmeticError):
        width, height, full_width, full_height = (float(fields[f"{name}Pixels"]) for name in SIZES)
        west = float(fields.get("CroppedAreaLeftPixels", 0)) / full_width
        north = float(fields.get("CroppedAreaTopPixels", 0)) / full_height
        if any(abs(width / height / shape - 1) <= TOLERANCE for shape in shapes):
            return _coverage(west, north, west + width / full_width, north + height / full_height)
    return None


def _coverage(west: float, north: float, east: float, south: float) -> Coverage | None:
    """Return the coverage between fractions of a panorama, None if invalid."""
    slack = 0.005  # for rounding errors in files
    if not (-slack <= west < east <= 1 + slack and -slack <= north < south <= 1 + slack):
        return None
    angles = 360 * west - 180, 360 * east - 180, 90 - 180 * south, 90 - 180 * north
    limits = np.array((180, 180, 90, 90))
    coverage = np.clip([round(angle, 5) for angle in angles], -limits, limits)
    too_small = (coverage[1::2] - coverage[::2] < 1).any()  # in degrees, see Layout
    return None if too_small else tuple(coverage.tolist())


def _shape_notes(width: int, height: int, layout: Layout, stereo: str | None) -> list[str]:
    """Return notes on a doubtful shape of mono pictures. stereo: value given by the user."""
    west, east, south, north = layout.coverage
    wanted = (east - west) / (north - south)
    often = {1.0: "top-bottom", 4.0: "left-right"}.get(round(2 * width / height / wanted, 1))
    fits = abs(width / height / wanted - 1) <= TOLERANCE
    if layout.stereo != "none" or fits or (often and stereo):
        return []
    shape = "portrait" if width < height else f"not {wanted:.3g}:1"
    hint = " (stereo is often 1:1, a cubemap 3:2 or 4:3)"
    if often:
        hint = f", but may be {often} stereo, or a part of the sphere: give --stereo or --coverage"
    return [f"{width}×{height} pixels are {shape}; {STRETCHED_NOTE}{hint}"]
