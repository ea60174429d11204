"""What CI reads: Markdown job summaries, JUnit XML, JSON of custom benchmark actions. Nothing is judged here."""
