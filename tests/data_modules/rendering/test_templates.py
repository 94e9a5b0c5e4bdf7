from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.segments import SegmentKind
from data_modules.rendering.templates import resolve_template

K = SegmentKind

JINJA_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
JINJA_STRIPPING = JINJA_CHATML.replace("m['content'] }}", "m['content'] | trim }}")
JINJA_DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + JINJA_CHATML.partition("%}")[2]
JINJA_UPPER = JINJA_CHATML.replace("m['content'] }}", "m['content'] | upper }}")
JINJA_OTHER_PROMPT = JINJA_CHATML.replace("assistant\n{% endif", "assistant\nThink: {% endif")
JINJA_NO_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def chat(*contents: str, system: str | None = None, context: str = "") -> Conversation:
    turns = [Message(Role.SYSTEM, system)] if system else []
    for index, content in enumerate(contents):
        role = Role.ASSISTANT if index % 2 else Role.USER
        turns.append(Message(role, content, context if index == 0 else ""))
    return Conversation(tuple(turns), "f.json:7")


def with_template(tokenizer: PreTrainedTokenizerFast, jinja: str) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = jinja
    return tokenizer


def rendered(name: str, tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> list[tuple[str, K]]:
    template = resolve_template(name, tokenizer)  # type: ignore[arg-type]
    return [(segment.text, segment.kind) for segment in template.render(conversation)]


def test_alpaca_is_stanfords_prompt_with_and_without_input(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = "".join(text for text, _ in rendered("alpaca", tokenizer, chat("Add.", "3")))
    assert plain == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:3<|endoftext|>"
    )
    with_input = "".join(text for text, _ in rendered("alpaca", tokenizer, chat("Add.", "3", context="1 2")))
    assert with_input == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
        "### Response:3<|endoftext|>"
    )


def test_chatml_headers_are_template_and_end_tokens_are_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert rendered("chatml", tokenizer, chat("a", "b", "c", "d", system="s")) == [
        ("<|im_start|>system\n", K.TEMPLATE),
        ("s", K.SYSTEM),
        ("<|im_end|>\n<|im_start|>user\n", K.TEMPLATE),
        ("a", K.USER),
        ("<|im_end|>\n<|im_start|>assistant\n", K.TEMPLATE),
        ("b", K.ANSWER),
        ("<|im_end|>", K.ANSWER),
        ("\n<|im_start|>user\n", K.TEMPLATE),
        ("c", K.USER),
        ("<|im_end|>\n<|im_start|>assistant\n", K.TEMPLATE),
        ("d", K.FINAL_ANSWER),
        ("<|im_end|>", K.FINAL_ANSWER),
        ("\n", K.TEMPLATE),
    ]


def test_plain_template_ends_answers_with_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "".join(text for text, _ in rendered("plain", tokenizer, chat("a", "b", "c", "d")))
    assert text == "User:\na\n\nAssistant:\nb<|endoftext|>\n\nUser:\nc\n\nAssistant:\nd<|endoftext|>"


@pytest.mark.parametrize("name", ["alpaca", "chatml", "plain", "tokenizer"])
@pytest.mark.parametrize(
    "conversation", [chat("a", "b"), chat("a", "b", "c", "d", system="s"), chat("a", "b", context="x")]
)
def test_prompt_is_the_beginning_of_the_training_text(
    tokenizer: PreTrainedTokenizerFast, name: str, conversation: Conversation
) -> None:
    tokenizer = with_template(tokenizer, JINJA_CHATML)
    full, prompt = rendered(name, tokenizer, conversation), rendered(name, tokenizer, conversation.prompt())
    assert full[: len(prompt)] == prompt
    assert full[len(prompt)][1] is K.FINAL_ANSWER


def test_tokenizer_chat_template_is_split_into_the_same_segments_as_chatml(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = chat("a", "b<|im_end|>", "c", "d", system="s", context="x")
    own = rendered("tokenizer", with_template(tokenizer, JINJA_CHATML), conversation)

    def by_character(segments: list[tuple[str, K]]) -> list[tuple[str, K]]:
        return [(char, kind) for text, kind in segments for char in text]

    assert by_character(own) == by_character(rendered("chatml", tokenizer, conversation))


def test_chat_template_that_strips_is_exact_on_the_stripped_text(tokenizer: PreTrainedTokenizerFast) -> None:
    segments = rendered("tokenizer", with_template(tokenizer, JINJA_STRIPPING), chat(" a\n", "\nb "))
    assert ("a", K.USER) in segments
    assert ("b", K.FINAL_ANSWER) in segments


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        (JINJA_DROPS_SYSTEM, "it drops or repeats turns"),
        (JINJA_UPPER, "it does not render turns unchanged between fixed markers"),
        (
            JINJA_OTHER_PROMPT,
            "its prompt ends with '.*assistant.nThink: ', but an answer follows '.*assistant.n'",
        ),
    ],
)
def test_tokenizer_chat_template_without_an_exact_split_is_refused(
    tokenizer: PreTrainedTokenizerFast, jinja: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"f.json:7: the tokenizer's own chat template cannot be split.*{message}"):
        rendered("tokenizer", with_template(tokenizer, jinja), chat("a", "b", system="s"))


