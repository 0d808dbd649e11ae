"""What stands around the loop in train_video.py: batches, resuming and monitoring."""
