"""Rules about what extraction leaves behind: headings, empty brackets, conversion markup of Chinese Wikipedia, tags."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_modules.cleaning.characters import SPACES
from data_modules.cleaning.code import outside_code
from data_modules.cleaning.edits import Edit, substitutions
from data_modules.cleaning.options import option
from data_modules.cleaning.units import CJK
from data_modules.wording import either

_HEADING = re.compile(rf"(?:[{SPACES}\r]*\n)*([^\n]+)(\n[{SPACES}\r]*(?:\n[{SPACES}\r]*)*)")
_MARKED = re.compile(r"#{1,6} |(=+) .*? \1\s*$|(=+)[^=].*?\2\s*$")
_SENTENCE_END = re.compile(r"[。！？；：，、…!?;:,.][\"'”’」』）)\]】]*\s*$")
_MOST_HEADINGS = 3

_SHORT_LABEL = "(?:[英法德日韩俄韓語西葡意荷希]+[语語文]|拉丁[语語文]|[阿希]\\w{1,3}[语語文])[:：]"
_FILL = rf"[{SPACES}\n，,、；;：:·]"
_EMPTY_WIDE = "|".join(f"{first}(?:{_FILL}|{_SHORT_LABEL})*{last}" for first, last in ("（）", "【】", "［］", "〔〕"))
_EMPTY_INNER = rf"\((?:{_FILL}|{_SHORT_LABEL})*\)|\[{_FILL}*\]"
_EMPTY_NARROW = rf"\((?:{_FILL}|{_SHORT_LABEL}|{_EMPTY_INNER})*\)|\[(?:{_FILL}|{_EMPTY_INNER})*\]"
_EMPTY = re.compile(f"{_EMPTY_WIDE}|{_EMPTY_NARROW}")
_ENDS = frozenset(" \t\n,.;:!?，。；：！？、)）")
_OPERATORS = frozenset("=(,[{:+*-")
_NAMED = ("号", "號", "comma", "colon")
_IS_CJK = re.compile(f"[{CJK}]")

_CONVERSION = re.compile(r"-\{((?:(?!-\{|\}-)[^\n]){0,2000})\}-")
_NEAREST = {
    "zh-hans": ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh"),
    "zh-hant": ("zh-hant", "zh-tw", "zh-hk", "zh-mo", "zh"),
    "zh-cn": ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh"),
    "zh-sg": ("zh-sg", "zh-hans", "zh-cn", "zh-my", "zh"),
    "zh-my": ("zh-my", "zh-sg", "zh-hans", "zh-cn", "zh"),
    "zh-tw": ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh"),
    "zh-hk": ("zh-hk", "zh-mo", "zh-hant", "zh-tw", "zh"),
    "zh-mo": ("zh-mo", "zh-hk", "zh-hant", "zh-tw", "zh"),
}
"""The variants to fall back on. Source: MediaWiki, includes/language/converters/ZhConverter.php."""
_VARIANTS = tuple(_NEAREST)
_CHOICE = re.compile(r"\s*(?:[^;=]*=>\s*)?(zh(?:-[a-z]{2,4})?)\s*:\s*(.*?)\s*", re.IGNORECASE | re.DOTALL)
_HIDDEN_FLAGS = set("HT-")

_INLINE = (
    "a|abbr|audio|b|big|body|button|canvas|cite|code|col|colgroup|del|dfn|em|embed|font|frame|head|html|i|iframe|img|"
    "input|ins|kbd|label|legend|link|mark|meta|noscript|optgroup|option|picture|q|ruby|rb|rp|rt|rtc|s|samp|script|"
    "select|small|source|span|strike|strong|style|sub|summary|sup|svg|tbody|td|template|textarea|tfoot|th|thead|tt|u|"
    "video|wbr|includeonly|noinclude|nowiki|onlyinclude|poem|ref|references|gallery|timeline|imagemap|"
    "templatestyles|math|chem"
)
_BLOCKS = (
    "address|article|aside|blockquote|br|caption|center|dd|details|div|dl|doc|dt|fieldset|figcaption|figure|footer|"
    "form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|table|title|tr|ul"
)
_DROPPED = "script|style|ref|gallery|timeline|imagemap|templatedata|templatestyles"
_BARE = (
    "allowfullscreen|async|autofocus|autoplay|border|checked|compact|controls|default|defer|disabled|download|hidden|"
    "inert|inline|ismap|itemscope|loop|multiple|muted|nohref|nomodule|noshade|novalidate|nowrap|open|playsinline|"
    "readonly|required|responsive|reversed|selected|(?:data|aria|v|ng|x)-[\\w:.-]+"
)
"""Attributes without a value. Other words after the name of a tag are prose: `a<b then c>d`."""
_QUOTED = r"\s+[\w:.-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*')"
_VALUED = r"\s+[\w:.-]+\s*=\s*[^\s\"'<>]+"
_KNOWN = rf"\s+(?:{_BARE})(?=[\s/>])"
_LOOSE = rf"(?:{_QUOTED}|{_VALUED}|\s+[\w:.-]+)*"
# any attributes if a quoted value or the end `/>` shows that it is a tag
_ATTRIBUTES = rf"(?:(?:{_QUOTED}|{_VALUED}|{_KNOWN})*\s*/?>|{_QUOTED}{_LOOSE}\s*>|{_LOOSE}\s*/>)"
_TAG = re.compile(
    rf"(?P<comment><!--)|<!DOCTYPE[^<>]*>"
    rf"|<(?P<dropped>{_DROPPED})(?:{_KNOWN})*(?:\s+[\w:.-]+\s*=[^<>]*|\s*)(?<!/)>"
    rf"|</?(?:(?P<block>{_BLOCKS})|{_INLINE})(?![\w-]){_ATTRIBUTES}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FirstHeading:
    """Removes the heading that an article starts with: a line marked as a heading, or a short first line that does not
    end like a sentence, if a blank line follows it or the next line begins with it. Up to three headings in a row, if
    text follows them."""

    characters: int = option("Longest heading, in characters.", int, 60, least=1)

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        end = 0
        for num in range(_MOST_HEADINGS + 1):
            found = _HEADING.match(text, end)
            if found is None or not self._is_heading(found, text):
                return [(0, end, "")] if 0 < end < len(text) and text[end:].strip() else []
            if num < _MOST_HEADINGS:
                end = found.end()
        return []  # a list, not headings

    def _is_heading(self, found: re.Match[str], text: str) -> bool:
        line = found[1].strip()
        if len(line) > self.characters:
            return False
        if _MARKED.match(line):
            return True
        repeats_itself = text.startswith(line, found.end()) and text[found.end() :].find("\n") != len(line)
        return (found[2].count("\n") > 1 or repeats_itself) and not _SENTENCE_END.search(line)


@dataclass(frozen=True)
class EmptyBrackets:
    """Removes brackets with nothing in them but white space, commas, semicolons, colons and names of languages, as
    left where a template was: （）, （，）, （英语：）, ( ; ), 【】, []. Code such as `f()` and `x = []` stays, and so
    do the boxes of to-do lists."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        starts = ((found, _start_of_gap(text, found)) for found in _EMPTY.finditer(text))
        return outside_code(text, [(start, found.end(), "") for found, start in starts if start >= 0])


