"""Conformance suites that any kind must pass; for those who add one."""
