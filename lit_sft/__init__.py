"""Layer 2: the model, its loss and metrics, and the commands. May import data_modules, never callbacks."""

from lit_sft import own_packages

__version__ = "0.1.0"

own_packages.install()
