"""Clips with ground truth as a torch Dataset, and readers of their files."""

from datasets.video_saliency import SaliencyVideos

__all__ = ["SaliencyVideos"]
