"""Budgets: what no request may exceed, whatever fails and however many run at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.endpoint.chat import EndpointError, NotSentError, Request
from lit_sft.endpoint.journal import Journal
from lit_sft.endpoint.paid_model import EndpointSettings, PaidModel, open_endpoint
from lit_sft.endpoint.prices import Budget, Meter, Prices, most_tokens, shown_amount
from tests.lit_sft.endpoint.conftest import StartStub
from tests.lit_sft.stub_server import Draw, StubServer

pytest.importorskip("openai")

PRICES = Prices(read=1.0, written=1.0)
"""A token costs a millionth."""


def asked(number: int) -> Request:
    return Request((("user", f"number {number:03}"),), max_tokens=100)


MOST = most_tokens(asked(0)).read + 100
"""Tokens that a request can cost at most."""


def model_of(server: StubServer, folder: Path, budget: Budget, prices: Prices = PRICES, **changed: Any) -> PaidModel:
    given = {"timeout": 60.0, "retries": 0} | changed
    settings = EndpointSettings(server.address, "m", prices=prices, **given)
    return open_endpoint(settings, Journal(folder / "journal.jsonl"), budget=budget, log=lambda line: None)


def ask_all(model: PaidModel, count: int) -> int:
    """Ask for several replies at once; the number of those that came."""

    def ask(number: int) -> bool:
        try:
            model.ask(asked(number))
        except EndpointError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(ask, range(count)))


def test_the_most_tokens_are_bytes_and_what_templates_add() -> None:
    request = Request((("system", "你好"), ("user", "abc")), max_tokens=50, schema={"type": "object"})
    most = most_tokens(request)
    assert most.written == 50
    assert most.read == len("system" + "user" + "abc" + str({"type": "object"})) + 6 + 2 * 16 + 64


@pytest.mark.parametrize("tokens", [(1, 1), (MOST - 100, 100)])
def test_replies_never_cost_more_than_the_budget(
    start_stub: StartStub, tmp_path: Path, tokens: tuple[int, int]
) -> None:
    server = start_stub()
    server.usage = lambda body, text: {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    limit = MOST + 20 * sum(tokens)
    model = model_of(server, tmp_path, Budget(limit / 1e6))
    # the last reply that fits leaves less than one request can cost
    assert ask_all(model, 100) == (limit - MOST) // sum(tokens) + 1
    assert model.usage().cost == pytest.approx(21 * sum(tokens) / 1e6)
    assert f"--max_cost: {model.usage().cost:.4g} of {limit / 1e6:g} USD are spent" in model.stopped
    assert "run the same command with a higher --max_cost" in model.stopped
    model.close()


def test_the_budget_counts_what_earlier_processes_paid(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub()
    server.usage = lambda body, text: {"prompt_tokens": MOST - 1, "completion_tokens": 1}
    model = model_of(server, tmp_path, Budget())
    assert ask_all(model, 3) == 3
    model.close()
    again = model_of(server, tmp_path, Budget(MOST * 4.5 / 1e6))
    assert ask_all(again, 6) == 4  # three from the journal
    assert "requests stopped: --max_cost: " in again.stopped
    assert len(server.replies) == 4
    again.close()


def test_amounts_are_read_at_a_glance() -> None:
    budget = Budget(50_000)
    budget.set_aside(2_880.0)
    budget.settle(2_880.0, 2_880.0)
    with pytest.raises(NotSentError, match=r"2,880\.00 of 50,000\.00 USD are spent, .* may cost up to 2,100,000\.00"):
        budget.set_aside(2.1e6)
    assert [shown_amount(each) for each in (0.000123456, 0.5, 12.3456)] == ["0.0001235", "0.5", "12.35"]


def test_a_request_that_may_have_been_billed_counts_at_most(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub(draw=Draw(rates={"cut": 1.0}))
    model = model_of(server, tmp_path, Budget(3.5 * MOST / 1e6), retries=0)
    assert ask_all(model, 10) == 0
    assert server.faults["cut"] == 3
    assert (model.usage().unanswered, model.usage().cost) == (3, 0.0)
    again = model_of(server, tmp_path, Budget(3.5 * MOST / 1e6))
    assert again.usage().unanswered == 3
    with pytest.raises(NotSentError, match="max_cost"):  # after a restart too
        again.ask(asked(0))
    for each in (model, again):
        each.close()


def test_a_refused_request_costs_nothing(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub(draw=Draw(rates={"400": 1.0}))
    model = model_of(server, tmp_path, Budget(1.5 * MOST / 1e6))
    assert ask_all(model, 10) == 0
    assert server.faults["400"] == 10
    assert not model.stopped
    model.close()


def test_each_retry_is_checked_against_the_budget(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub(draw=Draw(rates={"hang": 1.0}))
    model = model_of(server, tmp_path, Budget(1.5 * MOST / 1e6), retries=50, timeout=0.05)
    with pytest.raises(NotSentError, match="max_cost"):
        model.ask(asked(0))
    model.close()
    assert server.faults["hang"] == 1


def test_a_reply_without_token_counts_is_charged_at_most_and_has_no_known_cost(
    start_stub: StartStub, tmp_path: Path
) -> None:
    server = start_stub()
    server.usage = lambda body, text: None
    model = model_of(server, tmp_path, Budget(3.5 * MOST / 1e6))
    assert ask_all(model, 10) == 3
    assert model.usage().cost is None
    model.close()
    again = model_of(server, tmp_path, Budget(3.5 * MOST / 1e6))
    assert ask_all(again, 10) == 3
    assert len(server.replies) == 3
    again.close()


def test_a_request_waits_for_others_that_may_cost_less(tmp_path: Path) -> None:
    budget, answered = Budget(1.5), threading.Event()
    budget.set_aside(1.0)
    waiting = threading.Thread(target=lambda: (budget.set_aside(1.0), answered.set()))
    waiting.start()
    assert not answered.is_set()
    budget.settle(1.0, 0.1)
    waiting.join()
    assert answered.is_set()
    assert not budget.stopped


def test_two_models_share_a_budget(start_stub: StartStub, tmp_path: Path) -> None:
    server = start_stub()
    server.usage = lambda body, text: {"prompt_tokens": MOST - 1, "completion_tokens": 1}
    budget = Budget(2.5 * MOST / 1e6)
    models = [model_of(server, tmp_path / name, budget) for name in ("one", "other")]
    for model in models:
        model.ask(asked(0))
    for model in models:
        with pytest.raises(NotSentError, match="max_cost"):
            model.ask(asked(1))
        model.close()


@pytest.mark.parametrize("prices", [Prices(), Prices(read=1.0), Prices(written=1.0)])
def test_a_limit_needs_prices(tmp_path: Path, prices: Prices) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UserError, match=r"^--max_cost 2: the prices of m are unknown; set --model\.prices\.read and"):
        Meter("m", journal, prices, Budget(2.0), place="--model")
    assert prices.cost(10, 10) is None
    Meter("m", journal, prices, Budget(), place="--model")


def test_a_limit_needs_prices_in_its_currency(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--model\.prices\.currency EUR: expected USD"):
        Meter("m", Journal(tmp_path / "journal.jsonl"), Prices(1.0, 1.0, "EUR"), Budget(2.0), place="--model")


@pytest.mark.parametrize("name", ["read", "written"])
def test_impossible_prices_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} -1: expected at least 0, or null"):
        Prices(**{name: -1.0})
