"""What comparisons share: how sure a figure is, and the pages that show it."""
