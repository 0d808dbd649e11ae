"""Views of saliency maps: overlay, viewer and a camera that follows attention."""
