"""The conventions as Markdown, for `docs/who_trains_what.md`."""

from __future__ import annotations

from data_modules.rendering.convention_table import CONVENTIONS, Convention
from data_modules.rendering.convention_tokens import Part

START, STOP = "<!-- generated from the code: start -->", "<!-- generated from the code: stop -->"

_COLUMNS = (
    Part.SYSTEM,
    Part.USER,
    Part.HEADER,
    Part.HEADER_END,
    Part.ANSWER,
    Part.END,
    Part.AFTER_END,
)
_EXCEPTIONS = {
    ("llamafactory", Part.SYSTEM): "train_on_prompt",
    ("llamafactory", Part.USER): "train_on_prompt",
    ("llamafactory", Part.HEADER): "train_on_prompt",
    ("llamafactory", Part.HEADER_END): "train_on_prompt",
    ("axolotl", Part.SYSTEM): "roles_to_train",
    ("axolotl", Part.USER): "roles_to_train",
    ("axolotl", Part.END): "if it is the eos",
    ("torchtune", Part.AFTER_END): "not the last",
    ("torchtune", Part.END): "yes; with max_seq_len not the last",
    ("litgpt", Part.SYSTEM): "unless mask_prompt",
    ("litgpt", Part.USER): "unless mask_prompt",
    ("litgpt", Part.HEADER): "unless mask_prompt",
    ("litgpt", Part.HEADER_END): "unless mask_prompt",
    ("trl:prompt_completion", Part.ANSWER): "the last",
    ("trl:prompt_completion", Part.END): "the last",
    ("trl:prompt_completion", Part.AFTER_END): "the last",
    ("trl:prompt_completion", Part.HEADER_END): "no",
    ("trl:assistant_only", Part.HEADER_END): "Qwen2.5",
}
"""Where a yes or no says too little."""

_NONE_AFTER_END = ("stanford_alpaca", "ultrachat", "litgpt", "nanochat")
_NO_HEADER_END = ("stanford_alpaca", "nanochat")
_NO_SYSTEM = ("stanford_alpaca", "ultrachat")


def tables() -> str:
    """Everything of the page that is generated: who trains which token, how text is encoded and cut, and sources."""
    return "\n\n".join((START, _labels(), _texts(), _sources(), STOP))


def _labels() -> str:
    header = ["trainer", *(part.value for part in _COLUMNS), "tool calls and results", "thinking"]
    rows = []
    for convention in CONVENTIONS.values():
        cells = [_cell(convention, part) for part in _COLUMNS]
        rows.append([f"`{convention.name}`", *cells, convention.tools, convention.thinking])
    return _table(header, rows)


def _cell(convention: Convention, part: Part) -> str:
    absent = {Part.AFTER_END: _NONE_AFTER_END, Part.HEADER_END: _NO_HEADER_END, Part.SYSTEM: _NO_SYSTEM}
    if convention.name in absent.get(part, ()):
        return "–"
    return _EXCEPTIONS.get((convention.name, part), "yes" if part in convention.trained else "no")


def _texts() -> str:
    header = ["trainer", "templates", "encoded as one string", "bos", "what is cut", "last end token if cut", "options"]
    rows = []
    for convention in CONVENTIONS.values():
        templates = ", ".join(f"`{name}`" for name in convention.templates) if convention.templates else "any"
        options = ", ".join(
            f"`{name}`" if not values else f"`{name}={'|'.join(values)}`" for name, values in convention.choices.items()
        ).replace("|", "\\|")
        cells = [convention.strings, convention.bos, convention.cut, convention.end_when_cut]
        rows.append([f"`{convention.name}`", templates, *cells, options])
    return _table(header, rows)


def _sources() -> str:
    lines = []
    for convention in CONVENTIONS.values():
        notes = f" {convention.notes}" if convention.notes else ""
        lines.append(f"- `{convention.name}`: {convention.source}.{notes}")
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
