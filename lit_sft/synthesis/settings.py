"""The settings of `synthesize`: what to read, which recipe and which model to use, and how much to ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.records.columns import check_columns
from data_modules.records.counts import OnInvalid
from data_modules.records.formats import FormatName
from data_modules.records.text_lines import TxtDocuments
from lit_sft.endpoint.paid_model import EndpointSettings, RequestSettings
from lit_sft.models.generation import GenerationSettings

LongArticles = Literal["cut", "split"]


@dataclass(frozen=True)
class ModelSettings(RequestSettings):
    """The model that writes: one behind an endpoint, or a local one.

    Attributes:
        endpoint: An OpenAI-compatible address, such as http://127.0.0.1:8080/v1. A user, password or query in it is
            sent but never shown.
        name: The model's name at the endpoint.
        path: Instead of an endpoint: a model folder, an adapter, a hub name, a run folder or a checkpoint.
        device: Device of a local model. `auto` uses a GPU if there is one.
        temperature: 0 takes the likeliest token; above 0, tokens are sampled.
        top_p: Sample from the likeliest tokens that make up this share of the probability.
        max_tokens: Longest reply, in tokens.
    """

    endpoint: str | None = field(default=None, repr=False)
    name: str | None = None
    path: str | None = None
    device: str = "auto"
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if (self.endpoint is None) == (self.path is None):
            both = "both are given" if self.endpoint is not None else "neither is given"
            raise UserError(f"--model.endpoint and --model.path: {both}; expected the address of a server, or a model.")
        if self.endpoint is not None and not self.name:
            raise UserError("--model.name: missing; expected the model's name at the endpoint.")
        if self.path is not None and self.name is not None:
            raise UserError("--model.name: only for an endpoint; a local model is named by --model.path.")
        _refuse_unused(self)
        try:
            super().__post_init__()
            GenerationSettings(self.max_tokens, self.temperature, self.top_p, self.concurrency)
            if self.endpoint is not None:
                self.of_endpoint()
        except UserError as error:
            text = str(error).replace("max_new_tokens", "max_tokens")
            raise UserError(f"--model.{text}") from None

    def of_endpoint(self) -> EndpointSettings:
        """The settings of an endpoint's requests."""
        assert self.endpoint is not None
        requests = {each.name: getattr(self, each.name) for each in fields(RequestSettings)}
        return EndpointSettings(self.endpoint, self.name or "", **requests)

    @property
    def title(self) -> str:
        """What the model is called in provenance."""
        return self.name or self.path or ""


def _refuse_unused(model: ModelSettings) -> None:
    """Refuse what would have no effect."""
    of_endpoint = ("retries", "timeout", "rate", "structured", "prices")
    unused, needed = (("device",), "path") if model.path is None else (of_endpoint, "endpoint")
    usual = RequestSettings()
    for name in unused:
        if getattr(model, name) != getattr(usual, name, "auto"):
            raise UserError(f"--model.{name}: has an effect only with --model.{needed}; remove the setting.")


@dataclass(frozen=True)
class SynthesisSettings:
    """What to make instruction data from, and how.

    Attributes:
        output: Folder for the replies, the records and the report.
        model: The model that writes.
        recipe: What to make: pairs, paraphrase, second_turn, answers, self_instruct, or a YAML file of your own.
        articles: Text files, read as text runs read them; `article_id` names an article, else its file and line.
        records: Conversations, read as `fit` reads them: the pairs to paraphrase or to extend, the questions to answer,
            or the seed tasks.
        language: Of the prompts. `auto`: by the script of each article or question.
        limits: Other numbers for the recipe's prompts, such as `{question_length: 20}`.
        checks: Rules that refuse what the model wrote, in order. null: those of the recipe.
        attempts: How often a reply without the recipe's form is asked for, in all. Requests stop if no reply about the
            first 20 articles or records has the form.
        seed: Of the sampling, and of the choice of seed tasks.
        max_articles: Read the first N articles or records only.
        max_cost: Money that all requests of this folder may cost, in the currency of the prices.
        requests: How many requests to make of seed tasks.
        examples: How many seed tasks each of these requests shows.
        offline: Whether to send nothing and use the replies that the folder has, for example with other checks.
        max_characters: Longest text of a request.
        long_articles: What is done with longer ones: cut at a sentence end, or split into several.
        columns: Fields that have other names in the files, such as `{text: body}`.
        format: How `records` are read. null: recognised.
        txt_documents: What an article is in a .txt file: every line, the lines between two blank ones, or the file.
        on_invalid: Whether an invalid record stops everything or is dropped.
    """

    output: str
    model: ModelSettings
    recipe: str = "pairs"
    articles: list[str] | str | None = None
    records: list[str] | str | None = None
    language: Literal["auto", "en", "zh"] = "auto"
    limits: dict[str, int] = field(default_factory=dict)
    checks: list[Any] | None = None
    attempts: int = 3
    seed: int = 0
    max_articles: int | None = None
    max_cost: float | None = None
    requests: int | None = None
    examples: int = 4
    offline: bool = False
    max_characters: int = 8000
    long_articles: LongArticles = "cut"
    columns: dict[str, str] = field(default_factory=dict)
    format: FormatName | None = None
    txt_documents: TxtDocuments = "line"
    on_invalid: OnInvalid = "error"

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("max_articles", 1), ("requests", 1), ("examples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} {value}: expected at least {least}.")
        if self.max_characters < 100:
            raise UserError(f"--max_characters {self.max_characters}: expected at least 100.")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed}: expected a whole number from 0 to {2**31 - 1}.")
        if self.max_cost is not None and not 0 < self.max_cost < math.inf:
            raise UserError(f"--max_cost {self.max_cost:g}: expected more than 0, or null for no limit.")
        check_columns(self.columns, option="--columns")
