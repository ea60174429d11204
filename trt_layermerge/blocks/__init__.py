"""Candidate blocks of a chain, the choices for each, and the signatures under which they cost the same."""
