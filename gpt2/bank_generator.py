"""Texts for records that name their prefix, which one batch mixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from gpt2.decode_request import DecodeRequest
from gpt2.decoding import decode, decode_samples
from gpt2.generator import TextGenerator
from gpt2.readers import Record
from harness.banked import homes_of, names_of, tasks_of
from harness.decode import Identity
from prefix_tuning.attention import KeyValues
from prefix_tuning.bank import PrefixBank

T = TypeVar("T")


@dataclass
class BankGenerator(TextGenerator):
    """A frozen model with a folder of prefixes; every text equals the one its prompt gives alone.

    Attributes:
        bank: the folder of prefixes.
        names: the prefix of each record that :meth:`prompts` was given last.
    """

    bank: PrefixBank = field(kw_only=True)
    names: list[str | None] = field(default_factory=list)

    @classmethod
    def load(cls, request: DecodeRequest) -> BankGenerator:
        """Load the base model; prefixes are loaded when records name them."""
        assert request.prefix_bank is not None
        base = TextGenerator.load(replace(request, prefix_bank=None))
        return cls(**vars(base), bank=PrefixBank(base.model, request.prefix_bank))

    def _alone(self, name: str | None, task: dict[str, Any]) -> TextGenerator:
        """The model as if this were its only prefix."""
        n_slot = 0 if name is None else self.bank.occupied(name)
        return TextGenerator(self.model, self.tokenizer, self.prefix, n_slot, task)

    def _each(
        self, records: Sequence[Record], made: Callable[[TextGenerator, list[Record]], list[T]]
    ) -> list[T]:
        """What a generator makes of the records of one prefix, in the order of all."""
        self.names = names_of(records)
        found: dict[int, T] = {}
        for name, task in tasks_of(self.bank, self.names, records).items():
            own = [i for i, wanted in enumerate(self.names) if wanted == name]
            values = made(self._alone(name, task), [records[i] for i in own])
            found |= zip(own, values, strict=True)
        return [found[i] for i in range(len(records))]

    def prompts(self, request: DecodeRequest, records: Sequence[Record]) -> list[list[int]]:
        """The token ids that decoding starts from, as each record's prefix was trained.

        Raises:
            UserError: a record names no prefix of the folder, or does not fit into the model's
                positions, naming its line.
        """
        return self._each(records, lambda generator, own: generator.prompts(request, own))

    def starts(self, request: DecodeRequest, records: Sequence[Record]) -> list[str]:
        """The prompts as texts."""
        return self._each(records, lambda generator, own: generator.starts(request, own))

    def identity(
        self, request: DecodeRequest, records: Sequence[Record], prompts: Sequence[list[int]]
    ) -> Identity:
        """What makes the texts of these records: the prefixes that they name, too."""
        identity = super().identity(request, records, prompts)
        return replace(
            identity,
            prompts=list(zip(self.names, prompts, strict=True)),
            parts=homes_of(self.bank, self.names),
        )

    def texts(
        self, request: DecodeRequest, prompts: Sequence[list[int]], skip: Sequence[int] = ()
    ) -> Iterator[tuple[int, str]]:
        """Index and text of every prompt, not in order; of every sample where some are drawn."""

        def prefix(batch: Sequence[int]) -> KeyValues:
            return self.bank.key_values([self.names[i] for i in batch])

        search = request.how()
        what = (self.model, self.tokenizer, prefix, prompts, search)
        if search.n_sample:
            return decode_samples(*what, skip)
        return decode(*what, request.batch_size, skip)
