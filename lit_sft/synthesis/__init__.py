"""Instruction data made by a model from articles, questions or seed tasks, checked by named rules."""
