"""The rule about the language of questions and answers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from data_modules.cleaning.options import option
from data_modules.cleaning.units import units_of
from lit_sft.scripts import language_of, script_shares
from lit_sft.synthesis.candidate import Candidate
from lit_sft.synthesis.checks.source import source_of
from lit_sft.synthesis.checks.words import words_in

_SCRIPTS = {"zh": "Han", "en": "Latin"}

_FUNCTION_WORDS = {
    "English": "the of and to in is was for with on by as from that which are were it his her their what who when how",
    "French": "le la les des une est dans que qui pour du et au aux sur pas par avec son ses cette il elle sont été",
    "German": "der die das und ist nicht ein eine einer von mit den dem im zu auf für wurde als sich auch wird bei",
    "Spanish": "el la los las del que y en una es por con para su al lo se fue como más cuál quién está son",
    "Italian": "il lo la gli di che è una per con del della nel sono da dei anche come alla delle più quale fu",
    "Portuguese": "o os as da do que e em um uma é por com para dos das não na no foi ao mais quem são",
    "Dutch": "de het een van en is dat op te zijn met voor niet aan werd er om ook door bij als wie wat",
}
"""Frequent words of languages in Latin script."""

_OTHERS = {
    name: set(words_in(words)) - set(words_in(_FUNCTION_WORDS["English"])) for name, words in _FUNCTION_WORDS.items()
}
_ENGLISH = set(words_in(_FUNCTION_WORDS["English"]))
_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|《[^》]*》|「[^」]*」")

_NAME = 4
"""Words, or characters of Chinese, of an answer that may be a name in an article in another language."""

_FEWEST = 3
_LEAST_SHARE = 0.25
"""Function words of another language needed to recognise it; two are enough if they are this share of a text that has
none of English."""

_SIMPLIFIED = (
    "国们这个说时来为会学对发经过还进种样实现开关问间长东车马鸟鱼龙门见贝页风飞语话读写书画乐业义习乡买卖产亲亿仅从仓价众优传伤伦"
    "体佣侠俩债倾储儿党兰兴养兽冈册军农决况冻净减凤击刘则创别剂剑剧劝办务动励劳势区医华协单卢卫厂厅历压厌厕县参双变叶号叹吓"
    "吕听启员响哑园围图圆圣场块坚坛坝坟坠垒声壳处备复头夹夺奋奖妇妈孙宁宝审宪宫宽宾寝对寻导寿将尔尘层岁岂岗岛岭币师带帮广庆应庙废"
)
_TRADITIONAL = (
    "國們這個說時來為會學對發經過還進種樣實現開關問間長東車馬鳥魚龍門見貝頁風飛語話讀寫書畫樂業義習鄉買賣產親億僅從倉價眾優傳傷倫"
    "體傭俠倆債傾儲兒黨蘭興養獸岡冊軍農決況凍淨減鳳擊劉則創別劑劍劇勸辦務動勵勞勢區醫華協單盧衛廠廳歷壓厭廁縣參雙變葉號嘆嚇"
    "呂聽啟員響啞園圍圖圓聖場塊堅壇壩墳墜壘聲殼處備復頭夾奪奮獎婦媽孫寧寶審憲宮寬賓寢對尋導壽將爾塵層歲豈崗島嶺幣師帶幫廣慶應廟廢"
)
"""The same characters in both scripts: frequent ones whose simplified form is no character of its own."""

_VARIANTS = {"simplified": set(_SIMPLIFIED) - set(_TRADITIONAL), "traditional": set(_TRADITIONAL) - set(_SIMPLIFIED)}


@dataclass(frozen=True)
class SameLanguage:
    """Refuses questions and answers in another language than the article: by script, by the function words of
    languages in Latin script, and by characters that only simplified or only traditional Chinese has. Words of the
    article and quotations may be in any script. If the article itself is in another language than asked for, only
    answers as short as a name may be in the article's."""

    share: float = option(
        "Least share of words, or characters of Chinese, in the script of the article's language.",
        float,
        0.75,
        least=0,
        most=1,
    )

    def __call__(self, candidate: Candidate) -> str:
        """Why a conversation is refused; empty if it is not."""
        language, article = candidate.article.language, candidate.article.text
        known = set(source_of(article).units)
        is_other = bool(_letters(article)) and _letters(article) != language
        for turn in candidate.turns:
            known |= {unit for quoted in _QUOTED.findall(turn[0]) for unit in units_of(quoted)}
            for what, text in zip(("question", "answer"), turn, strict=True):
                units = [unit for unit in units_of(text) if unit not in known]
                is_name = what == "answer" and not units and len(units_of(text)) <= _NAME
                if is_other and not is_name and _letters(text) not in ("", language):
                    return f"the {what} is in the language of the article"
                fault = self._other_script(units, text, language) or (
                    _other_variant(text, article) if language == "zh" else _other_words(units, text)
                )
                if fault:
                    return f"the {what} {fault}"
        return ""

    def _other_script(self, units: list[str], text: str, language: str) -> str:
        """What is wrong with the scripts of a text, of which the article does not have these words."""
        scripts = Counter(script for unit in units if (script := _script_of(unit)))
        own = _SCRIPTS[language]
        num, foreign = len(units_of(text)), sum(scripts.values()) - scripts[own]
        if language == "zh" and scripts["Hiragana"] + scripts["Katakana"] > 1:
            return "has kana"
        if num and foreign > (1 - self.share) * num:
            other = next(script for script, _ in scripts.most_common() if script != own)
            return f"has {foreign} of {num} words in {other} script"
        return ""


@lru_cache(maxsize=16)  # the pairs of an article follow each other
def _letters(text: str) -> str:
    """The language that a text seems to be in, `other`, or empty without letters."""
    text = text.encode("utf-8", "replace").decode()  # lone surrogates are no letters
    return language_of(text) or ("other" if script_shares(text) else "")


@lru_cache(maxsize=2**15)
def _script_of(unit: str) -> str:
    return next(iter(script_shares(unit)), "")


def _other_words(units: list[str], text: str) -> str:
    """Whether function words say that a text in Latin script is not in English."""
    every = units_of(text)
    english = sum(unit in _ENGLISH for unit in every)
    counts = {name: sum(unit in words for unit in units) for name, words in _OTHERS.items() if name != "English"}
    name, num = max(counts.items(), key=lambda item: item[1])
    is_clear = num >= _FEWEST and num > english
    if is_clear or (num >= 2 and not english and num >= _LEAST_SHARE * len(every)):
        return f"seems to be in {name}"
    return ""


def _other_variant(text: str, article: str) -> str:
    """Whether a text has characters of the Chinese script that its article is not in."""
    found = {name: (set(text) & characters) - set(article) for name, characters in _VARIANTS.items()}
    if not any(found.values()):
        return ""
    in_article = {name: len(set(article) & characters) for name, characters in _VARIANTS.items()}
    for name, other in (("traditional", "simplified"), ("simplified", "traditional")):
        if found[name] and in_article[other] > in_article[name]:
            return f"is in {name} Chinese: {''.join(sorted(found[name]))[:5]}"
    return ""
