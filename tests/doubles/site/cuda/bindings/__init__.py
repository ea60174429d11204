"""A double of cuda-bindings: ``runtime`` alone, on host memory."""

__version__ = "13.5.0"
