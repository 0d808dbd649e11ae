"""What files declare about how their pictures lie on the sphere, and the layout that follows.

Videos: FFmpeg hands on most of it with their frames; of MP4 files, the boxes are read for what it
passes over. Pictures: XMP in the GPano schema. Sources: see spherical_metadata.py.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from av.sidedata.sidedata import Type

from common.errors import InputError
from video.layout import SPHERE, STEREO, Coverage, Layout
from video.spherical_metadata import read_spherical

STEREO3D = {0: "none", 1: "left-right", 2: "top-bottom"}  # AVStereo3DType
SWAPPED = "with the right eye first"
VR180 = (-90.0, 90.0, -90.0, 90.0)
PROJECTIONS = {  # AVSphericalProjection, and FFmpeg's filter that makes it equirectangular
    1: "a cubemap (ffmpeg -i IN -vf v360=c3x2:e OUT)",
    4: "an ordinary flat video (no filter knows what lies beyond it)",
    5: "a fisheye (ffmpeg -i IN -vf v360=fisheye:e:ih_fov=180:iv_fov=180 OUT)",
}
MESH = (
    "a mesh, as VR180 cameras do (of a fisheye: ffmpeg -i IN -vf v360=fisheye:hequirect:"
    "in_stereo=sbs:out_stereo=sbs:ih_fov=180:iv_fov=180 OUT, whose stereo is left-right and "
    "coverage -90 90 -90 90)"
)
FIELD = re.compile(r"(?<!/)(?:GPano|GSpherical):(\w+)\s*(?:=\s*[\"']|>)\s*([^\"'<]*)")
SIDES = "CroppedAreaLeft", "CroppedAreaTop", "CroppedAreaImageWidth", "CroppedAreaImageHeight"
SHAPE = 0.05  # relative difference of two shapes that are taken for the same


@dataclass
class Declared:
    """What a file says: "none", "" and SPHERE where it says nothing."""

    stereo: str = "none"  # one of STEREO, or what else it is in words
    projection: str = ""  # which one, where it is not equirectangular
    coverage: Coverage | None = SPHERE  # None: bounds that are no part of a panorama
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll in degrees

    def layout(
        self,
        path: Path,
        size: tuple[int, int],
        stereo: str | None = None,
        coverage: Coverage | None = None,
    ) -> tuple[Layout, list[str]]:
        """Return the layout and what a user should know of it.

        size: width and height of a picture. stereo, coverage: what is known better than the file
        knows it; None: as it declares.
        Raises InputError where it declares what is not read, and ValueError as Layout does.
        """
        if stereo is None and self.stereo not in STEREO:
            instead = "bring the eyes into the order top-bottom or left-right, or give the stereo"
            raise InputError(f"{path}: declares stereo {self.stereo}; {instead}")
        if coverage is None and self.projection:
            instead = "convert it first, or give the coverage if it is equirectangular after all"
            raise InputError(f"{path}: declares {self.projection}; {instead}")
        covered = coverage or self.coverage
        if covered is None:
            wrong = "declares to be a part of a panorama that its pixels can't be"
            raise InputError(f"{path}: {wrong}; give the coverage in degrees")
        notes, pose = [], self.pose
        if stereo is None and self.stereo != "none":
            one = "maps are made of the left eye and painted over both"
            notes.append(f"declares {self.stereo} stereo: {one}")
        if coverage is None and covered != SPHERE:
            angles = "{:.4g}° to {:.4g}° of longitude, {:.4g}° to {:.4g}° of latitude"
            notes.append(f"declares to cover {angles.format(*covered)}")
        if max(abs(pose[1]), abs(pose[2])) >= 1:
            tilt = f"pitch {pose[1]:.3g}°, roll {pose[2]:.3g}°"
            notes.append(f"declares a tilt that players undo ({tilt}); it is seen as it is stored")
        layout = Layout(stereo or self.stereo, covered, pose)
        return layout, [*notes, *_shape_notes(*size, layout, stereo)]


def video_declares(file: BinaryIO, kind: str, frame: av.VideoFrame) -> Declared:
    """Return what a video declares. kind: FFmpeg's name of its format; frame: its first one."""
    said = Declared()
    for k in range(len(frame.side_data)):
        entry = frame.side_data[k]
        if entry.type == Type.STEREO3D:
            stereo, inverted = struct.unpack_from("=2i", bytes(entry))
            said.stereo = STEREO3D.get(stereo, "in another arrangement")
            if inverted & 1 and said.stereo != "none":
                said.stereo = SWAPPED
        if entry.type == Type.SPHERICAL:
            projection, *pose, west, north, east, south = struct.unpack_from("=4i4I", bytes(entry))
            said.projection = PROJECTIONS.get(projection, "")
            said.pose = tuple(angle / 2**16 for angle in pose)
            said.coverage = VR180 if projection == 3 else SPHERE
            if projection == 2:
                west, north, east, south = (side / 2**32 for side in (west, north, east, south))
                said.coverage = _coverage(west, north, 1 - east, 1 - south)
    if "mp4" in kind:
        mode, projection, xml = read_spherical(file)
        if mode > 2:
            said.stereo = SWAPPED if mode == 4 else "in another arrangement"
        if projection == b"mshp":
            said.projection = MESH
        if xml and not projection:  # V2 is to be believed where both are there
            fields = dict(FIELD.findall(xml))
            stereo = fields.get("StereoMode", "mono").strip()
            if stereo not in ("mono", *STEREO):
                said.stereo = f"of the kind {stereo[:20]}"
            size = frame.width, frame.height
            eyes = (size[0], size[1] / 2), (size[0] / 2, size[1])
            said.coverage = _cropped(fields, size, *eyes)
    return said