@dataclass(frozen=True)
class ConversionMarkup:
    """Resolves the markup by which Chinese Wikipedia converts between scripts: `-{}-` is removed, `-{X}-` becomes X,
    `-{zh-hans:X;zh-hant:Y}-` becomes the text of one variant."""

    variant: str = option(
        f"The variant to keep, or else the nearest one that is given: {either(_VARIANTS)}.",
        str,
        "zh-hans",
        choices=_VARIANTS,
    )

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        return outside_code(text, substitutions(text, _CONVERSION, self._resolved), only_marked=True)

    def _resolved(self, found: re.Match[str]) -> str:
        flags, bar, rules = found[1].rpartition("|")
        if bar and not re.fullmatch(r"[A-Za-z;\s-]*", flags):
            flags, rules = "", found[1]
        marks = {flag.strip().upper() for flag in flags.split(";")}
        if marks & _HIDDEN_FLAGS:
            return ""
        pairs = [_CHOICE.fullmatch(part) for part in _parts(rules)]
        if pairs and all(pairs) and "R" not in marks:
            by_variant = {pair[1].lower(): pair[2] for pair in pairs if pair}
            nearest = [by_variant[name] for name in _NEAREST[self.variant] if name in by_variant]
            return [*nearest, *by_variant.values()][0]
        if rules and not bar and not re.search(f"[{CJK}]", _line_of(found)):
            return found[0]  # braces in code: file-{1,2}-a
        return rules


