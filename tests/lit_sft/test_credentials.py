"""Credentials in addresses and text are masked, ordinary text is not."""

from __future__ import annotations

import re

import pytest

from lit_sft.credentials import _PLAIN, Secrets, _plain_letters, read_address, without_credentials


def test_credentials_in_addresses_are_masked() -> None:
    text = "at https://me:p@w@h:80/v1?a=1&b=2#frag, http://t@h/x?tok and http://h/v1#tok; mail me@h"
    assert (
        without_credentials(text)
        == "at https://***@h:80/v1?a=***&b=*** http://***@h/x?*** and http://h/v1#*** mail me@h"
    )
    place = read_address("https://me:p%40ss@h:1/v1?key=k1&x=", setting="s")
    assert (place.base, place.query) == ("https://h:1/v1", {"key": "k1", "x": ""})
    assert "p@ss" not in repr(place)
    assert Secrets("").mask("nothing is secret") == "nothing is secret"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sk-proj-Q7vXb2LmZ91234", "The project proposal has 1234 words; see sk-proj- and 91.234"),
        ("sk-svcacct-Q7vXb2LmZ9", "a key of a service account begins with sk-svcacct-, and a project's with sk-proj-"),
        ("EMPTY", "the EMPTY list is empty"),
        ("none", "none of them"),
        ("sk-no-key-required", "no key is required"),
        ("hunter22", "the hunter has 22 dogs, a hunt, 2 cats"),
    ],
)
def test_ordinary_text_that_resembles_a_key_is_left_as_it_is(key: str, text: str) -> None:
    assert Secrets(key).mask(text) == text


@pytest.mark.parametrize("shown", ["sk-pro...1234", "sk-proj-Q7**34", "…Z91234", "SK-PROJ-Q7VXB2LM", "7vXb-2LmZ-9"])
def test_shortened_keys_are_masked(shown: str) -> None:
    masked = Secrets("sk-proj-Q7vXb2LmZ91234").mask(f"the key '{shown}' is wrong")
    assert masked.startswith("the key '")
    assert masked.endswith("' is wrong")
    assert not re.search("[0-9Q]", masked.replace("34", "") if shown.endswith("**34") else masked)


def test_a_table_finds_the_letters_that_the_search_compares() -> None:
    """Every character that is not part of an escape, so that no text takes the fast way that should not."""
    for code in [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xF900, 0x10000), 0x1D400, 0x1F600, 0x20000]:
        assert chr(code).translate(_PLAIN) == _plain_letters(chr(code))
    text = "ＳＫ－Ｑ７ｖＸ ﬁne ½ İ e\u0301 中文 %zz \\q &amp; 100%"
    assert text.translate(_PLAIN) == _plain_letters(text)


@pytest.mark.parametrize(
    "text", ["a ＳＫ－Ｑ７ｖＸｂ２ＬｍＺ９ b", "a sk-Q7vXb2%4c%6dZ9 b", "50% of 20%de", "a sk-Q7\u200bvXb2LmZ9 b"]
)
def test_a_key_is_found_among_other_characters(text: str) -> None:
    masked = Secrets("sk-Q7vXb2LmZ9").mask(text)
    assert masked == ("a *** b" if text.startswith("a ") else text)
