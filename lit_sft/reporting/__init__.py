"""What comparisons share: how sure a metric is, and the pages that show it."""
