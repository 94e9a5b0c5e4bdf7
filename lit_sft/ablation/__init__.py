"""Comparisons: a study's trials run as subprocesses, and only what they wrote is read."""
