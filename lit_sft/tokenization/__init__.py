"""The tokenizer command: trains a byte-level BPE tokenizer, and compares any tokenizers on the same text."""
