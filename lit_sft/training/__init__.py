"""Training: the LightningModule, its optimiser and precision, what resumes it and what stops it."""
