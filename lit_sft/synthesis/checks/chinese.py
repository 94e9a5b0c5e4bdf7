"""Traditional Chinese read as simplified, so that rules need one form of each word."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from lit_sft.synthesis.candidate import Candidate

_SIMPLIFIED = (
    "万与两严个为为么么乐乔乡于亚亩亿从仑们会余儿兰关内写军冯几刘创刹办华占卢厘县发叶号后吕吗吨听吴国圆场块处头孙学"
    "实宽对将层届岁岛币师帮并应张当总据摄断无时暂杀条来杨极样档欧汤没温点画确礼禅种称筑简类级纪纳绍结给统维罗脉节苏"
    "范萧蒋补认讲许论设词诗话该详语误说请诸课谁谢谭贺贾资赖赵轻较辆输达过还这远遗邓邹郑释里里针钟钟钱错镇镑长问间阎"
    "阳陆陈随隐韩页顷项顾颗题饭马黄龙龚周只"
)
_TRADITIONAL = (
    "萬與兩嚴個為爲麼麽樂喬鄉於亞畝億從侖們會餘兒蘭關內寫軍馮幾劉創剎辦華佔盧釐縣發葉號後呂嗎噸聽吳國圓場塊處頭孫學"
    "實寬對將層屆歲島幣師幫並應張當總據攝斷無時暫殺條來楊極樣檔歐湯沒溫點畫確禮禪種稱築簡類級紀納紹結給統維羅脈節蘇"
    "範蕭蔣補認講許論設詞詩話該詳語誤說請諸課誰謝譚賀賈資賴趙輕較輛輸達過還這遠遺鄧鄒鄭釋裏裡針鍾鐘錢錯鎮鎊長問間閻"
    "陽陸陳隨隱韓頁頃項顧顆題飯馬黃龍龔週隻"
)
"""Both forms of the characters that the rules look for."""

_TABLE = str.maketrans(_TRADITIONAL, _SIMPLIFIED)


@lru_cache(maxsize=64)  # the pairs of an article follow each other
def simplified(text: str) -> str:
    """A text with simplified forms of the traditional characters that the rules look for, of the same length."""
    return text.translate(_TABLE)


def in_simplified(candidate: Candidate) -> Candidate:
    """A conversation in simplified Chinese, as far as the rules look for it; English ones as they are."""
    article = candidate.article
    if article.language != "zh":
        return candidate
    turns = tuple((simplified(question), simplified(answer)) for question, answer in candidate.turns)
    return replace(
        candidate,
        turns=turns,
        article=replace(article, text=simplified(article.text)),
        asked=simplified(candidate.asked),
    )
