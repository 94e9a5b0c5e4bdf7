"""`python -m lit_sft arena --models a=RUN b=FOLDER c=http://...`: talk to models side by side, and vote blind.

Opens a page on this machine. With one model it is a chat; with several, all get the same messages, and blind votes on
pairs of answers go to a file that `ratings` reads. Checkpoints of one run can be compared too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_modules.errors import UserError
from data_modules.rendering.templates import TemplateName
from data_modules.wording import counted
from lit_sft.arena.battles import VoteFile
from lit_sft.arena.page_server import LOOPBACK, serve_page
from lit_sft.arena.player_arguments import FoundPlayer, find_players
from lit_sft.arena.players import EndpointPlayer, LocalPlayer, Player
from lit_sft.arena.suite_prompts import read_prompts
from lit_sft.arena.visits import MOST_SEEDS, Arena
from lit_sft.console import print_error_line, print_line, quieten
from lit_sft.credentials import SHORTEST_PASSWORD, read_address
from lit_sft.endpoint.paid_model import read_key
from lit_sft.endpoint.streaming import StreamingEndpoint
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.settings.arguments import Arguments
from lit_sft.settings.model_options import add_loading_options, add_sampling_options

PASSWORD = "LIT_SFT_ARENA_PASSWORD"
"""The environment variable with the password of a page that others can reach."""

_HOTTEST = 2
"""The highest temperature of the page, and of OpenAI-compatible servers."""


def main(argv: list[str]) -> int:
    """Open models, serve the page, and wait for Ctrl-C.

    Args:
        argv: `arena` and its arguments.

    Raises:
        UserError: If an argument is wrong, a model cannot be opened, or something is not installed.
    """
    options = _parser().parse_args(argv[1:])
    try:
        settings = GenerationSettings(options.max_new_tokens, options.temperature, options.top_p)
    except UserError as error:
        raise UserError(f"--{error}") from None
    if options.seed is not None and not 0 <= options.seed < MOST_SEEDS:
        raise UserError(f"--seed {options.seed}: expected 0 to {MOST_SEEDS - 1}.")
    if settings.temperature > _HOTTEST:
        raise UserError(f"--temperature {settings.temperature:g}: expected 0 to {_HOTTEST}.")
    if not 0 <= options.port < 2**16:
        raise UserError(f"--port {options.port}: expected 0 to {2**16 - 1}.")
    found = find_players(options.models or [], options.root)
    keys = _read_keys(options.keys, found)
    if options.blind and len(found) < 2:
        raise UserError("--blind: there is one model; expected at least two, as in --models a=RUN b=FOLDER.")
    password = _password(options.host)
    if find_spec("gradio") is None:
        raise UserError("gradio is not installed; `pip install 'lit_sft[arena]'`.")
    quieten("arena")
    prompts = read_prompts(options.suite) if options.suite else []
    votes = VoteFile(Path(options.votes))
    players = open_players(found, keys, template=options.template, device=options.device)
    arena = Arena(players, settings, votes, seed=options.seed, system=options.system)
    try:
        page = _page(arena, found, prompts, is_blind=options.blind)
        address = serve_page(page, host=options.host, port=options.port, password=password)
        print_line(f"arena: {address}")
        if len(players) > 1:
            print_line(f"arena: votes go to {votes.path}; `python -m lit_sft ratings {votes.path}` rates the models")
        if password:
            print_error_line("arena: visitors must enter the password; nothing is encrypted")
        print_error_line("arena: Ctrl-C ends it")
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    finally:
        arena.end()
    return 0


def open_players(
    found: Sequence[FoundPlayer], keys: dict[str, str], *, template: TemplateName | None, device: str
) -> list[Player]:
    """Open all models, one after the other, and print what they are.

    Args:
        found: The models.
        keys: Keys of endpoints by the name of the player.
        template: Prompt template of local models. None: the one that each was trained with, if recorded.
        device: Of local models.

    Raises:
        UserError: If one cannot be opened.
    """
    for each in found:
        if each.source is not None:
            with _naming(each):
                each.source.check()
    players: list[Player] = []
    for each in found:
        if each.source is None:
            where = each.argument
            endpoint = StreamingEndpoint(where.place, where.model or None, key=keys.get(each.name, ""))
            players.append(EndpointPlayer(each.name, endpoint))
        else:
            load = partial(each.source.load, each.name, template=template, device=device)
            players.append(LocalPlayer(each.name, load))
    for each in found:
        print_error_line(f"arena: {each.name} is {each.about}")
        if each.source is not None and each.source.is_of_text:
            print_error_line(f"arena: {each.name} was trained on plain text, not on conversations; it may not answer")
    for player, each in zip(players, found, strict=True):
        if isinstance(player, LocalPlayer):
            print_error_line(f"arena: {each.name}: {_opened(player.prepare(), each)}")
    return players


def _opened(loading: Future[LoadedModel], named: FoundPlayer) -> str:
    """Wait until a model is loaded; returns what it is."""
    with _naming(named):
        return loading.result().about()


@contextlib.contextmanager
def _naming(player: FoundPlayer) -> Iterator[None]:
    """Say of which model an error is.

    Raises:
        UserError: The same error.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"--models {player.name}: {error}") from None


