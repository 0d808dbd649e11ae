"""Pictures, videos and ground truth, converted at the border to float RGB tensors."""

from datasets.video import Frame, read_frames
from datasets.video_saliency import SaliencyVideos

__all__ = ["Frame", "SaliencyVideos", "read_frames"]
