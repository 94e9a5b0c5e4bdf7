"""The conventions by name: what each trainer trains of a conversation, how it cuts it, and where that was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from data_modules.rendering import convention_rules as rules
from data_modules.rendering.convention_rules import Task
from data_modules.rendering.convention_tokens import EMITTED, SPOKEN, Part, Tokens
from data_modules.rendering.templates import ALPACA, CHATML, Template

_EVERY_PART = frozenset(Part)

# Source: LitGPT's `alpaca` prompt style: unlike Stanford's prompts, a newline follows "### Response:".
_LITGPT_ALPACA = replace(
    ALPACA,
    user=ALPACA.user + "\n",
    user_with_context=ALPACA.user_with_context + "\n",
    system="{system}",
)
_LITGPT_CHATML = replace(CHATML, end=None, between="", closing="")

# Source: LLaMA-Factory's template `alpaca`: the input follows the instruction without a header of its own.
_FACTORY_ALPACA = replace(
    ALPACA,
    user="### Instruction:\n{user}\n\n### Response:\n",
    user_with_context="### Instruction:\n{user}\n{context}\n\n### Response:\n",
    opening_with_context=ALPACA.opening,
    system="{system}",
    closing="\n\n",
)

_ULTRACHAT = Template(name="ultrachat", opening="{bos}", system="", user="User: {user}{eos}\nAssistant: ",
                      user_with_context="User: {user}\n{context}{eos}\nAssistant: ", between="\n")  # fmt: skip

_NANOCHAT = Template(
    name="nanochat",
    opening="<|bos|><|user_start|>",
    system="<|bos|><|user_start|>{system}\n\n",
    user="{user}<|user_end|><|assistant_start|>",
    user_with_context="{user}\n{context}<|user_end|><|assistant_start|>",
    end="<|assistant_end|>",
    between="<|user_start|>",
)


@dataclass(frozen=True, slots=True)
class Convention:
    """What a trainer does with a conversation.

    Attributes:
        name: What the user types.
        rule: Encodes a conversation as the trainer does.
        trained: The parts with labels.
        templates: Templates of this trainer by our name; the first is the default. None: any template of ours.
        strings: What the trainer encodes as one string.
        bos: Where a bos token comes from.
        cut: What is cut from a conversation that is too long.
        end_when_cut: What happens to the last end token then.
        tools: How tool calls and tool results are trained.
        thinking: How thinking, and an empty thinking block that the template inserts, is trained.
        source: Where the rule was read, and of which version.
        notes: What else differs from other trainers.
        choices: Options, each with its values; `()` for a switch.
        refused: Roles and shapes of conversations that the trainer does not read, and why.
        markers: Whether markers in contents become tokens.
    """

    name: str
    rule: Callable[[Task], Tokens | None]
    trained: frozenset[Part]
    strings: str
    bos: str
    cut: str
    end_when_cut: str
    tools: str
    thinking: str
    source: str
    notes: str = ""
    templates: dict[str, Template | None] | None = None
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    markers: bool = True


_CHAT: dict[str, Template | None] = {"chatml": None, "tokenizer": None}
_NO_DOCUMENTS = ("plain text", "untrained answer")
_TEXT_TOOLS = "tool calls trained, tool results not"

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="firefly",
            rule=rules.firefly,
            trained=frozenset({Part.THINKING, Part.ANSWER, Part.END, Part.AFTER_END}),
            templates=_CHAT,
            refused=_NO_DOCUMENTS,
            strings="each message; its content is stripped",
            bos="none",
            cut="the end",
            end_when_cut="lost",
            tools="no tools",
            thinking="no thinking",
            source="yangjianxin1/Firefly, component/dataset.py and template.py (commit e22b406, October 2024)",
        ),
        Convention(
            name="stanford_alpaca",
            rule=rules.stanford_alpaca,
            trained=EMITTED,
            templates={"alpaca": None},
            refused=(*_NO_DOCUMENTS, "system message", "several answers"),
            strings="prompt and answer together",
            bos="the tokenizer's",
            cut="the end",
            end_when_cut="lost",
            tools="no tools",
            thinking="no thinking",
            source="tatsu-lab/stanford_alpaca, train.py (commit 761dc5b, May 2023)",
            notes="As many tokens are masked as the prompt has when it is encoded alone, so a token that merges prompt "
            "and answer shifts the border. A conversation whose prompt fills the limit stays, without labels.",
        ),
        Convention(
            name="ultrachat",
            rule=rules.ultrachat,
            trained=frozenset({Part.ANSWER, Part.END}),
            templates={"ultrachat": _ULTRACHAT},
            refused=(*_NO_DOCUMENTS, "system message", "context"),
            strings="each user message, answer header and answer",
            bos="always",
            cut="the end",
            end_when_cut="lost",
            tools="no tools",
            thinking="no thinking",
            source="thunlp/UltraChat, train/ultrachat_dataset.py (commit 1f613e1, March 2024)",
        ),
        Convention(
            name="trl:messages",
            rule=rules.trl_messages,
            trained=_EVERY_PART,
            refused=("untrained answer",),
            strings="the conversation",
            bos="the chat template's; for other text the tokenizer's",
            cut="the end",
            end_when_cut="lost",
            tools="both trained",
            thinking="trained",
            source="TRL 1.16.0, trl/trainer/sft_trainer.py, rows with `messages` or `text`",
        ),
        Convention(
            name="trl:assistant_only",
            rule=rules.trl_assistant_only,
            trained=SPOKEN,
            templates={"tokenizer": None, "chatml": None},
            refused=_NO_DOCUMENTS,
            strings="the conversation",
            bos="the chat template's",
            cut="the end; dropped if no label is left",
            end_when_cut="lost",
            tools=_TEXT_TOOLS,
            thinking="trained",
            source="TRL 1.16.0, trl/trainer/sft_trainer.py, `assistant_only_loss`; "
            "trl/chat_templates/qwen2_5_training.jinja",
            notes="Trains what the chat template marks as generated. Without marks, TRL replaces the templates that it "
            "knows and refuses others; the rule for ChatML is that of its template for Qwen2.5. Its templates for "
            "Qwen3, Phi-3, Gemma and Llama-3 do not mark the newline after the header.",
        ),
        Convention(
            name="trl:prompt_completion",
            rule=rules.trl_prompt_completion,
            trained=SPOKEN,
            refused=_NO_DOCUMENTS,
            strings="the conversation",
            bos="the chat template's; for other text the tokenizer's",
            cut="the end; dropped if no label is left",
            end_when_cut="lost",
            tools=_TEXT_TOOLS,
            thinking="trained in the last answer",
            source="TRL 1.16.0, trl/trainer/sft_trainer.py, rows with `prompt` and `completion`",
            notes="Only the last answer, from the first token that differs from the prompt encoded alone.",
        ),
        Convention(
            name="llamafactory",
            rule=rules.llamafactory,
            trained=frozenset({Part.THINKING, Part.TOOL_CALL, Part.ANSWER, Part.END, Part.AFTER_END}),
            templates={"tokenizer": None, "chatml": None, "alpaca": _FACTORY_ALPACA},
            choices={"train_on_prompt": (), "mask_history": ()},
            refused=_NO_DOCUMENTS,
            strings="each message",
            bos="the template's",
            cut="each prompt and answer in proportion, later turns first; with mask_history earlier turns first",
            end_when_cut="lost",
            tools=_TEXT_TOOLS,
            thinking="reasoning templates put an empty block before answers without thinking and train it "
            "(enable_thinking off: not trained); not reproduced",
            source="LLaMA-Factory 0.9.5, data/processor/supervised.py, processor_utils.py and template.py",
        ),
        Convention(
            name="axolotl",
            rule=rules.axolotl,
            trained=EMITTED,
            templates={"tokenizer": None, "chatml": None},
            choices={
                "train_on_eos": ("turn", "all", "last", "none"),
                "roles_to_train": ("system", "user", "assistant"),
            },
            refused=("plain text",),
            strings="the conversation",
            bos="the chat template's",
            cut="nothing: the conversation is dropped",
            end_when_cut="lost with the conversation",
            tools=_TEXT_TOOLS,
            thinking="trained; an empty block is not",
            source="Axolotl 0.19.0, prompt_strategies/chat_template.py and utils/data/utils.py",
            notes="The end token is trained only if it is the tokenizer's eos: with the tokenizer of a base Qwen model "
            "it is not. A token that merges header and answer is trained.",
        ),
        Convention(
            name="torchtune",
            rule=rules.torchtune,
            trained=frozenset({*SPOKEN, Part.HEADER}),
            templates={"chatml": None},
            choices={"max_seq_len": ()},
            refused=_NO_DOCUMENTS,
            strings="each marker, role and content",
            bos="none",
            cut="nothing; with max_seq_len the end",
            end_when_cut="replaces the last token, never trained",
            tools=_TEXT_TOOLS,
            thinking="no thinking",
            source="torchtune 0.6.1, models/qwen2/_tokenizer.py, datasets/_sft.py and data/_utils.py",
            notes="No newline follows the last end token. With max_seq_len the last end token is never trained, not "
            "even if nothing is cut. Without it nothing is cut; conversations longer than `--data.max_length` are "
            "dropped here.",
        ),
        Convention(
            name="litgpt",
            rule=rules.litgpt,
            trained=frozenset({Part.ANSWER, Part.END}),
            templates={"alpaca": _LITGPT_ALPACA, "chatml": _LITGPT_CHATML},
            choices={"mask_prompt": ()},
            refused=(*_NO_DOCUMENTS, "several answers"),
            strings="the prompt; the answer",
            bos="the tokenizer's",
            cut="the end of the prompt, of the answer, then of both",
            end_when_cut="lost",
            tools="no tools",
            thinking="no thinking",
            source="LitGPT 0.5.13, litgpt/data/base.py, prompts.py and tokenizer.py",
            notes="Trains the prompt too, unless mask_prompt is set. The end token is always the tokenizer's eos.",
        ),
        Convention(
            name="nanochat",
            rule=rules.nanochat,
            trained=frozenset({Part.TOOL_CALL, Part.ANSWER, Part.END}),
            templates={"nanochat": _NANOCHAT},
            refused=_NO_DOCUMENTS,
            strings="each content",
            bos="always",
            cut="the end",
            end_when_cut="lost",
            tools="calls trained, results not",
            thinking="no thinking",
            source="karpathy/nanochat, nanochat/tokenizer.py and scripts/chat_sft.py (commit 92d63d4, July 2026)",
            notes="The system text becomes the beginning of the first user message.",
            markers=False,
        ),
        Convention(
            name="minimind",
            rule=rules.minimind,
            trained=frozenset({*SPOKEN} - {Part.HEADER_END}),
            templates=_CHAT,
            refused=_NO_DOCUMENTS,
            strings="the conversation",
            bos="none",
            cut="the end",
            end_when_cut="lost",
            tools=_TEXT_TOOLS,
            thinking="trained; an empty block is removed from four of five conversations at random (not reproduced)",
            source="jingyaogong/minimind, dataset/lm_dataset.py (commit d65ef2c, August 2026)",
            notes="Finds answers by searching the ids for the header, so an answer that begins with a newline is not "
            "trained if the tokenizer merges the two. Adds a random system message to one conversation in five that "
            "has none (not reproduced).",
        ),
    )
}
