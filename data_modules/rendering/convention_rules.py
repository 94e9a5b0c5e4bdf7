"""How other trainers encode a conversation, one function per trainer. `data_modules/rendering/conventions.py` lists
them with their sources.

Each function takes a `Task` and returns the tokens, cut to the limit as the trainer would cut them, or None if the
trainer drops the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, groupby

from transformers import PreTrainedTokenizerBase

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.chat_template import ChatTemplate
from data_modules.rendering.convention_tokens import (
    Part,
    Piece,
    Tokens,
    adds_bos,
    encode,
    joined,
    strings_of,
)
from data_modules.rendering.segments import SegmentKind, kind_of_turn
from data_modules.rendering.templates import AnyTemplate

_MARKED = "{% generation"
_EOS_DISTANCE = 3
"""How many tokens after an answer Axolotl looks for its end token."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a rule encodes.

    Attributes:
        conversation: An answered conversation.
        template: Renders it.
        tokenizer: Encodes it.
        limit: The trainer's maximum number of tokens.
        trained: The parts that the trainer trains.
        options: The trainer's settings that differ from its defaults.
    """

    conversation: Conversation
    template: AnyTemplate
    tokenizer: PreTrainedTokenizerBase
    limit: int
    trained: frozenset[Part]
    options: dict[str, str]

    def strings(self) -> list[list[Piece]]:
        """The text, one string per message."""
        return strings_of(self.template, self.conversation)

    def encode(self, pieces: list[Piece], *, special: bool = False, markers: bool = True) -> Tokens:
        """Encode pieces as one string."""
        return encode(pieces, self.tokenizer, self.trained, special=special, markers=markers)

    @property
    def is_chat(self) -> bool:
        """Whether the text comes from a chat template, which prints bos itself."""
        return isinstance(self.template, ChatTemplate) or self.template.name == "chatml"

    @property
    def eos_token_id(self) -> int:
        """The tokenizer's eos."""
        assert self.tokenizer.eos_token_id is not None, "checked when the convention is resolved"
        return int(self.tokenizer.eos_token_id)

    def refuse(self, what: str) -> UserError:
        """An error about something that the trainer does not read."""
        return UserError(f"{self.conversation.origin}: {what}.")


def _whole(task: Task) -> Tokens:
    """All text as one string."""
    return task.encode(list(chain.from_iterable(task.strings())), special=not task.is_chat)


def trl_messages(task: Task) -> Tokens | None:
    """TRL, `messages` or `text`: one string, every token trained, cut at the end."""
    return _whole(task).all_trained(True).first(task.limit)


def trl_assistant_only(task: Task) -> Tokens | None:
    """TRL, `assistant_only_loss`: the text inside the template's `{% generation %}` marks."""
    tokens = _whole(task)
    if isinstance(task.template, ChatTemplate) and _MARKED in str(task.tokenizer.chat_template):
        tokens = replace(tokens, trained=_marked(task, task.template))
    elif not any(piece.text == "<|im_start|>assistant" for pieces in tokens.pieces for piece in pieces):
        raise UserError(
            "TRL refuses a chat template without {% generation %} marks unless it knows one with marks; add them to "
            "the tokenizer's chat template, or set `--data.template chatml`."
        )
    return _with_labels(tokens.first(task.limit))


