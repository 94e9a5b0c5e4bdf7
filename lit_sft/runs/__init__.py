"""Run folders: made, named, locked, opened as models, and what commands write into them."""
