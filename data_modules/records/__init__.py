"""From files to conversations: readers, formats, splits, and a count of every record."""
