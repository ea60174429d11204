"""ONNX Runtime's sessions, for the kinds that have one of its providers."""
