from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import sample_generation
from callbacks.sample_generation import SampleGeneration, markdown_text
from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.models.answer_rows import reference
from lit_sft.models.generation import Generated, GenerationSettings, generate
from lit_sft.printable import excerpt

HOSTILE = "<img src=x onerror=alert(1)> | [bold]x[/bold] ![a](http://b) `c` \x1b[2J\x9b31m \u202e\r\nend"


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers everything with HTML, markup and escape sequences."""
    answer = Generated(HOSTILE, 5, ended=True)
    monkeypatch.setattr(sample_generation, "generate", lambda _, prompts, **__: [answer for _ in prompts])


def test_greedy_answers_equal_generate_one_by_one(fit: Callable[..., Any]) -> None:
    questions = ["Hi", "A much longer question, so that padding matters"]
    run = fit([SampleGeneration(questions, num_held_out=2, max_new_tokens=8)], lr=1e-2)
    rows = [row for row in run.rows("samples.jsonl") if row["step"] == 4]
    prompts = [
        run.data.encoder.encode(Conversation((Message(Role.USER, question),), "test"))[0].prompt_ids()
        for question in questions
    ] + [run.data.stores["val"][index].prompt_ids() for index in range(2)]
    for row, prompt in zip(rows, prompts, strict=True):
        (expected,) = generate(
            run.module.backbone,
            [prompt],
            tokenizer=run.data.tokenizer,
            end_token_id=run.data.end_token_id,
            settings=GenerationSettings(max_new_tokens=8),
        )
        assert (row["answer"], row["ended"]) == (expected.text, expected.ended)
        assert row["prompt"] == run.data.tokenizer.decode(prompt)


def test_prompts_are_rendered_by_the_template_and_references_shown(fit: Callable[..., Any]) -> None:
    run = fit([SampleGeneration(["Hi <|im_end|>"], num_held_out=1, max_new_tokens=2)])
    asked, held_out = run.rows("samples.jsonl")[:2]
    assert asked["prompt"] == "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert asked["reference"] is None
    example = run.data.stores["val"][0]
    assert held_out["origin"] == example.origin
    assert held_out["reference"] == reference(example, run.module.data.tokenizer, run.module.data.end_token_id)


def test_samples_are_taken_before_training_and_at_every_validation(fit: Callable[..., Any]) -> None:
    run = fit([SampleGeneration(["Hi"], num_held_out=0, max_new_tokens=2, temperatures=(0.0, 1.0))])
    rows = [(row["step"], row["temperature"]) for row in run.rows("samples.jsonl")]
    assert rows == [(0, 0.0), (0, 1.0), (2, 0.0), (2, 1.0), (4, 0.0), (4, 1.0)]


def test_the_same_seed_draws_the_same_answer_from_the_same_weights(fit: Callable[..., Any]) -> None:
    callback = [SampleGeneration(["Hi"], num_held_out=0, max_new_tokens=8, temperatures=(1.0,))]
    answers = [row["answer"] for row in fit(callback, lr=1e-30).rows("samples.jsonl")]
    assert len(set(answers)) == 1


def test_tensorboard_text_holds_no_html_and_no_escape_sequence(
    fit: Callable[..., Any], hostile: None, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit([SampleGeneration(["<b>Hi</b>"], num_held_out=1)], logger=TensorBoardLogger(tmp_path, name="tb"))
    events = EventAccumulator(str(tmp_path / "tb" / "version_0")).Reload().Tensors("samples/text_summary")
    assert [event.step for event in events] == [0, 2, 4]
    text = events[0].tensor_proto.string_val[0].decode()
    header, rule, *rows = text.split("\n")
    assert len(rows) == 2
    assert all(row.count("|") == 6 for row in (header, *rows)), rule
    assert not re.search(r"[<>`\[\]\\*\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "&#60;b&#62;Hi&#60;/b&#62;" in rows[0].replace("&#47;", "/")


def test_the_terminal_shows_markup_and_control_characters_as_text(
    fit: Callable[..., Any], hostile: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    fit([SampleGeneration(["Hi"], num_held_out=0)])
    printed = capsys.readouterr().out
    assert "[bold]x[/bold]" in printed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)


def test_answers_of_random_weights_are_shown_short_and_kept_whole(
    fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "900")
    answer = Generated("ab" * 80, 160, ended=False)
    monkeypatch.setattr(sample_generation, "generate", lambda _, prompts, **__: [answer for _ in prompts])
    run = fit([SampleGeneration(["Hi"], num_held_out=0)])
    before, *after = capsys.readouterr().out.split("answers at step")
    assert f"{'ab' * 30}… (+100 characters)" in before
    assert all("ab" * 80 in part for part in after)
    assert {row["answer"] for row in run.rows("samples.jsonl")} == {"ab" * 80}


def test_file_contains_the_unchanged_answer_as_one_safe_line(fit: Callable[..., Any], hostile: None) -> None:
    run = fit([SampleGeneration(["Hi"], num_held_out=0)])
    assert run.rows("samples.jsonl")[0]["answer"] == HOSTILE
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", (run.folder / "samples.jsonl").read_text(encoding="utf-8"))


def test_nothing_is_printed_when_print_table_is_false(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fit([SampleGeneration(["Hi"], num_held_out=0, max_new_tokens=2, print_table=False)])
    assert capsys.readouterr().out == ""


def test_visible_shortens_and_keeps_emoji_together() -> None:
    assert excerpt("abcdef", 4) == "abcd… (+2 characters)"
    assert excerpt("a\tb\nc\x1b\x7f", 99) == "a␉b↵c␛\\u007f"
    assert excerpt("👩\u200d🔬 你好", 99) == "👩\u200d🔬 你好"


def test_markdown_text_renders_back_to_the_text() -> None:
    import html

    assert html.unescape(markdown_text("a<b>|*_`[x](y)# 1.5, ok?")) == "a<b>|*_`[x](y)# 1.5, ok?"


def test_a_prompt_without_room_for_an_answer_is_refused_before_training(fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"prompts\[1\]: \d+ tokens leave no room for an answer: the model reads 512"):
        fit([SampleGeneration(["Hi", "x" * 600])])


def test_mode_and_random_state_are_restored(make_run: Callable[..., Any]) -> None:
    trainer, module, data = make_run([SampleGeneration(["Hi"], temperatures=(1.0,), max_new_tokens=3)], max_steps=1)
    trainer.fit(module, datamodule=data)
    callback = trainer.callbacks[0]
    module.backbone.train()
    module.backbone.get_submodule("transformer.h.0").eval()
    modes = [part.training for part in module.backbone.modules()]
    before = torch.get_rng_state()
    callback._show(trainer, module)
    assert [part.training for part in module.backbone.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{"temperatures": ()}, {"temperatures": (-1.0,)}, {"top_p": 0.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least one temperature"):
        SampleGeneration(**settings)
