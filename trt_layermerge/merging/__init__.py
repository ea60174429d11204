"""Merging convolutions: the algebra, closed-form fits, rewriting a network, and the proof that it is right."""
