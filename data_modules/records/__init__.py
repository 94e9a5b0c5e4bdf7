"""From files to conversations: readers, formats, splits, and record counts."""
