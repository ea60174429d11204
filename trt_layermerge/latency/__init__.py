"""Latencies: how they are measured and kept. The profile on disk is ``profile``, filling it is ``measure``."""
