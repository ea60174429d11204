"""What the user takes away: ONNX, an engine, a manifest that says all about it, and its verification."""
