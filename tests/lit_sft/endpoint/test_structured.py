"""In which form JSON is asked for, and when another form is tried."""

from __future__ import annotations

import pytest

from lit_sft.endpoint.chat import EndpointError, Request
from lit_sft.endpoint.structured import Structured
from tests.lit_sft.endpoint.conftest import JSON, SCHEMA, StartStub, client_of, forms_of
from tests.lit_sft.stub_server import Draw, StubServer

pytest.importorskip("openai")


def refusing(server: StubServer, *forms: str, status: str = "400") -> None:
    """Have a server refuse requests with some response formats."""
    fault_of = server.draw.fault

    class Refusing(Draw):
        def fault(self, digest: str, attempt: int) -> str:
            assert server.bodies is not None
            form = server.bodies[-1].get("response_format", {}).get("type", "none")
            return status if form in forms else fault_of(digest, attempt)

    server.draw = Refusing()


@pytest.mark.parametrize(
    ("refused", "forms"),
    [
        ((), ["json_schema", "json_schema"]),
        (("json_schema",), ["json_schema", "json_object", "json_object"]),
        (("json_schema", "json_object"), ["json_schema", "json_object", "none", "none"]),
    ],
)
@pytest.mark.parametrize("status", ["400", "422", "500", "501"])
def test_a_server_that_refuses_schemas_is_asked_in_the_next_form(
    start_stub: StartStub, refused: tuple[str, ...], forms: list[str], status: str
) -> None:
    server, said = start_stub(), list[str]()
    refusing(server, *refused, status=status)
    client = client_of(server, log=said.append)
    assert [client.ask(JSON).text for _ in range(2)] == ["yes", "yes"]
    client.close()
    assert forms_of(server) == forms
    assert len(said) == (1 if refused else 0)
    assert not said or f"using structured: {forms[-1]}" in said[0]


def test_a_request_that_is_refused_in_every_form_changes_nothing(start_stub: StartStub) -> None:
    server = start_stub()
    refusing(server, "json_schema", "json_object", "none")
    client = client_of(server)
    with pytest.raises(EndpointError, match="Error code: 400"):
        client.ask(JSON)
    server.draw = Draw()
    client.ask(JSON)
    client.close()
    assert forms_of(server) == ["json_schema", "json_object", "none", "json_schema"]


def test_a_form_that_was_accepted_once_is_kept(start_stub: StartStub) -> None:
    server = start_stub()
    client = client_of(server)
    client.ask(JSON)
    refusing(server, "json_schema")
    with pytest.raises(EndpointError, match="Error code: 400"):
        client.ask(JSON)
    client.close()
    assert forms_of(server) == ["json_schema"] * 2


@pytest.mark.parametrize("form", ["json_schema", "json_object", "none"])
def test_a_form_that_was_asked_for_is_the_only_one(start_stub: StartStub, form: Structured) -> None:
    server = start_stub()
    refusing(server, form)
    client = client_of(server, structured=form)
    with pytest.raises(EndpointError, match="Error code: 400"):
        client.ask(JSON)
    client.close()
    assert forms_of(server) == [form]


def test_rare_server_errors_do_not_count_as_refused_schemas(start_stub: StartStub) -> None:
    server = start_stub(draw=Draw(1, {"500": 0.5}))

    async def wait(seconds: float) -> None:
        pass

    client = client_of(server, retries=20, pause=wait)
    for number in range(20):
        client.ask(Request((("user", f"number {number}"),), max_tokens=8, schema=SCHEMA))
    client.close()
    assert server.faults["500"] > 2
    assert set(forms_of(server)) == {"json_schema"}


@pytest.mark.parametrize("retries", [0, 3])
def test_server_errors_are_retried_in_one_form_only(start_stub: StartStub, retries: int) -> None:
    server = start_stub(draw=Draw(rates={"500": 1.0}))

    async def wait(seconds: float) -> None:
        pass

    client = client_of(server, retries=retries, pause=wait)
    with pytest.raises(EndpointError, match="Error code: 500"):
        client.ask(JSON)
    client.close()
    assert forms_of(server) == ["json_schema"] * (1 + retries) + ["json_object", "none"]