@pytest.mark.parametrize("odd", [3, 81, 195])
def test_text_before_any_answer_of_a_long_conversation_is_emitted(tokenizer: PreTrainedTokenizerFast, odd: int) -> None:
    thinks = JINJA_CHATML.replace(
        "{{ m['content'] }}", "{% if loop.index0 == ODD %}Think: {% endif %}{{ m['content'] }}"
    )
    contents = [f"turn {n}" for n in range(200)]
    assert len(rendered("tokenizer", with_template(tokenizer, JINJA_CHATML), chat(*contents))) == 501
    segments = rendered("tokenizer", with_template(tokenizer, thinks.replace("ODD", str(odd))), chat(*contents))
    assert len(segments) == 502
    assert ("Think: ", K.ANSWER) in segments


@pytest.mark.parametrize("odd", [3, 195])
def test_an_answer_that_is_rendered_differently_later_is_context_in_a_long_conversation(
    tokenizer: PreTrainedTokenizerFast, odd: int
) -> None:
    forgets = JINJA_CHATML.replace(
        "{{ m['content'] }}", "{% if loop.index0 == ODD and loop.last %}Think: {% endif %}{{ m['content'] }}"
    )
    contents = [f"turn {n}" for n in range(200)]
    segments = rendered("tokenizer", with_template(tokenizer, forgets.replace("ODD", str(odd))), chat(*contents))
    untrained = [text for text, kind in segments if kind is K.CONTEXT_ANSWER]
    assert untrained == [f"turn {odd}"]
    assert len([text for text, kind in segments if kind is K.ANSWER]) == 2 * 98


def test_own_chat_template_without_end_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=r"an answer is followed by .*which is not a special token"):
        resolve_template("tokenizer", with_template(tokenizer, JINJA_NO_END))


def test_auto_takes_the_tokenizers_own_template_where_it_has_one(tokenizer: PreTrainedTokenizerFast) -> None:
    assert resolve_template("auto", tokenizer).name == "plain"
    assert resolve_template("auto", with_template(tokenizer, JINJA_CHATML)).name == "tokenizer"


def test_missing_markers_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import Tokenizer, models

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    with pytest.raises(ValueError, match=r"template 'plain' ends answers with the eos token"):
        resolve_template("plain", bare)
    with pytest.raises(ValueError, match=r"template 'chatml' needs the token '<\|im_end\|>'"):
        resolve_template("chatml", bare)
    with pytest.raises(ValueError, match="the tokenizer has no chat template; use"):
        resolve_template("tokenizer", bare)


def test_plain_text_is_one_segment_plus_the_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    document = Conversation((Message(Role.TEXT, "Once."),), "f.txt:1")
    assert rendered("plain", tokenizer, document) == [("Once.", K.TEXT), ("<|endoftext|>", K.TEXT)]


@pytest.mark.parametrize(
    ("jinja", "fault"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 'a' + 1 }}", "TypeError: can only concatenate str"),
        ("{{ messages | map('list') | join | int // 0 }}", "ZeroDivisionError: "),
    ],
)
def test_own_chat_template_that_fails_is_refused_by_name(
    tokenizer: PreTrainedTokenizerFast, jinja: str, fault: str
) -> None:
    message = rf"the tokenizer's own chat template fails on this conversation \({fault}.*--data.template chatml"
    with pytest.raises(UserError, match=message):
        resolve_template("tokenizer", with_template(tokenizer, jinja))
    fails_on_system = f"{{% if messages[0]['role'] == 'system' %}}{jinja}{{% endif %}}{JINJA_CHATML}"
    own = with_template(tokenizer, fails_on_system)
    with pytest.raises(UserError, match=f"f.json:7: {message}"):
        rendered("tokenizer", own, chat("a", "b", system="s"))
