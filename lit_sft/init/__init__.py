"""The init command: looks at a data file, a model and this machine, and writes a config with comments."""
