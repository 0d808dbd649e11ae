"""Reading and writing of videos: decoding, motion, encoding, sound and 360° metadata."""

from video.reader import Frame, read_frames

__all__ = ["Frame", "read_frames"]
