"""Engines: the only package that imports the libraries that run them. Start at ``registry.get_runtime``."""