def picture_declares(xmp: str, width: int, height: int) -> Declared:
    """Return what the XMP of a picture of this size declares."""
    fields = dict(FIELD.findall(xmp))
    said = Declared(coverage=_cropped(fields, (width, height)))
    kind = fields.get("ProjectionType", "equirectangular").strip()
    if kind.lower() != "equirectangular":
        filters = "of a cylinder: ffmpeg -i IN -vf v360=cylindrical:e OUT"
        said.projection = f"to be {kind[:20]} ({filters})"
    try:
        axes = ("Heading", "Pitch", "Roll")
        heading, pitch, roll = (float(fields.get(f"Pose{axis}Degrees", 0)) for axis in axes)
        said.pose = heading, pitch, roll
    except ValueError:
        pass
    return said


def _cropped(fields: dict[str, str], *sizes: tuple[float, float]) -> Coverage | None:
    """Return the coverage that fields of GPano or Spherical Video V1 state.

    sizes: (width, height) of which one has the shape that they state, if they are true.
    """
    if f"{SIDES[2]}Pixels" not in fields:
        return SPHERE
    try:
        left, top, width, height = (float(fields.get(f"{side}Pixels", 0)) for side in SIDES)
        full = (float(fields[f"FullPano{side}Pixels"]) for side in ("Width", "Height"))
        full_width, full_height = full
        shape = width / height
        west, north = left / full_width, top / full_height
        east, south = west + width / full_width, north + height / full_height
    except (KeyError, ValueError, ArithmeticError):
        return None
    if not any(abs(shape * h / w - 1) <= SHAPE for w, h in sizes):
        return None
    return _coverage(west, north, east, south)


def _coverage(west: float, north: float, east: float, south: float) -> Coverage | None:
    """Return the coverage between fractions of a panorama, None where that is no part of one."""
    slack = 0.005  # of files that round carelessly
    if not (-slack <= west < east <= 1 + slack and -slack <= north < south <= 1 + slack):
        return None
    angles = 360 * west - 180, 360 * east - 180, 90 - 180 * south, 90 - 180 * north
    limits = zip(angles, (180, 180, 90, 90))
    west, east, south, north = (
        float(min(limit, max(-limit, round(angle, 5)))) for angle, limit in limits
    )
    return west, east, south, north


def _shape_notes(width: int, height: int, layout: Layout, stereo: str | None) -> Iterator[str]:
    """Yield what is doubtful about the shape of mono pictures. stereo: what was given as such."""
    west, east, south, north = layout.coverage
    wanted = (east - west) / (north - south)
    often = {1.0: "top-bottom", 4.0: "left-right"}.get(round(2 * width / height / wanted, 1))
    if layout.stereo != "none" or abs(width / height / wanted - 1) <= SHAPE or (often and stereo):
        return
    shape = "portrait" if width < height else f"not {wanted:.3g}:1"
    taken = "taken as a stretched panorama"
    if often:
        taken += f", but may be {often} stereo, or a part of the sphere: give stereo or coverage"
    else:
        taken += " (stereo is often 1:1, a cubemap 3:2 or 4:3)"
    yield f"{width}×{height} pixels are {shape}; {taken}"
