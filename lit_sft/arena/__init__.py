"""Votes on answers: ratings of the models, and preference pairs."""
