"""Settings: reading YAML, the parser and its one-line errors, and what a run's own config may import."""
