"""The arena's command line. The page itself is tested by `make test-arena`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_sft.__main__ import main
from lit_sft.arena import arena_command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "--temperature -1: expected at least 0."),
        (["--temperature", "2.1"], "--temperature 2.1: expected 0 to 2."),
        (["--port", "70000"], "--port 70000: expected 0 to 65535."),
        (["--port", "-1"], "--port -1: expected 0 to 65535."),
        (["--seed", "-1"], "--seed -1: expected 0 to 2147483647."),
        (["--blind"], "--blind: there is one model; expected at least two, as in --models a=RUN b=FOLDER."),
        (
            ["--keys", "b=KEY"],
            "--keys b: expected NAME=VARIABLE with the name of a model behind an endpoint; endpoints: a.",
        ),
        (
            ["--models", "c=http://127.0.0.1:9/v1", "--keys", "a=KEY"],
            "--keys a: expected NAME=VARIABLE with the name of a model behind an endpoint; endpoints: c.",
        ),
        (
            ["--models", "c=http://127.0.0.1:9/v1", "--keys", "c=NO_SUCH_KEY"],
            "--keys c: the environment variable NO_SUCH_KEY is empty; set it to the endpoint's key.",
        ),
        (
            ["--models", "c=http://user:secret@127.0.0.1:9/v1", "--keys", "c=KEY"],
            "--keys c: the address of c has a user or password, which is sent instead of a key; leave out one",
        ),
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others can reach this address, so the page needs a password; set"),
        (["--modls", "a=b"], "--modls: no such option; did you mean --models?"),
    ],
)
def test_mistakes_are_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arena", *([] if "--models" in arguments else ["--models", "a=http://x"]), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"lit_sft arena: {message}")


def test_the_password_of_a_page_that_others_reach_is_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena_command, "find_spec", lambda name: None)
    for password, problem in (("x", "it has 1 character; expected at least 16"), ("x" * 16, "gradio is not installed")):
        monkeypatch.setenv(arena_command.PASSWORD, password)
        assert main(["arena", "--models", "a=http://x", "--host", "0.0.0.0"]) == 2
        assert problem in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_command, "find_spec", lambda name: None)
    assert main(["arena", "--models", "a=http://x"]) == 2
    assert capsys.readouterr().err == "lit_sft arena: gradio is not installed; `pip install 'lit_sft[arena]'`.\n"


def test_a_model_that_cannot_be_opened_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write: Callable[..., str]
) -> None:
    monkeypatch.setattr(arena_command, "find_spec", lambda name: object())
    votes = ["--votes", str(tmp_path / "votes.jsonl")]
    assert main(["arena", "--models", f"a={tmp_path}", *votes]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lit_sft arena: {tmp_path}: this folder contains no model")
    (tmp_path / "config.json").write_text("{}")
    assert main(["arena", "--models", f"a={tmp_path}", *votes]) == 2
    assert "lit_sft arena: --models a: " in capsys.readouterr().err
    assert main(["arena", "--models", "a=http://x", "--votes", write("rows.jsonl", [{"a": 1}])]) == 2
    assert "rows.jsonl:1" in capsys.readouterr().err
    assert main(["arena", "--models", "a=http://x", *votes, "--suite", "configs/evaluate/quickstrt.yaml"]) == 2
    assert "did you mean configs/evaluate/quickstart.yaml?" in capsys.readouterr().err
