"""Saved saliency maps: records, measures of attention, and exports for other programs."""
