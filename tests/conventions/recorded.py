"""Ids and labels of a few rows as the trainers themselves made them, for tests that install nobody.

`python -m tests.conventions.recorded` runs the trainers on these rows and writes `recorded.json`.
"""

from __future__ import annotations

import json
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.conventions.jobs import HERE, Job, jobs, results_of
from tests.conventions.rows import CHATML, EXAMPLES, Row

FILE = HERE / "recorded.json"
TOKENIZER = EXAMPLES / "tokenizer"
SYSTEM = {"role": "system", "content": "Answer briefly."}


def rows() -> list[Row]:
    """Rows written for this file: one and several answers, some of them long."""
    contents = (
        ("Where is the river?", "Behind the mill."),
        ("Who lives here?", "The baker and her cat.", "And who sings?", "The miller sings all day."),
        ("Tell me a very long story about the mill.", "Once upon a time the mill stood still. " * 4),
        ("One?", "Yes.", "Two?", "No.", "Three?", "The old bridge carries three carts in the morning."),
    )
    roles = ("user", "assistant") * 3
    return [
        {"messages": [SYSTEM, *({"role": r, "content": c} for r, c in zip(roles, row, strict=False))]}
        for row in contents
    ]


def chosen() -> list[Job]:
    """Jobs that the bundled tokenizer and a template of ours allow."""
    others = ("phi3", "qwen3", "qwen2_5.jinja")  # templates that need other tokens, or a default system message
    fit = [job for job in jobs() if not any(name in job.name for name in others)]
    return [_with_template(job) for job in fit if job.settings.get("template", "") is not None]


def _with_template(job: Job) -> Job:
    own = job.settings.get("chat_template")
    return Job(**{**vars(job), "settings": {**job.settings, "chat_template": CHATML}}) if own == "" else job


def record() -> None:
    """Run all trainers."""
    from tests.conventions.environments import python_of

    found: list[dict[str, Any]] = []
    for trainer, group in groupby(chosen(), key=lambda job: job.trainer):
        with tempfile.TemporaryDirectory() as folder:
            given = list(group)
            for job, theirs in zip(
                given, results_of(given, python_of(trainer), TOKENIZER, rows(), Path(folder)), strict=True
            ):
                labelled = [theirs.get(index) for index in range(len(rows()))]
                found.append({"job": job.name, "rows": labelled})
    FILE.write_text("[\n" + ",\n".join(json.dumps(item) for item in found) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    record()
