"""The only input and output of video: decoding, motion, encoding, overlay and 360° metadata."""

from video.reader import Frame, read_frames

__all__ = ["Frame", "read_frames"]
