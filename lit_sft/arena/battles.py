"""Blind comparisons: two models that nobody can name answer the same message, and the vote reveals them."""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from data_modules.errors import UserError
from lit_sft.arena.answers import Answer, State
from lit_sft.arena.players import Player
from lit_sft.arena.vote_count import VoteCount
from lit_sft.files import digest
from lit_sft.models.fitted_prompt import turns_of
from lit_sft.models.generation import GenerationSettings
from lit_sft.output_files import check_folder
from lit_sft.votes import Ending, Message, Side, Vote, Voter, Winner, append_vote, now, read_votes

_ENDINGS: dict[State, Ending] = {"done": "complete", "cut": "cut", "stopped": "stopped"}
"""How an answer that is voted on ended, by its state."""


class Draw:
    """Draws which two models meet, and which of them is on the left.

    Every pair is equally likely. The more often a model of a pair was on the left, the likelier is the other: sides are
    balanced sooner than by coins (Wei's urn), and nobody can predict them.

    Args:
        players: At least two.
        source: Of random numbers.
    """

    def __init__(self, players: Sequence[Player], source: random.Random | None = None) -> None:
        self._pairs = list(combinations(players, 2))
        self._source = source or random.SystemRandom()
        self._num_left: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def next(self) -> tuple[Player, Player]:
        """The models on the left and on the right."""
        with self._lock:
            one, other = self._source.choice(self._pairs)
            before, after = self._num_left[one.name, other.name], self._num_left[other.name, one.name]
            if self._source.random() * (before + after + 2) >= after + 1:
                one, other = other, one
            self._num_left[one.name, other.name] += 1
            return one, other


@dataclass
class Battle:
    """Two answers to one message.

    Attributes:
        prompt: The message.
        system: The system message; empty for none.
        players: The models on the left and on the right.
        answers: Their answers.
        winner: The vote; None before it.
        id: Identifies it in votes.
    """

    prompt: str
    system: str
    players: tuple[Player, Player]
    answers: tuple[Answer, Answer]
    winner: Winner | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def is_finished(self) -> bool:
        """Whether both answers are."""
        return all(answer.is_finished for answer in self.answers)

    @property
    def can_be_voted_on(self) -> bool:
        """Whether there are two answers, and no vote yet."""
        has_failed = any(answer.written.state == "failed" for answer in self.answers)
        return self.is_finished and not has_failed and self.winner is None


def begin_battle(
    prompt: str, players: tuple[Player, Player], settings: GenerationSettings, seeds: tuple[int, int], system: str
) -> Battle:
    """Let two models answer a message, the left one with the first seed."""
    turns = turns_of(system, [], prompt)
    left, right = (player.begin(turns, settings, seed) for player, seed in zip(players, seeds, strict=True))
    return Battle(prompt, system.strip(), players, (left, right))


class VoteFile:
    """A file of votes that grows. Thread-safe; other processes may write to it too.

    Args:
        path: The file; it and its folder are created with the first vote.

    Raises:
        UserError: If it cannot be written, or is not a file of votes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._place = path.absolute()  # the working folder may change
        self._count = VoteCount(self._place)
        if not path.exists():
            check_folder("--votes", path.parent)
            return
        try:
            path.open("ab").close()
        except OSError as error:
            raise UserError(f"--votes {path}: cannot be written ({error.strerror}); choose another file.") from None
        for _ in read_votes(path, lambda message: None):
            pass  # all of it is read, so that anything but a vote is found now
        self._count.now()

    def count(self) -> tuple[int, int]:
        """The votes in it now, and how many were in it before and no longer are.

        Raises:
            OSError: If it cannot be read.
        """
        return self._count.now()

    def add(self, battle: Battle, winner: Winner, voter: str) -> bool:
        """Write a vote to the disk. The battle remembers it.

        Args:
            battle: What was voted on.
            winner: What was preferred.
            voter: Tells voters apart.

        Returns:
            False if there was a vote before, or an answer is missing; nothing is written then.

        Raises:
            OSError: If it cannot be written; the battle has no vote then.
        """
        if not battle.can_be_voted_on:
            return False
        vote = _vote(battle, winner, voter)
        with self._lock:
            if battle.winner is not None:
                return False
            self._place.parent.mkdir(parents=True, exist_ok=True)
            append_vote(self._place, vote)
            battle.winner = winner
            return True


def _vote(battle: Battle, winner: Winner, voter: str) -> Vote:
    system = [Message("system", battle.system)] if battle.system else []
    left, right = (
        Side(
            player.name,
            answer.written.text,
            player.digest(),
            _sampling(answer.settings),
            answer.seed,
            _ENDINGS[answer.written.state],
        )
        for player, answer in zip(battle.players, battle.answers, strict=True)
    )
    return Vote(
        id=digest([battle.id, voter]),
        time=now(),
        voter=Voter("person", voter),
        winner=winner,
        prompt=(*system, Message("user", battle.prompt)),
        left=left,
        right=right,
        is_blind=True,
    )


def _sampling(settings: GenerationSettings) -> dict[str, float]:
    return {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }
