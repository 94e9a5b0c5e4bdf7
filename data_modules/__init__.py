"""Layer 1: from files of records to batches. Imports nothing in-house."""
