"""What each tab of a browser shows: its conversations side by side, and its blind comparison."""

from __future__ import annotations

import random
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_modules.errors import UserError
from lit_sft.arena.answers import Answer
from lit_sft.arena.battles import Battle, Draw, VoteFile, begin_battle
from lit_sft.arena.players import Player
from lit_sft.models.fitted_prompt import turns_of
from lit_sft.models.generation import GenerationSettings

_MOST_VISITS = 1000
"""Tabs that are remembered; the one that was used least recently is forgotten first."""

MOST_SEEDS = 2**31
"""Seeds are below this."""


Part = Literal["open", "blind"]
"""Of the page: conversations side by side, or blind comparisons."""


@dataclass(frozen=True)
class Exchange:
    """A message and the answer to it."""

    message: str
    answer: Answer


@dataclass
class Column:
    """A conversation with one model.

    Attributes:
        player: The model.
        exchanges: What was said, oldest first.
    """

    player: Player
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether no answer is being written."""
        return not self.exchanges or self.exchanges[-1].answer.is_finished

    def ask(self, message: str, settings: GenerationSettings, seed: int, system: str) -> None:
        """Send a message. Those before it that got no answer because the model failed are not part of the prompt."""
        written = [(each.message, each.answer.written) for each in self.exchanges]
        said = [(asked, answer.text) for asked, answer in written if answer.state != "failed"]
        self.exchanges.append(Exchange(message, self.player.begin(turns_of(system, said, message), settings, seed)))

    def stop(self) -> None:
        """Stop the answer that is being written."""
        if self.exchanges:
            self.exchanges[-1].answer.stop()


@dataclass
class Visit:
    """What one tab shows.

    Attributes:
        id: Known to this tab only; a reloaded tab finds its conversations by it.
        columns: One for each model.
        battle: The latest blind comparison.
        part: The part of the page that was used last.
    """

    id: str
    columns: list[Column]
    battle: Battle | None = None
    part: Part = "open"

    @property
    def answers(self) -> list[Answer]:
        """Those that may be being written."""
        latest = [column.exchanges[-1].answer for column in self.columns if column.exchanges]
        return [*latest, *(self.battle.answers if self.battle else ())]

    def stop(self) -> None:
        """Stop all answers."""
        for answer in self.answers:
            answer.stop()


class Arena:
    """Everything behind the page. Thread-safe.

    Args:
        players: The models.
        settings: How answers are sampled, unless a message says otherwise.
        votes: Where votes are written.
        seed: Of the sampling; answers that are made again get the following ones. None: a random one each time.
        system: The system message of blind comparisons.
        source: Draws pairs, sides and seeds.
    """

    def __init__(
        self,
        players: Sequence[Player],
        settings: GenerationSettings,
        votes: VoteFile,
        *,
        seed: int | None = None,
        system: str = "",
        source: random.Random | None = None,
    ) -> None:
        self.players, self.settings, self.votes, self.system = list(players), settings, votes, system
        self._source = source or random.SystemRandom()
        self._seed = seed
        self._draw = Draw(self.players, self._source) if len(self.players) > 1 else None
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._known: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.RLock()

    def open(self, session: str, earlier: str = "") -> Visit:
        """A tab was loaded.

        Args:
            session: Identifies the loaded page; a new one each time.
            earlier: The id of the visit of this tab before it was reloaded; empty if there was none. Its conversations
                are copied: a tab that the browser duplicated goes its own way.
        """
        with self._lock:
            if session in self._visits and self._visits[session].answers:
                return self._visits[session]  # the user was faster than the page
            before = self._known.get(earlier)
            visit = Visit(secrets.token_urlsafe(16), [Column(player) for player in self.players])
            if before:
                columns = [Column(column.player, [*column.exchanges]) for column in before.columns]
                visit = Visit(visit.id, columns, before.battle, before.part)
            self._visits[session] = self._known[visit.id] = visit
            for kept in (self._visits, self._known):
                while len(kept) > _MOST_VISITS:
                    kept.popitem(last=False)
            return visit

    def visit(self, session: str) -> Visit:
        """The visit of a loaded page; a new one if it is not known, because the server was restarted."""
        with self._lock:
            if session not in self._visits:
                return self.open(session)
            self._visits.move_to_end(session)
            return self._visits[session]

    def close(self, session: str) -> None:
        """A tab was closed, is being reloaded, or has lost its connection: its answers are stopped.

        It may come back, as after the browser's back button, so its conversations are kept.
        """
        with self._lock:
            visit = self._visits.get(session)
        if visit:
            visit.stop()

    def ask(self, visit: Visit, message: str, settings: GenerationSettings, system: str = "") -> None:
        """Send a message to all models.

        Raises:
            UserError: If it is empty, or an answer is still being written.
        """
        with self._lock:
            _check_message(message)
            if not all(column.is_finished for column in visit.columns):
                raise UserError("an answer is still being written; wait for it, or stop it.")
            seed, visit.part = self._next_seed(0), "open"
            for column in visit.columns:
                column.ask(message, settings, seed, system)

    def ask_again(self, visit: Visit, number: int, settings: GenerationSettings, system: str = "") -> None:
        """Have one model answer its last message again, with another seed; without effect if there is none."""
        with self._lock:
            column = visit.columns[number]
            if not column.exchanges or not column.is_finished:
                return
            last = column.exchanges.pop()
            column.ask(last.message, settings, self._next_seed(last.answer.seed + 1), system)

    def begin_battle(self, visit: Visit, message: str) -> None:
        """Have two models answer a message that nobody can name. An earlier comparison without a vote is dropped.

        Raises:
            UserError: If the message is empty, or an answer is still being written.
        """
        assert self._draw is not None, "one model cannot be compared"
        with self._lock:
            _check_message(message)
            if visit.battle and not visit.battle.is_finished:
                raise UserError("an answer is still being written; wait for it, or stop it.")
            seed, visit.part = self._next_seed(0), "blind"
            visit.battle = begin_battle(message, self._draw.next(), self.settings, (seed, seed), self.system)

    def repeat_battle(self, visit: Visit) -> None:
        """Have both models of a comparison answer again, with other seeds; without effect after the vote."""
        with self._lock:
            battle = visit.battle
            if battle is None or not battle.is_finished or battle.winner is not None:
                return
            left, right = (self._next_seed(answer.seed + 1) for answer in battle.answers)
            visit.battle = begin_battle(battle.prompt, battle.players, self.settings, (left, right), battle.system)

    def reset(self, visit: Visit) -> None:
        """Forget the conversations side by side."""
        with self._lock:
            for column in visit.columns:
                column.stop()
            visit.columns = [Column(player) for player in self.players]

    def end(self) -> None:
        """Stop everything."""
        for player in self.players:
            player.close()

    def _next_seed(self, following: int) -> int:
        if self._seed is None:
            return self._source.randrange(MOST_SEEDS)
        return max(self._seed, following) % MOST_SEEDS


def _check_message(message: str) -> None:
    if not message.strip():
        raise UserError("the message is empty; write something first.")
