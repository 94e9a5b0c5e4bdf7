"""Checkpoint files: atomic writes, digests, and a record of the best one."""
