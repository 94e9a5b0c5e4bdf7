"""Shortens jsonargparse's error messages to one line."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

from data_modules.wording import did_you_mean, either, kind_of, nearest_path
from lit_sft.own_packages import shadowed
from lit_sft.settings.class_names import missing_package, nearest_class
from lit_sft.settings.sections import nearest
from lit_sft.shipped import advice_on
from lit_sft.yaml_loader import load_yaml

_LONGEST_VALUE = 120

_UNION = "Does not validate against any of the Union subtypes"
_NOISE = (
    _UNION, "expected ", "Not a valid subclass of", "Expected a path but", "Not of type",
    "a class path (str)", "a dict with", "argument of type",
)  # fmt: skip
"""Beginnings of reasons that only repeat which types were tried."""

_FEW = 20
"""Up to this many options are listed; for more, we refer to --help."""

_KEY = re.compile(r'\s*Parser key "([^"]+)":')

_NOT_OWN = {"h", "help", "c", "config", "print_config"}

_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
    "tuple": "a list",
}
_PLURALS = {"str": "strings", "int": "whole numbers", "float": "numbers", "a mapping": "mappings"}


def in_one_line(message: str, options: Set[str] = frozenset()) -> str:
    """Shorten a parser's message to one line, and suggest the closest option, choice or class.

    Args:
        message: From jsonargparse; many lines if a setting may have several types.
        options: All options.
    """
    key = _KEY.match(message)
    body = message[key.end() :] if key else message
    text = _reason(body) if _UNION in body else _plain(body)
    text = f"--{key[1]}: {text}" if key and not text.startswith(f"--{key[1]}: ") else text
    text = re.sub(r"File does not exist: '(.+?)'$", _no_such_file, text)
    return text + (_nearest_option(text, options) or _nearest_choice(text))


def setting_of(message: str) -> str | None:
    """The setting that a parser's message is about, such as `data.mask`; None if it does not name one."""
    key = _KEY.match(message)
    return key[1] if key else None


def _no_such_file(found: re.Match[str]) -> str:
    path = Path(found[1])  # jsonargparse makes it absolute
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{path}: no such file; {advice_on(path) or nearest_path(path) or 'check the path.'}"


def is_from_parser(message: str) -> bool:
    """Whether a message comes from jsonargparse, not from a class that could not be created."""
    return any(words in message for words in (_UNION, "Problem with given class_path", "Parser key"))


def _plain(text: str) -> str:
    """Shorten a message about one type."""
    text = " ".join(text.split()).removeprefix("- ")
    text = re.sub(r'Parser key "([\w.]+)":', r"--\1:", text)
    if problem := re.match(r"Problem with given class_path '([^']+)': (.+)", text):
        return _class_problem(problem[1], problem[2])
    if section := re.match(r"Unable to load config (['\"])(.*?)\1(?: - |$)", text):
        return f"expected a mapping of settings, found {_found(section[2])}."
    if unnamed := re.match(r"Expected a dot import path string: (\S+)", text):
        return _unknown_class(unnamed[1])
    if other := re.match(r"Import path (\S+) does not correspond to a subclass of (\w+)", text):
        return f"{other[1]} is not a {other[2]}"
    if least := re.match(r"Not of type PositiveInt: (?:(.+) does not conform|.*: '(.*)'$)", text):
        return f"expected a whole number, at least 1, got {_short(least[1] or least[2])}"
    if stray := re.match(r"unrecognized arguments: ([^-]\S*)", text):
        if stray[1].endswith((".yaml", ".yml")):
            return f"{stray[1]}: not expected here; did you mean `--config {stray[1]}`?"
        return (
            f"{stray[1]}: not expected here. A run goes first (for fit: after --resume), without --config. "
            "See --help for the options."
        )
    if text.startswith("unrecognized arguments: --"):  # without their values: one may be a key
        return " ".join(["unrecognized arguments:", *re.findall(r"(?<!\S)--[\w.+-]+", text)])
    if link := re.match(r"argument .+ --> ([\w.]+):? .*", text):
        return f"--{link[1]}: follows the settings of the model; change those instead."
    if computed := re.match(r"Call to compute_fn of link .*?\) failed: (.+)", text):
        return computed[1]
    if option := re.match(r"argument (\S+?): (.+)$", text):
        return _of_option(option[1], option[2])
    if kind := re.match(r"Expected a (<class '[\w.]+'>|typing\.Literal\[.+?\])(\. Got value:(.*))?$", text):
        return f"expected {_kind(kind[1])}" + (f", got {_short(kind[3].strip())}" if kind[2] else "")
    return text


def _of_option(names: str, problem: str) -> str:
    """Shorten an argparse message about an option; argparse lists all its spellings."""
    option = max((name for name in names.split("/") if not name.endswith("+")), key=len)
    if re.match(r"expected (one|at least one) argument", problem):
        usual = f"add one after it, or write `{option}=VALUE` if the value begins with a hyphen."
        example = "add a file, such as `--config configs/quickstart.yaml`."
        return f"{option}: has no value; {example if option == '--config' else usual}"
    if choice := re.match(r"invalid choice: (.+) \(choose from (.+)\)$", problem):
        return f"{option}: expected one of [{choice[2]}], got {_short(choice[1].strip(chr(39)))}"
    return f"{option}: {problem}"


