"""The rules of lint: their names, how serious they are, and what to do about a finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from data_modules.errors import UserError
from data_modules.wording import did_you_mean

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Most serious first."""

Subject = Literal["text", "tokens", "labels", "dump"]
"""What a rule looks at: the text of records, their tokens, which tokens are supervised (of records or in a dump), or
the labels of a dump alone."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: What the user types.
        severity: `error`: training on this is wrong. `warning`: probably unintended. `note`: worth knowing.
        subject: What it looks at.
        title: What a finding means, in one sentence.
        fix: What to do about it.
    """

    name: str
    severity: Severity
    subject: Subject
    title: str
    fix: str


_LABELS = (
    Rule(
        "end-token-unsupervised",
        "error",
        "labels",
        "The answer is supervised but the token that ends it is not, so the model never learns to stop.",
        "Supervise the end token of every answer. If it is cut off by a length limit, raise the limit.",
    ),
    Rule(
        "pad-masks-end",
        "error",
        "labels",
        "The pad token is the end token, and both are masked by id, so the model never learns to stop.",
        "Mask padding by length or attention mask, not by id, or use another pad token.",
    ),
    Rule(
        "nothing-supervised",
        "error",
        "labels",
        "No token is supervised, so the row costs compute and trains nothing.",
        "Check the mask, the length limit and the weights of the answers, or remove the row.",
    ),
    Rule(
        "everything-supervised",
        "warning",
        "labels",
        "Every token is supervised, the question and the template included.",
        "Mask the prompt, such as with `--data.mask output_only`, unless this is intended.",
    ),
    Rule(
        "template-supervised",
        "warning",
        "labels",
        "Text of the chat template is supervised: a role header, or what follows an end token. The model never has to "
        "write it.",
        "Supervise answers and their end tokens only.",
    ),
    Rule(
        "padding-supervised",
        "error",
        "labels",
        "Padding is supervised, so the model learns to write padding.",
        "Set the labels of padding to -100.",
    ),
    Rule(
        "tool-result-supervised",
        "error",
        "labels",
        "The result of a tool is supervised, so the model learns to invent results instead of waiting for them.",
        "Set the labels of tool results to -100; supervise the tool call only.",
    ),
    Rule(
        "labels-shifted",
        "error",
        "dump",
        "Every label is the id of the next (or previous) token: shifted already. A model that shifts labels itself, as "
        "those of transformers do, then learns to predict the token after next.",
        "Leave the labels unshifted, or use a loss that does not shift.",
    ),
    Rule(
        "labels-differ",
        "error",
        "dump",
        "Supervised labels are neither the tokens at their place nor shifted by one.",
        "Check how ids and labels are built, padded and concatenated.",
    ),
    Rule(
        "labels-not-as-claimed",
        "error",
        "dump",
        "The labels are not those that the trainer named with --as makes of the same record.",
        "Check the trainer's version and settings, its template (`--data.template`) and its length limit "
        "(`--data.max_length`).",
    ),
)

_TOKENS = (
    Rule(
        "end-token-mismatch",
        "warning",
        "tokens",
        "The template ends answers with a token that the model does not stop on.",
        "Use a template that ends with the model's own token (`--data.template auto`), or stop on this token at "
        "inference: models exported by lit_sft do.",
    ),
    Rule(
        "pad-is-end",
        "note",
        "tokens",
        "The pad token is the end token. lit_sft masks padding by position, so nothing is lost here; a trainer that "
        "masks it by id would never train the end of an answer.",
        "Only if you train with such a trainer: give the tokenizer another pad token.",
    ),
    Rule(
        "prompt-differs",
        "error",
        "tokens",
        "The ids of the prompt in training differ from those that the exported tokenizer's chat template gives at "
        "inference.",
        "Look at where they differ: markers inside a message, or an earlier answer that merges with its header. Change "
        "the text, or use a template with special tokens around messages.",
    ),
    Rule(
        "merged-border",
        "note",
        "tokens",
        "The tokenizer would join the end of the prompt and the beginning of the answer into one token. lit_sft "
        "encodes them apart, as at inference; a trainer that encodes them together masks or trains the wrong token.",
        "Only if you train with such a trainer: strip answers, or end the prompt with a special token.",
    ),
    Rule(
        "answer-truncated",
        "warning",
        "tokens",
        "The length limit cuts an answer or drops it.",
        "Raise `--data.max_length`, set `--data.over_long` to split or drop, or shorten the record.",
    ),
    Rule(
        "prompt-truncated",
        "note",
        "tokens",
        "The length limit shortens the prompt, but no supervised answer.",
        "Raise `--data.max_length` if the model needs the whole prompt.",
    ),
    Rule(
        "unknown-text",
        "warning",
        "tokens",
        "The tokenizer cannot represent some of the text, so the model never sees it.",
        "Clean the record, or choose a model whose tokenizer covers it.",
    ),
)

