"""Pictures in H.264's format yuv420p: luma at full and chroma at half resolution."""

from dataclasses import dataclass, replace

import av
import numpy as np

from video.layout import MONO, Layout

BT709, UNKNOWN, BT601 = 1, 2, 6  # H.264's codes of matrices
LIMITED, FULL = 1, 2  # ranges of luma: 16…235, 0…255
MAX_PANORAMA_ROWS = 2048  # rows


@dataclass(frozen=True)
class Colour:
    """Matrix, primaries, transfer and range of a video's YUV, in H.264's codes."""

    matrix: int
    primaries: int
    transfer: int
    range: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Colour":
        """Return the tags of a frame, which may be unknown; those of BT.709 for an RGB frame."""
        if frame.format.is_rgb:
            return cls(BT709, BT709, BT709, LIMITED)
        tags = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        if frame.format.name != "yuv420p":  # then it is converted, also yuvj420p
            return cls(*tags, LIMITED)
        return cls(*tags, int(frame.color_range))

    def assumed(self, height: int) -> "Colour":
        """Return the tags; an unknown matrix is replaced by the one that players assume."""
        guess = BT709 if height >= 720 else BT601
        return replace(self, matrix=guess) if self.matrix == UNKNOWN else self

    def in_browsers(self, height: int) -> "Colour":
        """Return the same with all tags set, since browsers interpret unknown ones differently."""
        return Colour(self.assumed(height).matrix, BT709, BT709, self.range or LIMITED)

    def from_rgb(self, rgb: np.ndarray, height: int) -> np.ndarray:
        """Return the YUV of RGB, both (H, W, 3) uint8, in a video of `height` rows."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        tags = {"dst_colorspace": self.assumed(height).matrix, "dst_color_range": self.range}
        return frame.reformat(format="yuv444p", **tags).to_ndarray().transpose(1, 2, 0)


def planes(picture: np.ndarray) -> list[np.ndarray]:
    """Return views of Y (H, W), U and V (H/2, W/2) of a (3·H/2, W) yuv420p picture."""
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    return [picture[:height], chroma[0], chroma[1]]


def mono(picture: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the left eye's whole sphere of a (3·H/2, W) yuv420p picture, as yuv420p.

    The part outside the layout's coverage is black. A panorama has at most MAX_PANORAMA_ROWS rows.
    """
    if layout == MONO:
        return picture
    luma, u, v = planes(picture)
    rows, columns = layout.eyes(*u.shape)[0]
    eye = [luma[: 2 * rows.stop, : 2 * columns.stop], u[rows, columns], v[rows, columns]]
    if not layout.whole:
        part = replace(layout, stereo="none")
        height = min(part.panorama_size(*eye[1].shape)[0], MAX_PANORAMA_ROWS // 2)
        for k, (scale, black) in enumerate(((2, 16), (1, 128), (1, 128))):
            size = scale * height, 2 * scale * height
            eye[k] = np.where(part.covered(*size), part.panorama(eye[k], *size), black)
    width = eye[0].shape[1]
    chroma = np.concatenate([plane.ravel() for plane in eye[1:]])
    return np.concatenate([eye[0], chroma.reshape(-1, width)])


def to_yuv420p(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as (3·H/2, W) uint8 yuv420p, an odd last column or row cut off."""
    if frame.format.name != "yuv420p":
        matrix = "ITU709" if frame.format.is_rgb else None
        frame = frame.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=LIMITED)
    height, width = frame.height // 2 * 2, frame.width // 2 * 2
    picture = np.empty((height * 3 // 2, width), np.uint8)
    for target, plane in zip(planes(picture), frame.planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        target[:] = rows[: target.shape[0], : target.shape[1]]
    return picture