def _read_keys(given: Sequence[str], players: Sequence[FoundPlayer]) -> dict[str, str]:
    """Keys of endpoints by the name of the player, from the environment."""
    endpoints = {player.name: player.argument.place for player in players if player.source is None}
    keys = {}
    for text in given:
        name, _, variable = text.partition("=")
        if name not in endpoints or not variable:
            known = f"; endpoints: {', '.join(endpoints)}" if endpoints else ""
            raise UserError(
                f"--keys {name}: expected NAME=VARIABLE with the name of a model behind an endpoint{known}."
            )
        if read_address(endpoints[name], setting="--models").authorization:
            raise UserError(
                f"--keys {name}: the address of {name} has a user or password, which is sent instead of a key; "
                "leave out one of the two."
            )
        keys[name] = read_key(variable, f"--keys {name}")
    return keys


def _password(host: str) -> str:
    """The password of a page that others can reach; empty for one that only this machine reaches."""
    if host in LOOPBACK:
        return ""
    password = os.environ.get(PASSWORD, "")
    if not password:
        raise UserError(
            f"--host {host}: others can reach this address, so the page needs a password; set the environment variable "
            f"{PASSWORD} to one, or use 127.0.0.1 and a tunnel (`ssh -L`)."
        )
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(
            f"{PASSWORD}: it has {counted(len(password), 'character')}; expected at least {SHORTEST_PASSWORD}, "
            "since anybody who reaches the page can guess. `openssl rand -hex 16` makes one."
        )
    return password


def _page(arena: Arena, found: Sequence[FoundPlayer], prompts: Sequence[str], *, is_blind: bool) -> Any:
    from lit_sft.arena.page import make_page

    if len(found) == 1:
        return make_page(arena, title="Chat", about=f"{found[0].name}: {found[0].about}", prompts=prompts)
    if is_blind:
        about = "Two of several models answer. Vote for the better answer; then you see which they were."
        return make_page(arena, title="Arena", about=about, prompts=prompts, is_blind=True)
    about = " · ".join(f"{each.name}: {each.about}" for each in found)
    return make_page(arena, title="Arena", about=about, prompts=prompts)


def _parser() -> Arguments:
    parser = Arguments("arena", __doc__, example="--models tuned=runs/quickstart/version_0 base=gpt2")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME=MODEL",
        help="a run, a checkpoint, a model folder, an adapter, a hub name, or [MODEL@]ADDRESS of an OpenAI-compatible "
        "endpoint; default: the newest run",
    )
    parser.add_argument("--votes", default="runs/arena/votes.jsonl", help="where votes go (runs/arena/votes.jsonl)")
    parser.add_argument(
        "--blind", action="store_true", help="only blind votes, for voters who should not see names first"
    )
    parser.add_argument(
        "--suite", help="a suite of `evaluate`, such as configs/evaluate/quickstart.yaml, whose prompts to offer"
    )
    add_sampling_options(parser)
    parser.add_argument("--seed", type=int, help="the same seed and messages give the same answers; default: random")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=[],
        metavar="NAME=VARIABLE",
        help="the environment variable with the key of a model behind an endpoint; without one, the key is EMPTY",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help=f"address to listen on; others than this machine's need {PASSWORD}"
    )
    parser.add_argument("--port", type=int, default=7860, help="port of the page (7860); 0 takes one that is free")
    add_loading_options(parser, template="prompt template of local models")
    return parser
