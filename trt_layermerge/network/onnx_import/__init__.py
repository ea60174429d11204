"""An ONNX file as a PyTorch module that ``torch.export`` can trace and that can be trained."""
