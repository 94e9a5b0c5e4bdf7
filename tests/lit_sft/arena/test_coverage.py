"""Intervals of differences cover the truth in 92 to 98 % of simulations, in many worlds; 100,000 votes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lit_sft.arena.ratings_report import rate_votes
from lit_sft.votes import Side, Vote, write_votes
from tests.lit_sft.arena.make_votes import vote
from tests.lit_sft.arena.simulated import World, coverage

TIMES = 500

SIX = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0)
TASTES = {"taste_of_voters": 0.15, "taste_of_prompts": 0.15, "side_of_voters": 0.1}
WORLDS = {
    "independent votes": World(votes=400),
    "voters and prompts with tastes": World(votes=600, voters=25, prompts=80, balance=0.7, **TASTES),  # type: ignore[arg-type]
    "six voters": World(votes=300, voters=6, prompts=50, balance=0.5, **TASTES),  # type: ignore[arg-type]
    "very uneven": World(votes=800, voters=40, prompts=150, **TASTES),  # type: ignore[arg-type]
    "one judge": World(votes=400, voters=1, prompts=100, taste_of_prompts=0.3, position=1.0, balance=0.5),
    "six models": World(ratings=SIX, votes=1500, voters=60, prompts=400, balance=0.8, **TASTES),  # type: ignore[arg-type]
    "few votes": World(votes=150, voters=10, prompts=40, balance=0.3),
    "few ties": World(votes=400, log_v=-4.0, taste_of_voters=0.1, balance=0.5),
    "many ties": World(votes=400, log_v=1.5, taste_of_voters=0.1, balance=0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_truth(name: str) -> None:
    pairs, position, length = coverage(WORLDS[name], TIMES)
    print(f"\n{name}: differences {pairs:.1%}, position {position:.1%}, length {length:.1%}")
    assert 0.92 <= pairs <= 0.98
    assert all(0.92 <= share <= 0.985 for share in (position, length))  # effects are a little wide with few votes


@pytest.mark.slow
def test_a_hundred_thousand_votes_are_rated(tmp_path: Path) -> None:
    world = World(ratings=tuple(number / 10 for number in range(20)), votes=100_000, voters=300, prompts=5000)
    drawn = world.draw(0)
    columns = zip(drawn.left, drawn.right, drawn.outcome, drawn.voter, drawn.prompt, strict=True)

    def votes() -> list[Vote]:
        base = vote()
        return [
            replace(
                vote(id=str(number), prompt=f"prompt {prompt}", voter=f"voter {voter}"),
                winner={1.0: "left", 0.0: "right"}.get(outcome, "tie"),
                left=Side(f"m{left}", base.left.answer * 10, "x"),
                right=Side(f"m{right}", base.right.answer * 10, "x"),
            )
            for number, (left, right, outcome, voter, prompt) in enumerate(columns)
        ]

    write_votes(tmp_path / "votes.jsonl", votes())
    found = rate_votes([tmp_path / "votes.jsonl"], tmp_path / "out").ratings["people"]
    assert found.num_votes == 100_000
    order = [int(player.player[1:]) for player in found.players]
    assert order == sorted(order, reverse=True)
