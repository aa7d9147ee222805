"""Data: records -> token ids -> batches.

``S`` being the separator (GPT-2: ``<|endoftext|>``) and ``E`` the end token (the same in
GPT-2), a training example is ``" SOURCE S TARGET E"`` with exactly these spaces, and the loss is on
everything after the separator. E2E's targets end with a space in the file, so two stand before
their end token; the paper's numbers include that. Other tasks differ in the spaces
(``gpt2/tasks.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from gpt2.readers import Record
from gpt2.tasks import Layout
from harness.own_data import Turn
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import IGNORE, target_positions


def _chat_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], **options: Any) -> str:
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


def chat_prompt(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """The turns, and what the template puts in front of an answer.

    Raises:
        UserError: there is no template, or it refuses them.
    """
    return _chat_text(tokenizer, turns, add_generation_prompt=True)


def chat_answer(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], text: str) -> str:
    """What the template writes for the answer ``text`` to a prompt, without an end token.

    Raises:
        UserError: as :func:`chat_prompt`.
    """
    before = chat_prompt(tokenizer, turns)
    whole = _chat_text(tokenizer, [*turns, ("assistant", text)])
    if not whole.startswith(before):  # the template shows earlier turns otherwise
        return text
    rest = whole[len(before) :]
    inside = rest.find(text.strip())
    return rest[: inside + len(text.strip())] if inside >= 0 else text


class Format:
    """The strings around source and target, and their token ids.

    Args:
        tokenizer: of the base model.
        separator: text between source and target, perhaps empty; if None the tokenizer's
            beginning-of-text token, or its end token when it has none.
        layout: of the task.
        source_prefix: a word in front of every source, as the original has it for fine-tuning on
            little data.
        spaces: keep the spaces that the layout puts around source and target.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        separator: str | None = None,
        layout: Layout | None = None,
        source_prefix: str | None = None,
        spaces: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        if separator is None:
            separator = tokenizer.bos_token or tokenizer.eos_token
        self.separator = separator
        layout = layout or Layout()
        if not spaces:
            layout = replace(layout, source=layout.source.strip(), target=layout.target.strip())
        self.layout = layout
        self.source_prefix = source_prefix

    def _head(self, source: str) -> str:
        if self.source_prefix:
            source = f"{self.source_prefix} {source}"
        return self.layout.source.format(source)

    def prompt(self, source: str) -> str:
        """What precedes the target; also what decoding starts from."""
        return self._head(source) + self.separator

    def prompt_of(self, record: Record) -> str:
        """What precedes the target of a record: the tokenizer's chat template has chats."""
        if record.chat:
            return chat_prompt(self.tokenizer, record.chat)
        return self.prompt(record.source)

    def encode_records(self, records: Sequence[Record]) -> list[list[int]]:
        """Token ids of the prompts of records."""
        plain = iter(self.encode_prompts([r.source for r in records if not r.chat]))
        chats = iter(self._encode([self.prompt_of(r) for r in records if r.chat]))
        return [next(chats if record.chat else plain) for record in records]

    def encode_pairs(
        self, pairs: Sequence[tuple[Record, str]], training: bool = True
    ) -> list[list[int]]:
        """Token ids of the targets of records, each with the end token."""
        plain = iter(self.encode_targets([t for r, t in pairs if not r.chat], training))
        answers = [chat_answer(self.tokenizer, r.chat, t) for r, t in pairs if r.chat]
        end = self.tokenizer.eos_token_id
        chats = iter([[*ids, end] for ids in self._encode(answers)])
        return [next(chats if record.chat else plain) for record, _ in pairs]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        different = list(dict.fromkeys(texts))  # E2E has a ninth as many sources as pairs
        if not different:  # which a tokenizer does not take
            return []
        encoded = self.tokenizer(different, add_special_tokens=False).input_ids
        ids = dict(zip(different, encoded, strict=True))
        return [ids[text] for text in texts]

    def encode_prompts(self, sources: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts of ``sources``, cut as the layout says."""
        if self.layout.max_source is None:
            return self._encode([self.prompt(source) for source in sources])
        (separator,) = self._encode([self.separator])
        heads = self._encode([self._head(source) for source in sources])
        return [[*ids[: self.layout.max_source], *separator] for ids in heads]

    def encode_targets(self, targets: Sequence[str], training: bool = True) -> list[list[int]]:
        """Token ids of what follows a prompt, cut as the layout says, then the end token."""
        # Special tokens are cut out before anything else, so that prompt and target encoded apart
        # are the joined string encoded at once.
        most = self.layout.max_target
        if not training:
            most = self.layout.max_evaluated_target or most
        end = self.tokenizer.eos_token_id
        encoded = self._encode([self.layout.target.format(target) for target in targets])
        return [[*ids[:most], end] for ids in encoded]


class TableToTextDataset(Dataset[dict[str, list[int]]]):
    """Every (source, reference) pair of a file as token ids and labels.

    Args:
        records: as read for training.
        text_format: strings and tokenizer.
        max_tokens: the most tokens of an example, i.e. the model's positions less the prefix.
        training: whether targets are cut as for training, where the layout knows two ways.

    Raises:
        UserError: an example is longer, naming its file and line.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_format: Format,
        max_tokens: int | None = None,
        training: bool = True,
    ) -> None:
        pairs = [(record, target) for record in records for target in record.targets]
        prompts = text_format.encode_records([record for record, _ in pairs])
        targets = text_format.encode_pairs(pairs, training)
        if text_format.layout.cut_target and max_tokens is not None:
            room = [max(1, max_tokens - len(prompt)) for prompt in prompts]
            targets = [target[:most] for target, most in zip(targets, room, strict=True)]
        for (record, _), prompt, target in zip(pairs, prompts, targets, strict=True):
            length = len(prompt) + len(target)
            if max_tokens is not None and length > max_tokens:
                raise UserError(
                    f"{record.where}: {length} tokens, but {max_tokens} fit beside the prefix; "
                    "shorten the text or the prefix"
                )
        self.examples = [
            {"input_ids": p + t, "labels": [IGNORE] * len(p) + t}
            for p, t in zip(prompts, targets, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [len(example["input_ids"]) for example in self.examples]


Examples = Sequence[dict[str, list[int]]]


@dataclass(frozen=True)
class Rounding:
    """How shapes of batches are rounded up, so that a GPU meets few of them.

    Attributes:
        width: tokens of a batch become a multiple of it,
        most: but never more than this.
        targets: positions with a loss become a multiple of it.
    """

    width: int = 1
    most: int | None = None
    targets: int = 1

    def __call__(self, width: int) -> int:
        """The width that a batch of this width gets."""
        rounded = -(-width // self.width) * self.width
        return max(width, rounded if self.most is None else min(rounded, self.most))


EXACT = Rounding()


def collate(examples: Examples, pad_id: int, rounding: Rounding = EXACT) -> dict[str, Tensor]:
    """Pad on the right to ``input_ids`` and ``labels`` ``[B, T]`` int64.

    There is no attention mask, as in the original: no real token sees what stands to its right.
    """
    width = rounding(max(len(example["input_ids"]) for example in examples))

    def pad(key: str, value: int) -> Tensor:
        rows = [e[key] + [value] * (width - len(e[key])) for e in examples]
        return torch.tensor(rows, dtype=torch.long)

    return {"input_ids": pad("input_ids", pad_id), "labels": pad("labels", IGNORE)}


def collate_infix(examples: Examples, pad_id: int, rounding: Rounding = EXACT) -> dict[str, Tensor]:
    """The same for an infix, which stands between source and target.

    ``input_ids`` and ``labels`` begin with the last token of the prompt, the separator; what
    precedes it is ``src [B, S]`` int64, padded on the right, with ``src_attn [B, S]`` bool.
    """
    n_source = [example["labels"].count(IGNORE) - 1 for example in examples]
    targets = [
        {key: ids[n:] for key, ids in example.items()}
        for example, n in zip(examples, n_source, strict=True)
    ]
    width = rounding(max(n_source))
    source = [
        e["input_ids"][:n] + [pad_id] * (width - n) for e, n in zip(examples, n_source, strict=True)
    ]
    lengths = torch.tensor(n_source)
    return {
        **collate(targets, pad_id, rounding),
        "src": torch.tensor(source, dtype=torch.long),
        "src_attn": torch.arange(width) < lengths[:, None],
    }


def rounded(collator: Callable[..., Any], rounding: Rounding) -> Callable[..., Any]:
    """A collator that rounds the shapes of its batches."""
    return collator if rounding == EXACT else partial(collator, rounding=rounding)


def with_targets(
    collator: Callable[..., dict[str, Tensor]], rounding: Rounding = EXACT
) -> Callable[[Examples], dict[str, Tensor]]:
    """A collator that also says where the loss is: ``targets [N]`` int64.

    Otherwise every step would have to look for it, and the host to wait for a GPU that counts.

    Args:
        collator: :func:`collate` or :func:`collate_infix`, with its ``pad_id``.
    """

    collator = rounded(collator, rounding)

    def arrange(examples: Examples) -> dict[str, Tensor]:
        batch = collator(examples)
        return {**batch, "targets": target_positions(batch["labels"], rounding.targets)}

    return arrange
