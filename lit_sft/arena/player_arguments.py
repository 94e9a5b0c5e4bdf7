"""Reads `--models`: the models of the arena and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_modules.errors import UserError
from lit_sft.credentials import without_credentials
from lit_sft.printable import printable
from lit_sft.runs.sources import ModelSource, find_source, split_name

_ADDRESS = re.compile(r"(?:(?P<model>[^@]+)@)?(?P<address>https?://.+)", re.IGNORECASE)

_EXAMPLE = "tuned=runs/quickstart/version_0 base=gpt2"

_LONGEST_NAME = 200


@dataclass(frozen=True)
class PlayerArgument:
    """A model as the user named it.

    Attributes:
        name: On the page and in votes; empty if none was given.
        place: A run, a checkpoint, a model folder, an adapter, a hub name, or the address of an endpoint.
        model: The model's name at the endpoint; empty if none was given, or for a local model.
    """

    name: str
    place: str
    model: str = ""

    @property
    def is_endpoint(self) -> bool:
        """Whether it is behind an endpoint."""
        return _ADDRESS.fullmatch(self.place) is not None


@dataclass(frozen=True)
class FoundPlayer:
    """A model that exists, as far as can be told without loading or asking it.

    Attributes:
        name: On the page and in votes.
        about: What and where it is, without credentials.
        argument: As the user named it.
        source: Of a local model; None behind an endpoint.
    """

    name: str
    about: str
    argument: PlayerArgument
    source: ModelSource | None


def read_player(text: str) -> PlayerArgument:
    """Read `NAME=MODEL`, or a model without a name.

    Raises:
        UserError: If the name or the model is missing, or the name is too long.
    """
    name, place = split_name(text, "--models ")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"--models {name[:20]}...: expected a name of at most {_LONGEST_NAME} characters.")
    if found := _ADDRESS.fullmatch(place):
        return PlayerArgument(printable(name), found["address"], found["model"] or "")
    return PlayerArgument(printable(name), place)


def find_players(given: Sequence[str], root: str = "runs") -> list[FoundPlayer]:
    """Find the models. Those without a name are called by their run, folder, hub name or host.

    Args:
        given: `NAME=MODEL`, or models; empty for the newest run.
        root: Folder of all runs.

    Raises:
        UserError: If one is not there, or two have one name.
    """
    if not given:
        source = find_source(None, root)
        return [FoundPlayer(source.name, source.about, PlayerArgument("", source.path), source)]
    players: list[FoundPlayer] = []
    for text in given:
        player = _found(read_player(text), root)
        if any(player.name.casefold() == other.name.casefold() for other in players):
            raise UserError(
                f"--models {without_credentials(text)}: a second model named {player.name}; give each a name of its "
                f"own, such as {_EXAMPLE}."
            )
        players.append(player)
    return players


def _found(argument: PlayerArgument, root: str) -> FoundPlayer:
    if not argument.is_endpoint:
        source = find_source(argument.place, root)
        return FoundPlayer(argument.name or printable(source.name), source.about, argument, source)
    place = without_credentials(argument.place)
    host = place.partition("://")[2].partition("/")[0].rpartition("@")[2]
    about = f"{argument.model} at {place}" if argument.model else place
    return FoundPlayer(argument.name or argument.model or host, about, argument, None)
