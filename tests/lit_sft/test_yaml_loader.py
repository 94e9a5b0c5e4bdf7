"""YAML has one meaning or is refused with its line; huge sizes, aliases and nesting are cheap to reject."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_sft.files import read_yaml
from lit_sft.yaml_loader import load_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)

REFUSED = {
    "duplicate key": ("a: 1\nb: 2\na: 3\n", r"f\.yaml:3: duplicate key 'a' \(first on line 1\); remove one of the two\."),
    "duplicate key, nested": ("x:\n- {y: {k: 1, k: 2}}\n", r"f\.yaml:2: duplicate key 'k'"),
    "duplicate key, one in quotes": ('"a": 1\na: 2\n', r"f\.yaml:2: duplicate key 'a'"),
    "recursion in a list": ("a: &x [*x]\n", r"f\.yaml:1: \*x refers to a value that contains it"),
    "recursion in a mapping": ("a: &x\n  b:\n    c: *x\n", r"f\.yaml:3: \*x refers to a value that contains it"),
    "bomb": (BOMB, r"f\.yaml:\d+: aliases expand to more than 10,000 values"),
    "deep": ("[" * 100_000, r"f\.yaml:1: nested more than 60 levels deep"),
    "huge number": (f"a: 1{'0' * 400}\n", r"f\.yaml:1: a number of more than 300 digits"),
    "huge number in hexadecimal": (f"a: -0x{'f' * 400}\n", r"f\.yaml:1: a number of more than 300 digits"),
    "bytes": ("a: !!binary aGVsbG8=\n", r"f\.yaml:1: tag !!binary; YAML tags are not allowed in settings"),
    "set": ("a: !!set {x, y}\n", r"f\.yaml:1: tag !!set"),
    "object": ("a: !!python/object/apply:os.system [ls]\n", r"f\.yaml:1: tag !!python/object/apply:os\.system"),
    "list as a key": ("{[1]: 2}\n", r"f\.yaml:1: a list or mapping is used as a key"),
    "alias as a key": ("a: &x b\n*x : 1\n", r"f\.yaml:2: \*x is used as a key"),
    "unknown alias": ("a: *x\n", r"f\.yaml:1: not valid YAML \(found undefined alias"),
    "not closed": ("a: [\n", r"f\.yaml:2: not valid YAML"),
    "two documents": ("a: 1\n---\na: 2\n", r"f\.yaml:\d: not valid YAML \(but found another document"),
    "long number": (f"a: {'9' * 5000}\n", r"f\.yaml:1: a number of more than 300 digits"),
    "control character": ("a: \x07\n", r"f\.yaml: not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_yaml_that_no_settings_should_contain_is_refused_with_its_line(what: str) -> None:
    text, message = REFUSED[what]
    with pytest.raises(ValueError, match=message) as refused:
        load_yaml(text, "f.yaml")
    assert "\n" not in str(refused.value)


def test_values_and_lines_of_plain_yaml() -> None:
    text = "a: {b: 1}\nlist:\n- c: [1.5, x]\n  d: null\nday: 2020-01-01\n"
    value, lines = load_yaml(text, "f.yaml")
    assert value == {"a": {"b": 1}, "list": [{"c": [1.5, "x"], "d": None}], "day": "2020-01-01"}
    assert lines == {
        ("a",): 1,
        ("a", "b"): 1,
        ("list",): 2,
        ("list", "[]", "c"): 3,
        ("list", "[]", "d"): 4,
        ("day",): 5,
    }


def test_aliases_and_merges_of_moderate_size_are_read() -> None:
    value, _ = load_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n", "f.yaml")
    assert value["b"] == {"x": 1, "y": 3}
    assert value["c"] == [{"x": 1, "y": 2}] * 2


def test_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ValueError, match=r"f\.yaml: not UTF-8 text .* Write it again"):
        read_yaml(tmp_path / "f.yaml", advice="Write it again.")
