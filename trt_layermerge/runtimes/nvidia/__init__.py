"""What NVIDIA's kinds share: CUDA and NVML, and a builder in a process of its own. ``runtimes`` has the kinds."""
