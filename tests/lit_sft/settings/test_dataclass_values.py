"""Dataclasses from YAML values: types are checked, messages name the setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from data_modules.errors import UserError
from lit_sft.settings.dataclass_values import dataclass_from


@dataclass(frozen=True)
class Recipe:
    """A dataclass to fill."""

    dish: str
    minutes: int = 5
    share: float | None = None
    heat: Literal["low", "high"] = "low"
    weights: list[int] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.minutes < 0:
            raise UserError(f"minutes {self.minutes}: expected 0 or more.")


def made(values: Any, place: str = "", **converted: Any) -> Recipe:
    return dataclass_from(Recipe, values, place=place, converted=converted)


def test_values_take_the_types_of_the_fields() -> None:
    assert made({"dish": "rice", "share": "1e-4", "weights": [1, 2]}) == Recipe("rice", share=1e-4, weights=[1, 2])


def test_converted_values_stay_as_they_are() -> None:
    assert made({"dish": "rice"}, extras={"lr": "1e-4"}).extras == {"lr": "1e-4"}
    assert made({}, dish="rice") == Recipe("rice")


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        (5, "", "expected names and values; got 5."),
        ([], "soups.a", "soups.a: expected names and values; got []."),
        ({"dihs": "rice"}, "", "unknown setting dihs; did you mean dish?"),
        (
            {"dish": "x", "colour": 1},
            "",
            "unknown setting colour; the settings are dish, minutes, share, heat, weights, extras.",
        ),
        ({"minute": 1}, "soups.a", "unknown setting soups.a.minute; did you mean soups.a.minutes?"),
        ({"minutes": 1}, "soups.a", "soups.a.dish: missing; expected a value."),
        ({"dish": "x", "minutes": True}, "", "minutes True: expected a whole number."),
        ({"dish": 3}, "", "dish 3: expected a string."),
        ({"dish": None}, "", "dish null: expected a string."),
        ({"dish": "x", "weights": None}, "soups.a", "soups.a.weights null: expected a list of whole numbers."),
        ({"dish": "x", "extras": {1: 2}}, "", "extras {1: 2}: expected names and values."),
        ({"dish": "x", "share": 10**400}, "", f"share {10**400}: expected a number or null."),
        ({"dish": "x", "heat": "mid"}, "soups.a", "soups.a.heat 'mid': expected one of 'low', 'high'."),
        ({"dish": "x", "weights": [1.5]}, "", "weights [1.5]: expected a list of whole numbers."),
        ({"dish": "x", "minutes": -1}, "soups.a", "soups.a.minutes -1: expected 0 or more."),
    ],
)
def test_error_names_the_setting(values: Any, place: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        made(values, place)
    assert str(raised.value) == message


def test_a_fault_in_the_dataclass_is_not_blamed_on_the_user() -> None:
    @dataclass
    class Broken:
        def __post_init__(self) -> None:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as raised:
        dataclass_from(Broken, {})
    assert not isinstance(raised.value, UserError)
