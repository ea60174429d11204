"""The double's namespace; NVIDIA's own ``cuda`` is hidden while this folder is in front of it."""
