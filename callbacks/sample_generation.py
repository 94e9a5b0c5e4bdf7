"""Shows the model's answers before training and at every validation: in the terminal, in TensorBoard and on disk."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table
from rich.text import Text

from callbacks.output import append_row, file_in_run, is_fitting, print_for, writers
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.errors import UserError, UserNotice
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.text_data_module import TextDataModule
from lit_sft.models.answer_rows import question, reference
from lit_sft.models.generation import Generated, GenerationSettings, generate
from lit_sft.printable import excerpt
from lit_sft.training.data import TrainingData
from lit_sft.training.module import LitCausalLM

_TERMINAL_CHARACTERS = 200
_UNTRAINED_CHARACTERS = 60
"""Random weights repeat the same few characters, so their answers are cut shorter."""
_TENSORBOARD_CHARACTERS = 2000

_CONVERSATION = ("question", "answer", "reference")
_TEXT = ("beginning", "continuation", "original")

# every ASCII mark with a meaning in HTML or Markdown; both read an entity as text
_MARKS = re.compile(r"[!-+\-/<-@\[-`{-~]")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one prompt.

    Attributes:
        question: The last user message, for display.
        prompt: The full rendered prompt.
        origin: Where the record is, or which entry of `prompts` it is.
        temperature: 0 for the likeliest answer.
        answer: The answer without its end token.
        ended: Whether the model ended the answer itself.
        reference: The record's own answer; None for a bare prompt.
    """

    question: str
    prompt: str
    origin: str
    temperature: float
    answer: str
    ended: bool
    reference: str | None


