"""Saliency maps to look at: overlay, viewer and a camera that follows attention."""
