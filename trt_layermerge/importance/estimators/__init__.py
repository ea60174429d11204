"""The estimators of importance: one kind, one file."""
