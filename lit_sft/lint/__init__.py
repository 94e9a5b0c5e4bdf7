"""The lint command: what is wrong with records, with their encoding, or with any trainer's labels."""
