"""The chat command: talk to a model in the terminal, or send it messages over a pipe."""
