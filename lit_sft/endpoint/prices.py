"""What replies cost, and a budget that no request may exceed."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from data_modules.errors import UserError
from lit_sft.endpoint.chat import NotSentError, Reply, Request
from lit_sft.endpoint.journal import Billed, Journal

_MILLION = 1_000_000

_FEW_TOKENS = 64
"""Tokens that a chat template may add to a request, such as a default system prompt."""
_TOKENS_PER_MESSAGE = 16


@dataclass(frozen=True)
class Prices:
    """Prices of tokens.

    Attributes:
        read: Price of a million input tokens; null: unknown.
        written: Price of a million output tokens; null: unknown.
        currency: Shown after amounts.
    """

    read: float | None = None
    written: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("read", "written"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"{name} {value:g}: expected at least 0, or null if the price is unknown.")

    @property
    def is_known(self) -> bool:
        """Whether both prices are known."""
        return self.read is not None and self.written is not None

    def cost(self, tokens_read: int, tokens_written: int) -> float | None:
        """What tokens cost; None if a price is unknown."""
        if self.read is None or self.written is None:
            return None
        return (tokens_read * self.read + tokens_written * self.written) / _MILLION


def most_tokens(request: Request) -> Billed:
    """The most tokens that a request can be billed for.

    A token stands for at least a byte, and chat templates add a few. The schema counts too: some servers write it into
    the prompt.
    """
    texts = [text for message in request.messages for text in message]
    if request.schema is not None:
        texts.append(repr(request.schema))
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return Billed(size + _TOKENS_PER_MESSAGE * len(request.messages) + _FEW_TOKENS, request.max_tokens)


class Budget:
    """Money that requests may cost in all, those that an earlier process paid for included. Thread-safe.

    Before a request, the most that it can cost is set aside; afterwards, what it did cost is counted. A request that
    does not fit waits until those under way have said what they cost.

    Args:
        most: The limit; None for none.
        currency: Of the limit.
    """

    def __init__(self, most: float | None = None, currency: str = "USD") -> None:
        self.most, self.currency = most, currency
        self.stopped = ""
        self._spent = self._set_aside = 0.0
        self._under_way = 0
        self._counted: set[str] = set()
        self._changed = threading.Condition()

    @property
    def spent(self) -> float:
        """Money spent."""
        return self._spent

    def count_earlier(self, what: str, amount: float) -> None:
        """Count money that earlier processes spent, once for each journal and model."""
        with self._changed:
            self._spent += 0.0 if what in self._counted else amount
            self._counted.add(what)

    def set_aside(self, amount: float) -> None:
        """Set aside the most that a request can cost; waits for requests under way if that may help.

        Raises:
            NotSentError: If it does not fit, or an earlier one did not.
        """
        if self.most is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: self.stopped or not self._under_way or self._fits(amount))
            if not self.stopped and not self._fits(amount):
                self._stop(amount)
            if self.stopped:
                raise NotSentError(f"not sent: {self.stopped}")
            self._set_aside, self._under_way = self._set_aside + amount, self._under_way + 1

    def settle(self, set_aside: float, cost: float) -> None:
        """Count what a request did cost, for which an amount was set aside."""
        if self.most is None:
            return
        with self._changed:
            self._under_way -= 1
            self._set_aside = self._set_aside - set_aside if self._under_way else 0.0  # no rounding errors add up
            self._spent += cost
            self._changed.notify_all()

    def _fits(self, amount: float) -> bool:
        assert self.most is not None
        return self._spent + self._set_aside + amount <= self.most * (1 + 1e-9)  # sums of money are rounded

    def _stop(self, amount: float) -> None:
        assert self.most is not None
        spent, most, cost = (shown_amount(each) for each in (self._spent, self.most, amount))
        money = f"{spent} of {most} {self.currency} are spent"
        self.stopped = f"--max_cost: {money}, and the next request may cost up to {cost}"
        self._changed.notify_all()


def shown_amount(money: float) -> str:
    """An amount of money in few digits, none of them an exponent if there are thousands."""
    return f"{money:,.2f}" if money >= 1000 else f"{money:.4g}"


class Meter:
    """Counts what the requests to a model cost, each attempt on its own, against a budget.

    Args:
        model: Name of the model.
        journal: Records requests that may have been billed without a reply.
        prices: Of the model.
        budget: May be shared with other models.
        place: The setting of the model; named in errors.

    Raises:
        UserError: If the budget has a limit and a price is unknown, or its currency is another.
    """

    def __init__(self, model: str, journal: Journal, prices: Prices, budget: Budget, *, place: str) -> None:
        self.model, self.journal, self.prices, self.budget = model, journal, prices, budget
        if budget.most is not None and not prices.is_known:
            raise UserError(
                f"--max_cost {budget.most:g}: the prices of {model} are unknown; set {place}.prices.read and "
                f"{place}.prices.written, each for a million tokens, or remove the limit."
            )
        if budget.most is not None and prices.currency != budget.currency:
            raise UserError(f"{place}.prices.currency {prices.currency}: expected {budget.currency}, as in --max_cost.")
        billed = journal.billed(model)
        budget.count_earlier(f"{journal.path}\n{model}", prices.cost(billed.read, billed.written) or 0.0)

    def begin(self, request: Request) -> float:
        """Set aside the most that an attempt can cost; returns the amount.

        Raises:
            NotSentError: If the budget does not allow it.
        """
        amount = self._cost(most_tokens(request))
        self.budget.set_aside(amount)
        return amount

    def end(self, request: Request, set_aside: float, reply: Reply | None, *, may_be_billed: bool) -> None:
        """Count what an attempt did cost: as reported, else the most, or nothing if it cannot have been billed."""
        most = most_tokens(request)
        cost = 0.0
        if reply is not None:
            paid = Billed(reply.tokens_read, reply.tokens_written)
            cost = self._cost(paid if reply.is_metered else most)
        elif may_be_billed:
            self.journal.note_unanswered(self.model, most)
            cost = self._cost(most)
        self.budget.settle(set_aside, cost)

    def _cost(self, tokens: Billed) -> float:
        return self.prices.cost(tokens.read, tokens.written) or 0.0
