"""Listing, reading and resizing of pictures."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.errors import InputError
from common.files import reading
from video.declared import Declared, picture_declares
from video.layout import SPHERE, Layout, resample
from video.packed import is_packed, packed_part, read_packed
from video.spherical_metadata import panorama_xmp

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
FLOW_SUFFIX = "_flow.png"  # end of the name of a flow picture, beside its frame
FRAMES, OPTICAL_FLOW = "frames", "optical_flow"  # SST-Sal's folders of frames and flow pictures
MAX_PIXELS = 16384 * 32768  # of a picture: 1.6 GB of RGB
FULL = (1, 255, 65535)  # possible maxima of float pictures

Image.MAX_IMAGE_PIXELS = None  # open_picture has its own limit


def list_pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder, or one picture, ordered by the numbers in their names.

    For any other file, the list is empty. Raises InputError for a folder without pictures.
    """
    if not path.is_dir():
        return [path] if path.suffix.lower() in PICTURES else []
    pictures = [p for p in path.iterdir() if p.suffix.lower() in PICTURES]
    pictures = [p for p in pictures if not p.name.endswith(FLOW_SUFFIX)]
    if not pictures:
        known = " ".join(sorted(PICTURES))
        raise InputError(f"{path}: no pictures in this folder; frames end with one of {known}")
    return sorted(pictures, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


@contextmanager
def open_picture(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Open a picture with PIL, which reads its header. Turn errors into InputErrors."""
    otherwise = "the picture can't be read ({}); delete it or make it again"
    with reading(path, otherwise) as path, Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"too large, {image.width}×{image.height} pixels")
        yield image


def read_picture(path: str | Path, mode: str = "RGB") -> np.ndarray:
    """Return (H, W, 3) uint8 RGB; with mode "L" (H, W) uint8 grey; with "F" original grey, float32.

    The EXIF orientation is applied. With "RGB" and "L", 16-bit and float grey values are scaled to
    8 bits; the full scale of floats is the first of FULL that no value exceeds.
    Raises InputError for a file that is damaged, not a picture, too large, or has other values.
    """
    if is_packed(Path(path)):
        return read_packed(Path(path))
    with open_picture(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        deep = image.mode.startswith(("I", "F"))
        if mode == "F":
            return np.array(image if deep else image.convert("L"), np.float32)
        if deep:
            values = np.asarray(image, np.float32)
            scales = [full for full in FULL if values.max() <= full]
            if not scales or values.min() < 0:
                raise ValueError(f"its values range from {values.min():g} to {values.max():g}")
            full = scales[0] if image.mode == "F" else FULL[-1]
            image = Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))
        return np.array(image.convert(mode))


def read_exr(path: str | Path) -> np.ndarray:
    """Return the values of an OpenEXR file as (H, W) float32; for colours, the green channel.

    Raises InputError for any other file.
    """
    with (
        reading(path, "not a readable OpenEXR file ({}); make it again") as path,
        av.open(f"file:{path}", format="exr_pipe") as container,
    ):
        values = next(container.decode(video=0)).to_ndarray()
        return values if values.ndim == 2 else values[..., 1]


def save_picture(path: Path, rgb: np.ndarray, original: Path, layout: Layout | None) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or JPEG of high quality, with the original's colour profile.

    layout: for marking it as a panorama; None: not marked.
    """
    options: dict[str, Any] = {"quality": 95, "subsampling": 0}  # each format uses its own
    with open_picture(original) as image:
        options["icc_profile"] = image.info.get("icc_profile") if image.mode == "RGB" else None
    if layout:
        height, width = rgb.shape[:2]
        xmp = panorama_xmp(height, width, layout)
        options |= {"xmp": xmp.encode(), "pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    Image.fromarray(rgb).save(path, **options)


def probe_pictures(pictures: Sequence[Path]) -> tuple[Declared, list[str]]:
    """Return the metadata of the first readable picture, and notes on it."""
    problem = InputError("there is no picture")
    for path in pictures:
        try:
            with open_picture(path) as image:
                frames, notes = getattr(image, "n_frames", 1), []
                if frames > 1:
                    notes.append(f"animated: only the first of {frames} frames is read")
                on_end = image.getexif().get(0x0112) in (5, 6, 7, 8)
                size = image.size[::-1] if on_end else image.size
                xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", "")
                xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
                return picture_declares(xmp, *size), notes
        except InputError as error:
            problem = error
    raise problem


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an equirectangular (H, W) or (H, W, C) image at another size; see resample."""
    return resample(image, SPHERE, SPHERE, height, width)


def unit(picture: Tensor) -> Tensor:
    """Return an 8-bit picture as float32 in [0, 1], and any other unchanged."""
    return picture.float().div_(255) if picture.dtype == torch.uint8 else picture


def find_flow(picture: Path) -> Path | None:
    """Return the path of a frame's flow picture, None if it has none.

    It is beside the frame, or has the frame's name in SST-Sal's layout.
    """
    if is_packed(picture):
        flow = picture.with_name(picture.name.replace("picture", "flow"))
        return None if packed_part(flow) is None else flow
    paths = [picture.with_name(picture.stem + FLOW_SUFFIX)]
    for folder in picture.absolute().parents[:2]:
        if folder.name == FRAMES:
            path = folder.parent / OPTICAL_FLOW / picture.absolute().relative_to(folder)
            paths += [path, path.with_suffix(".png")]
    return next(filter(Path.is_file, paths), None)


def read_flow(picture: Path) -> np.ndarray | None:
    """Return a frame's flow picture, (H, W, 3) uint8, None if it has none."""
    path = find_flow(picture)
    return path if path is None else read_picture(path)
