"""HTML for people from a manifest; the manifest itself is the JSON."""
