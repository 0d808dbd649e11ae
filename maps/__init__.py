"""Saved saliency maps: their identity, their attention in numbers, and files for other programs."""
