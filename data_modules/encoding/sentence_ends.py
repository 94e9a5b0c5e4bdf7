"""Where the sentences of a text end, as characters and as tokens.

A sentence ends after 。！？｡． anywhere, and after . ! ? if white space or the end of the text follows, so that none
ends in 3.14, www.x.org or v2.0. Closing quotes and brackets after the mark belong to the sentence: 说：“走吧。”
ends after the quote. A straight quote after a mark counts as closing.

The word before a full stop is not looked at: a sentence ends within "Mr. Smith" and "e.g. this" too. A line break alone
ends none, because a heading is not a sentence.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

_ANYWHERE = "。！？｡．"
_CLOSING = r"""["'”’»›」』】〉》〕〗）)\]］}｝＂＇]*"""
_MARK = rf"[.!?{_ANYWHERE}]"
# not `_MARK+`: the regex engine skips to the first mark quickly only if the pattern begins with a plain set
_MARKS = re.compile(rf"({_MARK}{_MARK}*){_CLOSING}(\s*)")

Places = npt.NDArray[np.int64]


def sentence_ends(text: str) -> tuple[Places, Places]:
    """Where the sentences of a text end.

    Args:
        text: Any text.

    Returns:
        For each sentence, the index after its last character, and the index after the white space that follows.
    """
    size = len(text)
    found = [
        (match.start(2), match.end())
        for match in _MARKS.finditer(text)
        if match[2] or match.end() == size or not match[1].isascii()
    ]
    places = np.asarray(found, dtype=np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def tokens_at_ends(ends: Places, spaces: Places, starts: Places, stops: Places) -> Places:
    """The tokens that complete a sentence: nothing but white space may follow its last character in the token.

    Args:
        ends: Where each sentence ends, from `sentence_ends`, in characters or bytes.
        spaces: Where the white space after it ends.
        starts: Where each token starts, in the same unit, in order. Tokens that share a character share its start.
        stops: Where each token ends.

    Returns:
        Indices of tokens, in order. A sentence has none if its last character shares its token with the next sentence.
    """
    last = np.searchsorted(starts, ends, side="left") - 1
    known = (last >= 0) & (ends > 0)
    last, ends, spaces = last[known], ends[known], spaces[known]
    found: Places = last[(stops[last] >= ends) & (stops[last] <= spaces)]
    return np.unique(found)
