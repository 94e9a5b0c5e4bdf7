"""Cases of rules about characters and punctuation: options, text before, text after. Equal texts must not change."""

from __future__ import annotations

from typing import Any

Case = tuple[dict[str, Any], str, str]


def same(text: str, **options: Any) -> Case:
    return options, text, text


def becomes(before: str, after: str, **options: Any) -> Case:
    return options, before, after


CHARACTERS: dict[str, list[Case]] = {
    "line_ends": [
        becomes("one\r\ntwo\r\n", "one\ntwo\n"),
        becomes("old\rMac", "old\nMac"),
        becomes("第一行\u2028第二行\u2029第三行", "第一行\n第二行\n第三行"),
        becomes("page one\x0cpage two", "page one\npage two"),
        becomes("中\x85文\x0b字", "中\n文\n字"),
        becomes("a\r\r\n\nb", "a\n\n\nb"),
        same("plain\nlines\n\nand a blank one"),
        same("已经是换行\n的文本\t和制表符"),
    ],
    "control_characters": [
        becomes("a\x00b\x07c", "abc"),
        becomes("\ufeffThe first word", "The first word"),
        becomes("零\u200b宽\u2060字符", "零宽字符"),
        becomes("左\u200e右\u202e\u202c标记", "左右标记"),
        becomes("soft\u00adhyphen", "softhyphen"),
        becomes("lone \ud83d surrogate", "lone  surrogate"),
        becomes("中\u200d文 and a\u200cb", "中文 and ab"),
        becomes("joiner\u200b\u200d\u200b alone", "joiner alone"),
        same("a tab\tand a newline\nand a return\r\n"),
        same("家庭 👨\u200d👩\u200d👧，旗 🏴\u200d☠\ufe0f"),
        same("Persian می\u200cخواهم and Hindi क्\u200dष"),
    ],
    "nfc": [
        becomes("cafe\u0301", "café"),
        becomes("A\u030angstro\u0308m in 1 text", "Ångström in 1 text"),
        becomes("か\u3099き", "がき"),
        becomes("한글 \u1112\u1161\u11ab", "한글 한"),
        becomes("長 \uf9b4 字", "長 \u9818 字"),
        becomes("中文里的 e\u0301 字母", "中文里的 é 字母"),
        same("already é composed"),
        same("全角ＡＢＣ①㎏ﬁ"),
        same("x\u0301 has no composed form"),
    ],
    "latin_width": [
        becomes("ＰＣ机", "PC机"),
        becomes("２０２４年１月", "2024年1月"),
        becomes("圆周率是３．１４", "圆周率是3.14"),
        becomes("增长５０％", "增长50%"),
        becomes("Ｈｅｌｌｏ world", "Hello world"),
        becomes("增长50％", "增长50%"),
        same("半角 PC 2024 50%"),
        same("标点，不变。括号（也不变）！"),
        same("％ alone and カタカナ ｶﾀｶﾅ"),
    ],
    "white_space": [
        becomes("two  spaces\u00a0\u2003here", "two spaces here"),
        becomes("　　段落开头有全角空格。", "段落开头有全角空格。"),
        becomes("line end  \nnext\t\n", "line end\nnext"),
        becomes("one\n\n\n\ntwo\n \n\u3000\nthree", "one\n\ntwo\n\nthree"),
        becomes("\n \n  start", "  start"),
        becomes("中文　空格 \t 合并", "中文 空格 合并"),
        becomes("a\tb", "a b"),
        becomes("第一段\n \u3000第二段", "第一段\n第二段"),
        becomes(" \u00a0only\u00a0", "only"),
        same("```\n| a   | b  |\nx  = 1  \n\n\n```"),
        same("用 `a  b` 写"),
        same("one space, one line\n\nand a blank line"),
        same("if x:\n    return 1\n\tcase"),
        same("中文没有空格。\n第二行"),
    ],
    "punctuation_width": [
        becomes("你好,世界!", "你好，世界！"),
        becomes("他说“好”,走了.\nHe said “good”, and left.", "他说“好”，走了。\nHe said “good”, and left."),
        becomes("中\nIt means “that”。", "中\nIt means “that”."),
        becomes("标签: 负面, 见 https://example.com", "标签：负面，见 https://example.com"),
        becomes("步骤:  \n1. 开始", "步骤：  \n1. 开始"),
        becomes("他说:好的;然后走了.", "他说：好的；然后走了。"),
        becomes("作者:Peter", "作者：Peter"),
        same("真好:D"),
        becomes("北京(首都)很大", "北京（首都）很大"),
        becomes("(注释)在行首", "（注释）在行首"),
        becomes("正文(2) 只有一行", "正文（2）只有一行"),
        becomes("正文:(2) 只有一行", "正文：（2）只有一行"),
        becomes("北京( 首都 ) 很大(1) (2)。", "北京（首都）很大（1）（2）。"),
        becomes("标题(一)  \n下一行", "标题（一）  \n下一行"),
        same("难过:( 真的"),
        same("空的(  )括号"),
        becomes("真的吗?!他问", "真的吗？！他问"),
        becomes("第一句.第二句.", "第一句。第二句。"),
        becomes("Hello，world！How are you？", "Hello, world! How are you?"),
        becomes("The city（of angels）is big。", "The city (of angels) is big."),
        becomes("标题:https://example.com/a,b", "标题：https://example.com/a,b"),
        same("比分是3:2,时间12:30,共1,000人"),
        same("Hello, world (again)."),
        same("圆周率3.14和版本2.0"),
        same("访问 https://example.com/a,b?c=中 或 a.b@example.com,谢谢"),
        same("```\nprint('你好,世界')\n```"),
        same("用 `f('中,文')` 调用"),
        same('    x = ["中文", "第二,个"]'),
        same('printf("你好,世界!");'),
        same("文件名是中文.txt,www.例子.com"),
        same("好的:)"),
        same("等等...还有"),
        same("１２：３０"),
        same("《书名》，作者：王。"),
        same("She read 《红楼梦》, a novel, and 《西游记》 too."),
        becomes("《红楼梦》,作者曹雪芹", "《红楼梦》，作者曹雪芹"),
    ],
}
