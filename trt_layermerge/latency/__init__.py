"""Latencies: how they are measured, judged and kept. The profile on disk is ``profile``, filling it is ``measure``."""
