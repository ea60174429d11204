"""The whole job: its settings, its stages, and the files by which stages share their work."""
