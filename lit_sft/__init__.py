"""Layer 2: the model, its loss and metrics, and the commands. May import data_modules, never callbacks."""

__version__ = "0.1.0"
