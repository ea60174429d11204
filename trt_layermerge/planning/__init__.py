"""Problem to exact frontier to plan; the methods. Knows neither torch nor ONNX."""
