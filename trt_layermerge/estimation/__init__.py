"""Latency of convolutions on a GPU that is elsewhere, from its data sheet and a few fitted constants; numpy only."""