@dataclass(frozen=True)
class Tags:
    """Removes tags of HTML and of wikis, and comments; text between tags stays, but not scripts, styles, footnotes and
    galleries. Tags that end a line in a browser become a newline. Other text in angle brackets stays, and so do
    comparisons such as `a<b then c>d`."""

    def __call__(self, text: str) -> list[Edit]:
        """The edits of a text."""
        if "<" not in text:
            return []
        return outside_code(text, _untagged(text), only_marked=True)


def _start_of_gap(text: str, found: re.Match[str]) -> int:
    """Where to cut before empty brackets: with the space before, unless that keeps two words apart; -1 to keep them."""
    start, after = found.start(), text[found.end() : found.end() + 1]
    gap = start
    while gap and text[gap - 1] in " \t":
        gap -= 1
    before = text[gap - 1 : gap].strip("\n")
    if text.endswith(_NAMED, 0, gap):  # the comma (,) and the colon (:)
        return -1
    if found[0][0] in "([" and not _IS_CJK.match(before) and _is_code(before, found[0], after, has_gap=gap < start):
        return -1
    return gap if before and (not after or after in _ENDS) else start


def _is_code(before: str, brackets: str, after: str, *, has_gap: bool) -> bool:
    """Whether half-width brackets follow a name or an operator, or are the box of a list item."""
    if has_gap:
        return before in _OPERATORS or not (not after or after in _ENDS)
    if not before:
        return brackets[0] == "["
    return before.isalnum() or before in "_])}>=(,[{:" or (bool(after) and (after.isalnum() or after in "_([{."))


def _untagged(text: str) -> list[Edit]:
    """The edits that remove tags, comments and content that is not text."""
    edits: list[Edit] = []
    never_closed: set[str] = set()
    place = 0
    while found := _TAG.search(text, place):
        place = found.end()
        closing = "-->" if found["comment"] else rf"</{found['dropped']}\s*>" if found["dropped"] else ""
        if closing and closing not in never_closed:
            end = re.compile(closing, re.IGNORECASE).search(text, place)
            if end:
                place = end.end()
            else:
                never_closed.add(closing)  # not searched again, or the time would grow with the square of the length
        if place > found.end() or not found["comment"]:
            edits.append((found.start(), place, "\n" if found["block"] and not _at_line(text, found) else ""))
    return edits


def _at_line(text: str, found: re.Match[str]) -> bool:
    """Whether a line starts or ends at a tag."""
    start, stop = found.span()
    return start == 0 or stop == len(text) or text[start - 1] == "\n" or text[stop] == "\n"


def _parts(rules: str) -> list[str]:
    """The rules between semicolons; a semicolon that no variant follows belongs to the text."""
    parts = re.split(r";(?=\s*(?:[^;:]*=>\s*)?zh(?:-[a-z]{2,4})?\s*:)", rules, flags=re.IGNORECASE)
    return [part.rstrip().removesuffix(";") for part in parts if part.strip()]


def _line_of(found: re.Match[str]) -> str:
    text = found.string
    return text[text.rfind("\n", 0, found.start()) + 1 : (text.find("\n", found.end()) + 1 or len(text) + 1) - 1]
