"""Makes trained CNNs shallower and measurably faster on one particular device.

The packages, and what they may import, are listed in CONTRIBUTING.md. ``pipeline`` is where the whole job is; the
command line is a thin layer over it. Importing this package imports nothing else.
"""
