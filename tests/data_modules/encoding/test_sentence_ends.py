from __future__ import annotations

import pytest

from data_modules.encoding.sentence_ends import sentence_ends


@pytest.mark.parametrize(
    "marked",
    [
        "他走了。|她来了！|真的吗？|是",
        "他说：“走吧。”|她没走。|",
        "「好。」|（完。）|『真的？！』|",
        "他走了。|  她来了",
        "He left.| She came!| Really?!| yes",
        '"Go."| He said "no!"| (Really.)| ok',
        '"Wait," she said.| No.|',
        "Pi is 3.14 and www.x.org is v2.0",
        "Pi is 3.14.| Two.|",
        "Mr.| Smith, e.g.| this",
        "Wait...| What?|",
        "A heading\n\nText.|\n\nMore.|",
        "全角．|句号｡|完",
        "中文.英文",
        "",
        "。|",
        "no end",
    ],
)
def test_sentences_end_at_the_marks(marked: str) -> None:
    text, expected = marked.replace("|", ""), []
    for part in marked.split("|")[:-1]:
        expected.append(len(part) + (expected[-1] if expected else 0))
    ends, spaces = sentence_ends(text)
    assert ends.tolist() == expected
    assert [text[end:space].strip() for end, space in zip(ends, spaces, strict=True)] == [""] * len(expected)
    assert all(space == len(text) or not text[space].isspace() for space in spaces)
