"""Checks of pairs that a model made: each a rule with a name, options and a count."""