def _reason(body: str) -> str:
    """The one reason among many that explains the mistake; otherwise the expected types and the value found."""
    reasons = [reason for reason in map(_plain, _items(body)) if not reason.startswith(_NOISE)]
    telling = [reason for reason in reasons if not re.match(r"\S+ is not a \w+$", reason)]
    if chosen := (telling or reasons)[:1]:
        return chosen[0]
    found = re.findall(r"^ *Given value: (.*)$", body, flags=re.MULTILINE)
    types = re.search(r"Subtypes: \[(.+)\]$", body, flags=re.MULTILINE)
    kinds = either(dict.fromkeys(map(_kind, _split(types[1])))) if types else "another type"
    value = found[-1] if found else ""
    return f"expected {kinds}, got {_short(value)}{_as_list(value, _split(types[1])) if types else ''}"


def _as_list(value: str, types: list[str]) -> str:
    """How to write a word as a list of one, where a list of words is expected."""
    takes_words = any(re.search(r"\b[Ll]ist\[(typing\.)?(Any|str)\]$", name.strip()) for name in types)
    return f"; write [{value}]" if takes_words and re.fullmatch(r"[A-Za-z][\w./-]*", value) else ""


def _items(body: str) -> list[str]:
    """All reasons listed in a message, including those of nested types."""
    items, current = [], ""
    for line in body.splitlines():
        if re.match(r"\s*(- |Given value|Subtypes:|Errors:)", line):
            items.append(current)
            current = line.strip().removeprefix("- ") if line.strip().startswith("- ") else ""
        elif current:
            current += f" {line.strip()}"
    return [item for item in [*items, current] if item]


def _found(text: str) -> str:
    """Describe a value from the command line."""
    try:
        return kind_of(load_yaml(text, "")[0])
    except ValueError:
        return kind_of(text)


def _class_problem(path: str, reason: str) -> str:
    missing = re.search(r"^No module named '([\w.]+)'", reason)
    if shadow := shadowed(path) or shadowed(missing[1] if missing else ""):
        return f"no class {path}; {shadow}"
    if package := missing_package(path, reason):
        return f"{path} needs the package {package[0]}, which is not installed; `pip install {package[1]}`."
    if re.search(r"has no attribute '\w+'$|^No module named", reason):
        return _unknown_class(path)
    return reason if reason.startswith(path.rpartition(".")[2]) else f"{path}: {reason}"


def _unknown_class(path: str) -> str:
    if shadow := shadowed(path):
        return f"no class {path}; {shadow}"
    close = nearest_class(path)
    advice = f"did you mean {close}?" if close else "check the name, and that its module can be imported."
    return f"no class {path}; {advice}"


def _kind(name: str) -> str:
    """A type in words."""
    name = re.sub(r"^<class '(.+)'>$", r"\1", name.strip())
    if found := re.match(r"typing\.Literal\[(.+)\]$", name):
        return f"one of [{found[1]}]"
    if re.match(r"(?:typing\.)?[Dd]ict\[", name):
        return "a mapping"
    if found := re.match(r"(?:list|List|collections\.abc\.Iterable|typing\.\w+)\[(.+)\]$", name):
        parts = [part.strip().removeprefix("typing.") for part in _split(found[1])]
        words = (_PLURALS.get(part) or _PLURALS.get(_kind(part)) or _kind(part).removeprefix("a ") for part in parts)
        return "a list" if parts == ["Any"] else f"a list of {' or '.join(words)}"
    last = name.rpartition(".")[2]
    return _WORDS.get(last, f"a {last}")


def _split(names: str) -> list[str]:
    """Split a list of types at commas outside brackets."""
    parts, depth = [""], 0
    for character in names:
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _short(value: str) -> str:
    """A value in YAML's spelling, truncated if long."""
    value = {"True": "true", "False": "false", "None": "null", "": "an empty string"}.get(value, value)
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."


def _nearest_option(message: str, options: Set[str]) -> str:
    unknown = re.search(r"unrecognized arguments: --([\w.]+)|[oO]ption '([\w.]+)'|Key '([\w.]+)'", message)
    if unknown is None or re.search("did you mean|see --help|the options are", message):
        return ""
    if unknown[1]:  # on the command line; the others are settings of a class, or in a file
        return f"; {nearest(unknown[1], options, sign='--') or _all(options, sign='--')}"
    return f"; {nearest(unknown[2] or unknown[3], options) or _all(options)}"


def _all(options: Set[str], sign: str = "") -> str:
    own = [f"{sign}{option}" for option in sorted(options - _NOT_OWN)]
    return f"the options are {', '.join(own)}." if own and len(own) <= _FEW else "see --help for the options."


def _nearest_choice(message: str) -> str:
    """Suggest the closest choice, if a value is not one of a few words."""
    found = re.search(r"expected .*one of \[.+\].*, got ([^;,]+)$", message)
    advice = did_you_mean(found[1], re.findall(r"'([^']+)'", message)) if found else ""
    return f"; {advice}" if advice else ""
