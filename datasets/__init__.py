"""Clips with ground truth as a torch Dataset, and the files that they are read from."""

from datasets.video_saliency import SaliencyVideos

__all__ = ["SaliencyVideos"]
