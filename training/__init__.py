"""Support code for the training loop in train_video.py: batches, resuming and monitoring."""
