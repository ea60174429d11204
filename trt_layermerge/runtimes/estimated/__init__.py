"""The runtime behind the kind ``estimate``: what a GPU that is elsewhere would execute of an ONNX graph."""
