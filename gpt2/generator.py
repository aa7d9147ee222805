"""A trained model, loaded to write texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt2.data import Format
from gpt2.decode_request import DecodeRequest
from gpt2.decoding import decode, decode_samples, no_prefix
from gpt2.readers import Record
from gpt2.tuning import folders
from harness.decode import Identity
from harness.models import check_rows, load_causal_lm, token_ids, tokenizer_for
from harness.precision import resolve_for_decoding
from harness.trained import note_task
from prefix_tuning import checkpoint
from prefix_tuning.activation import fuse_activations
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.positions import room
from prefix_tuning.prefix import Prefix
from prefix_tuning.saving import load_headless


@dataclass
class TextGenerator:
    """A frozen model with what was trained for it.

    Attributes:
        prefix: keys and values; a :class:`Prefix` where they depend on the source.
        n_slot: the length of the prefix.
        trained_task: what the folder says of the strings around source and target.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: KeyValues | Prefix
    n_slot: int
    trained_task: dict[str, Any]

    @classmethod
    def load(cls, request: DecodeRequest) -> TextGenerator:
        """Load the base model and what was trained for it.

        Raises:
            UserError: one of them cannot be had, or they do not belong together.
        """
        name, found = request.model_name_or_path, folders.describe(request.folder)
        if request.prefixModel_name_or_path and not found.needs_base:
            checkpoint.read_metadata(found.folder)  # says what is expected there
        note_task(found.folder, found.task.get("task_mode"), request.task_mode)
        print(f"loading {name} ...", flush=True)
        tokenizer = tokenizer_for(name, request.tokenizer_name, request.cache_dir)
        dtype = resolve_for_decoding(request.dtype or found.dtype or "float32")
        model = load_causal_lm(name, dtype, request.cache_dir)
        check_rows(name, model.config, token_ids(tokenizer, ("bos", "eos")))
        if request.activation == "fused":
            fuse_activations(model)
        if found.needs_base and not found.is_prefix:
            model = folders.load_into(model, found)
        enable_prefix(model.requires_grad_(False))
        if torch.cuda.is_available() and not request.no_cuda:
            torch.nn.Module.cuda(model)
        keys_values: KeyValues | Prefix = no_prefix(model)
        n_slot = 0
        if found.is_prefix:
            prefix, _ = load_headless(found.folder, model)
            keys_values = prefix.requires_grad_(False).to(model.device)
            n_slot = prefix.length
            if not prefix.reads_source:
                sites = prefix.prompt(model).sites
                keys_values = KeyValues(sites, found.metadata.get("position_offset"))
                keys_values = keys_values.to(model.dtype)
        return cls(model, tokenizer, keys_values, n_slot, found.task)

    def format(self, request: DecodeRequest) -> Format:
        """The strings around source and target, as in training."""
        separator = request.separator
        return Format(
            self.tokenizer,
            self.trained_task.get("separator") if separator is None else separator,
            request.task.layout,
            self.trained_task.get("source_prefix"),
            self.trained_task.get("spaces") != "no",
        )

    def starts(self, request: DecodeRequest, records: Sequence[Record]) -> list[str]:
        """The prompts as texts."""
        text_format = self.format(request)
        return [text_format.prompt_of(record) for record in records]

    def prompts(self, request: DecodeRequest, records: Sequence[Record]) -> list[list[int]]:
        """The token ids that decoding starts from.

        Raises:
            UserError: a record does not fit into the model's positions, naming its line.
        """
        prompts = self.format(request).encode_records(records)
        limit, n_new = room(self.model.config), request.how().max_new_tokens
        for record, prompt in zip(records, prompts, strict=True):
            if limit is not None and self.n_slot + len(prompt) + n_new > limit:
                raise UserError(
                    f"{record.where}: prefix, {len(prompt)} prompt tokens and {n_new} new ones "
                    f"exceed the model's {limit} positions; shorten the text or lower --length"
                )
        return prompts

    def identity(
        self, request: DecodeRequest, records: Sequence[Record], prompts: Sequence[list[int]]
    ) -> Identity:
        """What makes the texts of these records."""
        return Identity(
            request.folder,
            prompts,
            request.how().options,
            str(self.model.dtype),
            {"data_file": str(Path(request.data)), "model": request.model_name_or_path},
            [record.targets for record in records],
        )

    def texts(
        self, request: DecodeRequest, prompts: Sequence[list[int]], skip: Sequence[int] = ()
    ) -> Iterator[tuple[int, str]]:
        """Index and text of every prompt, not in order; of every sample where some are drawn.

        Args:
            skip: indices to leave out.
        """
        search = request.how()
        what = (self.model, self.tokenizer, self.prefix, prompts, search)
        if search.n_sample:
            return decode_samples(*what, skip)
        return decode(*what, request.batch_size, skip)