def _marked(task: Task, template: ChatTemplate) -> list[bool]:
    messages = [{"role": turn.role.value, "content": _content(turn)} for turn in task.conversation.turns]
    encoded = task.tokenizer.apply_chat_template(
        messages,
        chat_template=template.source,  # the tokenizer's own may print today's date, and have other ids
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    return [bool(flag) for flag in encoded["assistant_masks"]]


def trl_prompt_completion(task: Task) -> Tokens | None:
    """TRL, `prompt` and `completion`: everything after the longest prefix that prompt and conversation share."""
    tokens = _whole(task)
    prompt = task.encode(list(chain.from_iterable(strings_of(task.template, task.conversation.prompt()))),
                         special=not task.is_chat)  # fmt: skip
    same = [ours == theirs for ours, theirs in zip(prompt.ids, tokens.ids, strict=False)]
    return _with_labels(tokens.from_place([*same, False].index(False)).first(task.limit))


def _content(turn: Message) -> str:
    return f"{turn.content}\n{turn.context}" if turn.context else turn.content


def _with_labels(tokens: Tokens) -> Tokens | None:
    return tokens if any(tokens.trained) else None


def axolotl(task: Task) -> Tokens | None:
    """Axolotl, `chat_template`: the contents of the roles to train, and the eos within three tokens after each."""
    tokens, roles = _whole(task), task.options.get("roles_to_train", "assistant").split("+")
    train_on_eos = task.options.get("train_on_eos", "turn")
    trained, last = [False] * len(tokens), -1
    for index, turn in enumerate(task.conversation.turns):
        wanted = turn.role.value in roles and turn.is_trained
        places = [place for place, pieces in enumerate(tokens.pieces) if any(_is_content(p, index) for p in pieces)]
        if not places or not (wanted or train_on_eos == "all"):
            continue
        stop = places[-1] + 1
        for place in range(places[0], stop):
            trained[place] = trained[place] or wanted
        end = next((place for place in range(stop, len(tokens)) if tokens.ids[place] == task.eos_token_id), -1)
        if end >= 0 and end - stop <= _EOS_DISTANCE:
            last = end
            trained[end] = trained[end] or train_on_eos == "all" or (train_on_eos == "turn" and wanted)
    if train_on_eos == "last" and last >= 0:
        trained[last] = True
    return _with_labels(replace(tokens, trained=trained)) if len(tokens) <= task.limit else None


_CONTENTS = (Part.SYSTEM, Part.USER, Part.ANSWER, Part.THINKING)


def _is_content(piece: Piece, turn: int) -> bool:
    return piece.turn == turn and piece.part in _CONTENTS


def firefly(task: Task) -> Tokens | None:
    """Firefly: each message is a string of its own, its content stripped; cut at the end."""
    turns = tuple(replace(turn, content=turn.content.strip()) for turn in task.conversation.turns)
    task = replace(task, conversation=replace(task.conversation, turns=turns))
    return joined(map(task.encode, task.strings())).first(task.limit)


def llamafactory(task: Task) -> Tokens | None:
    """LLaMA-Factory: each message is a string of its own; pairs are cut in proportion until the limit is reached."""
    pairs = _pairs(task)
    only_last, kept = "mask_history" in task.options, Tokens()
    for number, (source, target) in enumerate(pairs[::-1] if only_last else pairs):
        if len(kept) >= task.limit:
            break
        source_length, target_length = _shares(len(source), len(target), task.limit - len(kept))
        source = source.first(source_length).all_trained("train_on_prompt" in task.options)
        target = target.first(target_length).all_trained(not (only_last and number))
        kept = source + target + kept if only_last else kept + source + target
    return kept


def _pairs(task: Task) -> list[tuple[Tokens, Tokens]]:
    strings = task.strings()
    if any(piece.part is Part.EMPTY_THINKING for string in strings for piece in string):
        raise task.refuse("LLaMA-Factory's reasoning templates are not reproduced; use a template without thinking")
    pairs, source = [], Tokens()
    for string in strings:
        if string[0].part is Part.ANSWER:
            pieces = [string] if task.is_chat else [[piece] for piece in string]  # its eos is a slot of its own
            pairs.append((source, joined(map(task.encode, pieces))))
            source = Tokens()
        else:
            source = source + task.encode(string)
    return pairs


def _shares(source: int, target: int, limit: int) -> tuple[int, int]:
    """How many tokens of a prompt and its answer are kept. Source: `infer_seqlen` of LLaMA-Factory."""
    if target * 2 < limit:
        most = limit
    elif source * 2 < limit:
        most = limit - source
    else:
        most = int(limit * (target / (source + target)))
    target = min(most, target)
    return min(max(limit - target, 0), source), target


def torchtune(task: Task) -> Tokens | None:
    """torchtune's Qwen2 tokenizer: headers, contents and footers are encoded one by one, and labels are per message."""
    tokens, last = Tokens(), len(task.conversation.turns) - 1
    limit = task.limit if "max_seq_len" in task.options else None
    end, new_line = "<|im_end|>", "\n"
    for index, turn in enumerate(task.conversation.turns):
        kind = kind_of_turn(turn, final=index == last)
        part = {Role.SYSTEM: Part.SYSTEM, Role.USER: Part.USER}.get(turn.role, Part.ANSWER)
        header, line, stop, after = (
            (Part.HEADER, Part.HEADER_END, Part.END, Part.AFTER_END) if part is Part.ANSWER else [Part.FRAME] * 4
        )
        frame = SegmentKind.TEMPLATE
        strings = [
            [Piece("<|im_start|>", header, frame, index)],
            [Piece(turn.role.value, header, frame, index), Piece(new_line, line, frame, index)],
            [Piece(_content(turn), part, kind, index)],
        ]
        if index != last or part is not Part.ANSWER:
            end_kind = kind if part is Part.ANSWER else frame
            strings += [[Piece(end, stop, end_kind, index)], [Piece(new_line, after, frame, index)]]
        tokens = tokens + joined(map(task.encode, strings))
        if limit is not None and len(tokens) >= limit:
            break
    tokens = tokens + task.encode([Piece(end, Part.END, kind, index)]).all_trained(tokens.trained[-1])
    if limit is None:
        return tokens if len(tokens) <= task.limit else None
    cut = tokens.first(limit)
    return Tokens([*cut.ids[:-1], tokens.ids[-1]], [*cut.pieces[:-1], tokens.pieces[-1]], [*cut.trained[:-1], False])


def litgpt(task: Task) -> Tokens | None:
    """LitGPT: prompt and answer are encoded apart and the tokenizer's eos is added; each is cut, then both."""
    *prompt, answer = task.strings()
    source = _litgpt_ids(task, list(chain.from_iterable(prompt)), bos=adds_bos(task.tokenizer))
    if source.ids[-1:] == [task.eos_token_id]:
        source = source.first(len(source) - 1)
    target = _litgpt_ids(task, answer[:1], bos=False)
    # an answer that ends with eos loses it: LitGPT takes it for one that the tokenizer added
    ended, eos = target.ids[-1:] == [task.eos_token_id], Tokens([task.eos_token_id], [(answer[1],)], [True])
    target = target.first(len(target) - 1) if ended else target + eos
    both = (source.first(task.limit) + target.first(task.limit)).first(task.limit)
    return both.from_place(len(source.first(task.limit)) if "mask_prompt" in task.options else 0)


def _litgpt_ids(task: Task, pieces: list[Piece], *, bos: bool) -> Tokens:
    tokens = task.encode(pieces, special=True)
    if not bos and tokens.ids and tokens.ids[0] == task.tokenizer.bos_token_id:
        return Tokens(tokens.ids[1:], tokens.pieces[1:], tokens.trained[1:])
    return tokens


def stanford_alpaca(task: Task) -> Tokens | None:
    """Stanford Alpaca: one string; as many tokens are masked as the prompt has when it is encoded alone."""
    *prompt, _ = task.strings()
    tokens = _whole(task).first(task.limit)
    source = task.encode([piece for string in prompt for piece in string], special=True)
    return tokens.from_place(min(len(source), task.limit))


def ultrachat(task: Task) -> Tokens | None:
    """UltraChat: user messages, headers and answers are encoded one by one."""
    strings, eos, last = [], str(task.tokenizer.eos_token), len(task.conversation.turns) - 1
    for index, turn in enumerate(task.conversation.turns):
        kind, frame = kind_of_turn(turn, final=index == last), SegmentKind.TEMPLATE
        if turn.role is Role.ASSISTANT:
            strings.append([Piece("\nAssistant: ", Part.HEADER, frame, index)])
            strings.append([Piece(turn.content, Part.ANSWER, kind, index), Piece(eos, Part.END, kind, index)])
        else:
            start = "\n" if index else str(task.tokenizer.bos_token)
            pieces = [Piece(start, Part.FRAME, frame, index), Piece("User: ", Part.FRAME, frame, index)]
            strings.append([*pieces, Piece(turn.content, Part.USER, kind, index), Piece(eos, Part.FRAME, frame, index)])
    return joined(map(task.encode, strings)).first(task.limit)


def nanochat(task: Task) -> Tokens | None:
    """nanochat: markers are single tokens; contents are encoded one by one, and markers in them stay text."""
    tokens = Tokens()
    pieces = chain.from_iterable(task.strings())
    for is_marker, run in groupby(
        pieces, key=lambda piece: piece.text.startswith("<|") and piece.part not in _CONTENTS
    ):
        tokens = tokens + task.encode(list(run), markers=is_marker)
    return tokens.first(task.limit)


def minimind(task: Task) -> Tokens | None:
    """MiniMind: searches the ids for the header of an answer and for the end token with its newline."""
    tokens = _whole(task).first(task.limit)
    start, end = (
        task.tokenizer(text, add_special_tokens=False).input_ids for text in ("<|im_start|>assistant\n", "<|im_end|>\n")
    )
    trained, place = [False] * len(tokens), 0
    while place < len(tokens):
        if tokens.ids[place : place + len(start)] != start:
            place += 1
            continue
        place += len(start)
        stop = next((at for at in range(place, len(tokens)) if tokens.ids[at : at + len(end)] == end), len(tokens))
        place, begin = stop + len(end), place
        trained[begin:place] = [True] * len(trained[begin:place])
    return replace(tokens, trained=trained)
