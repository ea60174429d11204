"""PyTorch as a runtime: an ONNX file read by our own importer and run as it is, by no compiler."""
