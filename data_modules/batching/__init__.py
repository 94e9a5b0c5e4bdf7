"""From examples to the micro-batches of an optimiser step."""