class SampleGeneration(Callback):
    """Answers fixed prompts and the first validation rows, before training and at every validation.

    Prompts, their order and the seed stay the same, so only the weights differ between steps. Modes, caches
    and the random state are restored, so training is not affected.

    Args:
        prompts: User messages as plain text; rendered with the template of the data. In a text run, beginnings of
            texts to continue.
        num_held_out: Number of validation rows to answer too: the first ones with a reference; in a text run, the first
            documents, of which the beginning is given. They are not trained on, but their validation loss helps to
            choose the best checkpoint.
        max_new_tokens: Maximum number of tokens in an answer.
        temperatures: One answer for each; 0 is greedy.
        top_p: For temperatures above 0: sample from the likeliest tokens that make up this share of the probability.
        seed: Determines the sampling.
        batch_size: Prompts per batch.
        file: JSON lines in the run folder: step, and the fields of Sample except `question`.
        print_table: Whether to also print the answers.

    Raises:
        UserError: If a setting is out of range, or (when `fit` starts) a prompt leaves no room for an answer.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        num_held_out: int = 4,
        max_new_tokens: int = 64,
        temperatures: tuple[float, ...] = (0.0,),
        top_p: float = 1.0,
        seed: int = 0,
        batch_size: int = 16,
        file: str = "samples.jsonl",
        print_table: bool = True,
    ) -> None:
        if num_held_out < 0 or max_new_tokens < 1 or batch_size < 1:
            raise UserError(
                f"SampleGeneration num_held_out {num_held_out}, max_new_tokens {max_new_tokens}, batch_size "
                f"{batch_size}: expected at least 0, 1 and 1."
            )
        if not temperatures or min(temperatures) < 0 or not 0 < top_p <= 1:
            raise UserError(
                f"SampleGeneration temperatures {list(temperatures)}, top_p {top_p}: expected at least one "
                "temperature, each at least 0, and top_p above 0 and at most 1."
            )
        self.prompts, self.num_held_out = list(prompts or []), num_held_out
        self.temperatures, self.seed, self.print_table = tuple(temperatures), seed, print_table
        self.file = file_in_run(self, file)
        self.settings = GenerationSettings(max_new_tokens=max_new_tokens, top_p=top_p, batch_size=batch_size)
        self.examples: list[Example] = []
        self._has_begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the prompts and validation rows to answer."""
        assert isinstance(pl_module, LitCausalLM)
        data = pl_module.data
        held_out = (
            data.beginnings(self.num_held_out)
            if isinstance(data, TextDataModule)
            else _validation_rows(data, self.num_held_out)
        )
        self.examples = [*self._bare_prompts(data), *held_out]
        if not self.examples:
            warnings.warn(
                "SampleGeneration has nothing to answer: no prompts, and no validation row with an answer. Set its "
                "prompts, or remove it.",
                UserNotice,
                stacklevel=2,
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer before training, unless Lightning's sanity check already did."""
        if trainer.global_step == 0 and not self._has_begun:
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer at a validation."""
        if is_fitting(trainer):
            self._show(trainer, pl_module)

    def generation_steps(self) -> float:
        """Maximum number of generation steps per validation. A step is one token per row of a batch."""
        batches = -(-len(self.examples) // self.settings.batch_size)
        return batches * len(self.temperatures) * self.settings.max_new_tokens

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LitCausalLM)
        self._has_begun = True
        if not self.examples:
            return
        # on every process: a sharded model cannot answer on one alone
        with trainer.precision_plugin.forward_context():  # the arithmetic that validation uses
            columns = [self._samples(pl_module, temperature) for temperature in self.temperatures]
        samples = [sample for row in zip(*columns, strict=True) for sample in row]
        for sample in samples:
            append_row(trainer, self.file, {"step": trainer.global_step, **_row(sample)})
        _write_to_loggers(trainer, samples)
        if self.print_table:
            is_untrained = trainer.global_step == 0 and pl_module.backbone_settings.pretrained is None
            most = _UNTRAINED_CHARACTERS if is_untrained else _TERMINAL_CHARACTERS
            words = _TEXT if isinstance(pl_module.data, TextDataModule) else _CONVERSATION
            print_for(trainer, _table(samples, trainer.global_step, most, words))

    def _samples(self, module: LitCausalLM, temperature: float) -> list[Sample]:
        answers = generate(
            module.backbone,
            [example.prompt_ids() for example in self.examples],
            tokenizer=module.data.tokenizer,
            end_token_id=module.data.end_token_id,
            settings=replace(self.settings, temperature=temperature),
            seed=self.seed,
        )
        pairs = zip(self.examples, answers, strict=True)
        return [_sample(module, example, answer, temperature) for example, answer in pairs]

    def _bare_prompts(self, data: TrainingData) -> list[Example]:
        """Encode the prompts without truncation, which would silently change the question."""
        encoder = replace(data.encoder, max_length=10**9)
        examples = []
        for index, text in enumerate(self.prompts):
            origin = f"SampleGeneration prompts[{index}]"
            if not text.strip():
                raise UserError(f"{origin}: empty; expected text.")
            if isinstance(data, TextDataModule):
                example = data.prompt(text, origin)
            else:
                (example,) = encoder.encode(Conversation((Message(Role.USER, text),), origin))
            if data.context_length is not None and len(example) >= data.context_length:
                raise UserError(
                    f"{origin}: {len(example)} tokens leave no room for an answer: the model reads "
                    f"{data.context_length}. Shorten it."
                )
            examples.append(example)
        return examples


def markdown_text(text: str) -> str:
    """Escape text for a Markdown table cell, so that neither Markdown nor HTML interprets it."""
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", excerpt(text, _TENSORBOARD_CHARACTERS))


def _validation_rows(data: TrainingData, count: int) -> list[Example]:
    found: list[Example] = []
    store = data.stores.get("val")
    for example in store if count and isinstance(store, ExampleStore) else ():
        if example.answer_ids():
            found.append(example)
        if len(found) == count:
            break
    return found


def _sample(module: LitCausalLM, example: Example, answer: Generated, temperature: float) -> Sample:
    return Sample(
        question=question(example, module.data.tokenizer),
        prompt=str(module.data.tokenizer.decode(example.prompt_ids())),
        origin=example.origin,
        temperature=temperature,
        answer=answer.text,
        ended=answer.ended,
        reference=reference(example, module.data.tokenizer, module.data.end_token_id),
    )


def _row(sample: Sample) -> dict[str, Any]:
    names = ("origin", "prompt", "temperature", "answer", "ended", "reference")
    return {name: getattr(sample, name) for name in names}


def _write_to_loggers(trainer: Trainer, samples: list[Sample]) -> None:
    for add_text in writers(trainer, "add_text"):
        add_text("samples", _markdown(samples), trainer.global_step)


def _markdown(samples: list[Sample]) -> str:
    lines = ["| question | temperature | answer | ended | reference |", "|---|---|---|---|---|"]
    for sample in samples:
        question, answer, reference = map(markdown_text, (sample.question, sample.answer, sample.reference or ""))
        ended = "yes" if sample.ended else "no"
        lines.append(f"| {question} | {sample.temperature:g} | {answer} | {ended} | {reference} |")
    return "\n".join(lines)


def _table(samples: list[Sample], step: int, most: int, words: tuple[str, str, str]) -> Table:
    """A table of the answers, each shortened to `most` characters, with words for prompts, answers and references."""
    question_word, answer_word, reference_word = words
    title = f"{answer_word}s at step {step}" if step else f"{answer_word}s before training"
    table = Table(title=title, title_justify="left", caption="▪ ended by the model itself", caption_justify="left")
    table.add_column(question_word, ratio=2, overflow="fold")
    table.add_column("temp.", justify="right")
    table.add_column(answer_word, ratio=3, overflow="fold")
    table.add_column(reference_word, ratio=3, overflow="fold")
    before = None
    for sample in samples:
        is_same = sample.origin == before
        question, reference = ("", "") if is_same else (sample.question, sample.reference or "")
        cells = [excerpt(text, _TERMINAL_CHARACTERS) for text in (question, reference)]
        # Text is never read as markup
        answer = Text(excerpt(sample.answer, most) + (" ▪" if sample.ended else ""))
        if before is not None and not is_same:
            table.add_section()
        table.add_row(Text(cells[0]), f"{sample.temperature:g}", answer, Text(cells[1]))
        before = sample.origin
    return table
