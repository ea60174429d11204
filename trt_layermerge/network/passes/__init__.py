"""Passes over a normal form: each takes a graph, and returns one that computes the same with fewer kinds of nodes."""
