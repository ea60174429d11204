"""An FP32 network in ONNX, written in a lower precision and compared with itself, before any engine is built of it."""
