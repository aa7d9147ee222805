"""Chats as the tokenizer's template writes them: a prompt, and the answer that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from harness.own_data import Turn
from prefix_tuning.errors import UserError


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], **options: Any) -> str:
    if tokenizer.chat_template is None:
        raise UserError(
            "the data is a chat, and the tokenizer of this model has no chat template: take an "
            "instruct model, or data with columns source and target"
        )
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except Exception as error:  # whatever a template raises, it is about the messages
        roles = ", ".join(role for role, _ in turns)
        raise UserError(f"the chat template refuses the turns {roles} ({error!s})") from error


def prompt(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """The turns, and what the template puts in front of an answer.

    Raises:
        UserError: there is no template, or it refuses them.
    """
    return _render(tokenizer, turns, add_generation_prompt=True)


def answer(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], text: str) -> str:
    """What the template writes behind :func:`prompt` for the answer ``text``, without an end token.

    Raises:
        UserError: as :func:`prompt`.
    """
    before = prompt(tokenizer, turns)
    whole = _render(tokenizer, [*turns, ("assistant", text)])
    if not whole.startswith(before):  # the template shows earlier turns otherwise
        return text
    rest = whole[len(before) :]
    inside = rest.find(text.strip())
    return rest[: inside + len(text.strip())] if inside >= 0 else text
