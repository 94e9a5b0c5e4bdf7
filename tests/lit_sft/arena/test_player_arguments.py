"""`--models`."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_modules.errors import UserError
from lit_sft.arena.player_arguments import PlayerArgument, find_players, read_player


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tuned=runs/quickstart/version_0", PlayerArgument("tuned", "runs/quickstart/version_0")),
        ("gpt2", PlayerArgument("", "gpt2")),
        ("runs/a/epoch=0-step=9.ckpt", PlayerArgument("", "runs/a/epoch=0-step=9.ckpt")),
        ("c=http://127.0.0.1:8080/v1", PlayerArgument("c", "http://127.0.0.1:8080/v1")),
        ("http://user:pw@host:80/v1?key=x", PlayerArgument("", "http://user:pw@host:80/v1?key=x")),
        ("big=org/model@https://host/v1", PlayerArgument("big", "https://host/v1", "org/model")),
        ("m@https://host/v1", PlayerArgument("", "https://host/v1", "m")),
    ],
)
def test_models_are_read_with_their_names(text: str, expected: PlayerArgument) -> None:
    assert read_player(text) == expected
    assert expected.is_endpoint is ("//" in text)


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert read_player("a=~/model").place == "/home/anna/model"


def test_models_without_a_name_are_called_by_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("{}")
    given = [str(tmp_path / "tiny"), "http://host:80/v1", "org/model@http://other/v1", "mine=http://host:80/v1"]
    found = find_players(given)
    assert [player.name for player in found] == ["tiny", "host:80", "org/model", "mine"]
    assert [player.source is None for player in found] == [False, True, True, True]
    assert found[2].about == "org/model at http://other/v1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["=gpt2"], "--models =gpt2: expected NAME=MODEL, such as tuned=runs/quickstart/version_0 base=gpt2."),
        (["a="], "--models a=: expected NAME=MODEL"),
        (["a" * 201 + "=gpt2"], "--models aaaaaaaaaaaaaaaaaaaa...: expected a name of at most 200 characters."),
        (["a=http://x", "A=http://y"], "--models A=http://y: a second model named A; give each a name of its own"),
        (["a=runs/none.ckpt"], "runs/none.ckpt: no such checkpoint."),
    ],
)
def test_mistakes_in_models_are_explained(given: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        find_players(given)
    assert message in str(error.value)


def test_credentials_are_neither_shown_nor_part_of_a_name() -> None:
    (player,) = find_players(["http://user:secret@host/v1?key=secret"])
    assert "secret" not in player.about + player.name
    with pytest.raises(UserError) as error:
        find_players(["http://user:secret@host/v1"] * 2)
    assert "secret" not in str(error.value)
