"""Metrics: negative log-likelihood by segment and mask; exact match and ROUGE of answers."""
