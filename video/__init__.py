"""Reads and writes videos: decoding, motion, encoding, sound, overlay and 360° metadata."""

from video.reader import Frame, read_frames

__all__ = ["Frame", "read_frames"]
