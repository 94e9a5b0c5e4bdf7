"""Checkpoint files: written whole or not at all, with digests, and a record of which is the best."""
