"""The clean command: what cleaning rules change in documents, and the clean documents as a file."""
