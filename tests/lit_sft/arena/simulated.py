"""Simulated votes that follow the model exactly, although voters and prompts have preferences of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from lit_sft.arena.bradley_terry import EFFECTS, Effect, fit
from lit_sft.arena.clustered import clusters_of, estimates
from lit_sft.arena.comparisons import Comparisons


@dataclass(frozen=True)
class World:
    """Where votes come from.

    Tastes are shares of the variance of a latent normal variable, one per vote. Its quantile decides the outcome, so
    that votes of one voter depend on each other while each one by itself has the probabilities of the model.
    """

    ratings: tuple[float, ...] = (-0.6, 0.0, 0.6)
    votes: int = 300
    voters: int = 20
    prompts: int = 60
    position: float = 0.3
    length: float = 0.2
    log_v: float = -0.7
    taste_of_voters: float = 0.0
    taste_of_prompts: float = 0.0
    side_of_voters: float = 0.0
    balance: float = 1.0
    """0: all pairs, voters and prompts are equally frequent; 1: the k-th has a weight of 1/k."""

    def draw(self, seed: int) -> Comparisons:
        random, size = np.random.default_rng(seed), self.votes
        pairs = [(i, j) for i in range(len(self.ratings)) for j in range(i)]
        left, right = np.array(pairs)[self._unevenly(random, len(pairs))].T
        swapped = random.random(size) < 0.5
        left, right = np.where(swapped, right, left), np.where(swapped, left, right)
        voter, prompt = self._unevenly(random, self.voters), self._unevenly(random, self.prompts)
        length = random.normal(0, 1.5, size)
        ratings = np.array(self.ratings)
        u = ratings[left] - ratings[right] + self.position + self.length * length
        shares = np.exp(np.stack([u / 2, np.full(size, self.log_v), -u / 2]))
        shares /= shares.sum(axis=0)
        parts = [
            (self.taste_of_voters, self._taste(random, self.voters, voter, left, right)),
            (self.taste_of_prompts, self._taste(random, self.prompts, prompt, left, right)),
            (self.side_of_voters, random.normal(size=self.voters)[voter]),
        ]
        rest = 1 - sum(share for share, _ in parts)
        latent = sum((np.sqrt(share) * part for share, part in parts), np.sqrt(rest) * random.normal(size=size))
        quantile = norm.cdf(-latent)
        outcome = np.where(quantile < shares[0], 1.0, np.where(quantile < shares[0] + shares[1], 0.5, 0.0))
        names = tuple(f"m{number}" for number in range(len(ratings)))
        return Comparisons(names, left, right, outcome, length, voter, prompt, np.zeros(size, dtype=bool))

    def _unevenly(self, random: np.random.Generator, num: int) -> np.ndarray:
        weights = 1 / np.arange(1, num + 1) ** self.balance
        return random.choice(num, self.votes, p=weights / weights.sum())

    def _taste(
        self, random: np.random.Generator, num: int, ids: np.ndarray, left: np.ndarray, right: np.ndarray
    ) -> np.ndarray:
        likes = random.normal(size=(num, len(self.ratings))) / np.sqrt(2)
        return likes[ids, left] - likes[ids, right]


def coverage(world: World, times: int, *, effects: tuple[Effect, ...] = EFFECTS, clustered: bool = True) -> list[float]:
    """Shares of simulations whose 95 % interval has the truth: of pairs of players, and of each effect."""
    ratings = np.array(world.ratings)
    pairs = [(i, j) for i in range(len(ratings)) for j in range(i)]
    truth = np.array([ratings[i] - ratings[j] for i, j in pairs] + [getattr(world, effect) for effect in effects])
    hits = []
    for seed in range(times):
        votes = world.draw(seed)
        found = fit(votes, effects=effects)
        own = found.rating_contrasts()
        contrasts = np.stack([*(own[i] - own[j] for i, j in pairs), *map(found.effect_contrast, effects)])
        clusters = clusters_of(votes) if clustered else [(np.arange(len(votes)), 1.0)]
        shown = estimates(found, contrasts, clusters, 0.95)
        hits.append([each.low <= true <= each.high for each, true in zip(shown, truth, strict=True)])
    shares = np.array(hits).mean(axis=0)
    return [float(shares[: len(pairs)].mean()), *map(float, shares[len(pairs) :])]
