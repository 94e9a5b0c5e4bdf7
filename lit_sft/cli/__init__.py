"""The commands fit, validate, test, predict and export. Nothing imports them but `lit_sft.__main__`."""