_TEXT = (
    Rule(
        "invalid-record",
        "error",
        "text",
        "The record cannot be read or rendered.",
        "Correct the record, or drop invalid ones with `--data.on_invalid drop`.",
    ),
    Rule(
        "unused-fields",
        "note",
        "text",
        "Records have fields that nothing reads.",
        "If they matter, map them with `--data.columns`; otherwise ignore this.",
    ),
    Rule(
        "empty-answer",
        "error",
        "text",
        "The answer is missing or blank.",
        "Complete the record or remove it.",
    ),
    Rule(
        "short-answer",
        "note",
        "text",
        "The answer has neither letters nor digits nor symbols.",
        "Check that the answer was not lost when the data was made.",
    ),
    Rule(
        "long-answer",
        "note",
        "text",
        "The answer has more than 20,000 characters.",
        "Check that it is an answer, not a whole document or a generation that did not stop.",
    ),
    Rule(
        "repeated-answer",
        "warning",
        "text",
        "The answer ends in a loop: the same words again and again.",
        "Cut the loop, or remove the record: the model would learn to loop.",
    ),
    Rule(
        "marker-in-content",
        "warning",
        "text",
        "A message contains a chat marker, such as <|im_end|> or ### Response:. lit_sft encodes it as plain text; most "
        "other programs read it as the end of a turn.",
        "Remove the marker; if the record is several turns in one message, split it into messages.",
    ),
    Rule(
        "mojibake",
        "warning",
        "text",
        "The text was decoded with the wrong encoding: Ã© instead of é.",
        "Decode the original file as UTF-8, or repair the text.",
    ),
    Rule(
        "replacement-character",
        "warning",
        "text",
        "The text contains U+FFFD, which stands for bytes that could not be decoded.",
        "Decode the original file with its own encoding.",
    ),
    Rule(
        "control-character",
        "warning",
        "text",
        "The text contains a control character other than a line break or tab.",
        "Remove it.",
    ),
    Rule(
        "invisible-character",
        "warning",
        "text",
        "The text contains an invisible character: a zero-width space, a soft hyphen, a byte order mark or a "
        "change of text direction.",
        "Remove it: the tokenizer splits words at it.",
    ),
    Rule(
        "mixed-scripts",
        "warning",
        "text",
        "A word mixes Latin letters with Cyrillic ones that look the same.",
        "Replace the odd letters.",
    ),
    Rule(
        "answer-script",
        "note",
        "text",
        "The answer is in another script than the question.",
        "Check that this is intended, as in a translation.",
    ),
    Rule(
        "system-prompts",
        "note",
        "text",
        "Not all conversations have the same system prompt.",
        "Use at inference the system prompt that was trained most, or train without one.",
    ),
)

_DUPLICATES = (
    Rule(
        "duplicate",
        "warning",
        "text",
        "The same conversation is in a split more than once.",
        "Remove the copies, unless the repetition is intended.",
    ),
    Rule(
        "duplicate-normalised",
        "warning",
        "text",
        "Two conversations of a split differ only in case, spaces or punctuation.",
        "Keep one of them.",
    ),
    Rule(
        "near-duplicate",
        "note",
        "text",
        "Two conversations share at least 80% of their text.",
        "Keep one of them, or at least keep both in the same split.",
    ),
    Rule(
        "contradictory-answers",
        "note",
        "text",
        "The same prompt has different answers in a split.",
        "Keep the better answer, unless several are intended.",
    ),
    Rule(
        "split-leak",
        "warning",
        "text",
        "A conversation, or its prompt, is in two splits, so the held-out score is too good. Exact copies are left out "
        "of training by lit_sft, not by other trainers.",
        "Remove it from one of the splits.",
    ),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in (*_LABELS, *_TOKENS, *_TEXT, *_DUPLICATES)}


def chosen_rules(names: str | None, ignored: str | None) -> frozenset[str]:
    """The rules to run.

    Args:
        names: Names separated by commas. None: all.
        ignored: Names of rules to leave out.

    Raises:
        UserError: If there is no such rule, or none is left.
    """
    chosen = frozenset(_names("--rules", names) if names is not None else RULES) - frozenset(
        _names("--ignore", ignored) if ignored is not None else ()
    )
    if not chosen:
        raise UserError("--rules and --ignore leave no rule; `lint --list-rules` lists them.")
    return chosen


def _names(option: str, text: str) -> Iterable[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in RULES:
            advice = did_you_mean(name, RULES) or "`lint --list-rules` lists them."
            raise UserError(f"{option} {text}: no rule {name!a}; {advice}")
    return names
