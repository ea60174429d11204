"""Tasks without labels: images alone, and the distance of a network's outputs from those of the original."""
