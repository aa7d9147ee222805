"""Turning prompts into texts: search, post-processing, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from gpt2.decode_request import Search
from gpt2.records import one_line
from harness.decode import decode_by_length, show_decoding
from harness.text import clean_up
from prefix_tuning.attention import KeyValues
from prefix_tuning.beam_search import beam_search
from prefix_tuning.finite import finite_logits
from prefix_tuning.prefix import Prefix
from prefix_tuning.repetition import NoRepeats
from prefix_tuning.shape import PrefixShape

PrefixOf = Callable[[Sequence[int]], KeyValues]
"""The keys and values of the prompts of these indices, a row each."""
MOST = 512
"""Prompts decoded together at most."""
EMPTY = "Error"
"""What the original writes for an empty output, so that no line of the file is empty."""


def output_text(tokenizer: PreTrainedTokenizerBase, prompt: list[int], generated: list[int]) -> str:
    """The output alone: what follows the prompt, up to the end token, on one line."""

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    # Cleaned up only then: spaces that go at the end of the prompt would shift where it ends.
    text = decode([*prompt, *generated])[len(decode(prompt)) :]
    text = clean_up(text.split(tokenizer.eos_token)[0])
    return one_line(text).strip() or EMPTY


def newline_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens for one and two line breaks, which outputs must not contain (628, 198)."""
    encoded = [tokenizer(text, add_special_tokens=False).input_ids for text in ("\n\n", "\n")]
    return [ids[0] for ids in encoded if len(ids) == 1]


def no_prefix(model: PreTrainedModel) -> KeyValues:
    """A prefix of length 0: the model by itself."""
    shape = PrefixShape.from_config(model.config)
    empty = torch.empty(2, 1, shape.n_head, 0, shape.head_dim, device=model.device)
    return KeyValues([empty] * shape.n_layer)


def _behind(
    model: PreTrainedModel, prefix: KeyValues | Prefix, prompts: Sequence[list[int]]
) -> tuple[KeyValues, Sequence[list[int]]]:
    """Keys and values for a batch, and the tokens that follow them.

    ``prefix`` is a :class:`Prefix` where it depends on the source: then the prompts are of one
    length, and their last token (the separator) is what decoding starts from.
    """
    if isinstance(prefix, KeyValues):
        return prefix, prompts
    source = torch.tensor([prompt[:-1] for prompt in prompts], device=model.device)
    return prefix.prompt(model, len(prompts), source), [prompt[-1:] for prompt in prompts]


def _in_front(prefix: KeyValues | Prefix | PrefixOf, batch: Sequence[int]) -> KeyValues | Prefix:
    return prefix if isinstance(prefix, KeyValues | Prefix) else prefix(batch)


def _generate(model: PreTrainedModel) -> Callable[..., Tensor]:
    return cast(Callable[..., Tensor], model.generate)


class LeastLength(LogitsProcessor):
    """No row ends before it has ``least`` tokens, its prompt counted and its padding not.

    ``generate`` itself would count the padding on the left, so that a row in a batch ends earlier
    than the row alone.

    Args:
        mask: ``[B, T]``, 0 on the padding of the prompts.
        end: the end token.
    """

    def __init__(self, mask: Tensor, end: int, least: int) -> None:
        self.prompts, self.width = mask.sum(1), mask.shape[1]
        self.end, self.least = end, least

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        n_beam = len(scores) // len(self.prompts)
        lengths = self.prompts.repeat_interleave(n_beam) + input_ids.shape[1] - self.width
        too_short = (lengths < self.least)[:, None]  # [B * K, 1]
        is_end = torch.arange(scores.shape[1], device=scores.device) == self.end
        return scores.masked_fill(too_short & is_end, -torch.inf)


def batch_that_fits(model: PreTrainedModel, longest: int, search: Search) -> int:
    """How many prompts to decode together: as many as a GPU has memory for, 64 on a CPU.

    A step of few rows takes a GPU as long as one of many. A CPU gains nothing above 64.

    Args:
        longest: tokens of the longest prompt.
    """
    if model.device.type != "cuda":
        return 64
    shape = PrefixShape.from_config(model.config)
    n_token = longest + search.num_beams * search.max_new_tokens
    if search.implementation != "paper":  # which keeps the prompt for each beam
        n_token = search.num_beams * (longest + search.max_new_tokens)
    # Twice: while keys and values grow, the old ones are there too; generate's beams are copied.
    kept = 2 * n_token * shape.features * model.dtype.itemsize
    logits = 3 * search.num_beams * model.config.get_text_config().vocab_size * 4
    free = torch.cuda.mem_get_info(model.device)[0]
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(1, min(MOST, int(0.8 * free) // (kept + logits)))


def no_repeats(search: Search, prompts: Sequence[list[int]], width: int) -> list[LogitsProcessor]:
    """What keeps ``generate`` from repeating n-grams; nothing where it may."""
    if not search.no_repeat_ngram_size:
        return []
    return [NoRepeats(counted(search, prompts), width, search.no_repeat_ngram_size)]


def counted(search: Search, prompts: Sequence[list[int]]) -> list[list[int]]:
    """The tokens of each prompt whose n-grams must not be repeated."""
    return [prompt if search.no_repeat_in == "text" else [] for prompt in prompts]


def decode_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: KeyValues | Prefix,
    prompts: Sequence[list[int]],
    search: Search,
    on_finished: Callable[[int], None] | None = None,
) -> list[str]:
    """Decode prompts (token ids) together, each as if alone; behind an infix of one length.

    Args:
        on_finished: told how many more prompts are finished, while others are not, by the paper's
            search.
    """
    whole = prompts
    prefix, prompts = _behind(model, prefix, prompts)
    width = max(map(len, prompts))
    eos = tokenizer.eos_token_id
    ids = torch.tensor([[eos] * (width - len(p)) + p for p in prompts], device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    mask = (torch.arange(width, device=model.device) >= width - lengths[:, None]).long()
    bad = newline_ids(tokenizer)
    if search.implementation == "paper":
        found = beam_search(
            model,
            prefix,
            ids,
            mask,
            eos_token_id=eos,
            num_beams=search.num_beams,
            max_new_tokens=search.max_new_tokens,
            min_length=search.min_length,
            bad_token_ids=bad,
            length_penalty=search.length_penalty,
            no_repeat_ngram_size=search.no_repeat_ngram_size,
            before=counted(search, whole),
            on_finished=on_finished,
        )
        generated = [hypotheses.tokens[0] for hypotheses in found]
    else:
        processors = [*finite_logits(), LeastLength(mask, eos, search.min_length)]
        processors += no_repeats(search, whole, width)
        output = _generate(model)(
            ids,
            attention_mask=mask,
            prefix=prefix,
            logits_processor=LogitsProcessorList(processors),
            do_sample=False,
            num_beams=search.num_beams,
            max_new_tokens=search.max_new_tokens,
            bad_words_ids=[[i] for i in bad] or None,
            length_penalty=search.length_penalty,
            eos_token_id=eos,
            pad_token_id=eos,
        )
        generated = output[:, width:].tolist()
    return [output_text(tokenizer, p, g) for p, g in zip(prompts, generated, strict=True)]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: KeyValues | Prefix,
    prompt: list[int],
    search: Search,
    index: int,
) -> list[str]:
    """Draw the texts of one prompt; seed and ``index`` decide them, whatever else is decoded."""
    whole = [prompt]
    prefix, (prompt,) = _behind(model, prefix, whole)
    processors = [*finite_logits(), *no_repeats(search, whole, len(prompt))]
    set_seed(search.seed + index)
    output = _generate(model)(
        torch.tensor([prompt], device=model.device),
        prefix=prefix,
        logits_processor=LogitsProcessorList(processors),
        do_sample=True,
        top_p=search.top_p,
        top_k=0,
        num_return_sequences=search.n_sample,
        max_new_tokens=search.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return [output_text(tokenizer, prompt, ids) for ids in output[:, len(prompt) :].tolist()]


def decode_samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: KeyValues | Prefix | PrefixOf,
    prompts: Sequence[list[int]],
    search: Search,
    skip: Sequence[int] = (),
) -> Iterator[tuple[int, str]]:
    """Draw ``n_sample`` texts for every prompt in turn; shows how far it is.

    Yields:
        ``prompt * n_sample + sample`` and the text.
    """
    done, n = set(skip), search.n_sample
    shown = show_decoding(len(prompts) * n, len(done))
    for index, prompt in enumerate(prompts):
        numbers = range(index * n, index * n + n)
        if not done.issuperset(numbers):
            front = _in_front(prefix, [index])
            texts = sample(model, tokenizer, front, prompt, search, index)
            yield from zip(numbers, texts, strict=True)
            shown.at(shown.done + len(set(numbers) - done))
    shown.close()


def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prefix: KeyValues | Prefix | PrefixOf,
    prompts: Sequence[list[int]],
    search: Search,
    batch_size: int | None,
    skip: Sequence[int] = (),
) -> Iterator[tuple[int, str]]:
    """Decode prompts in batches of about one length, longest first; shows how far it is.

    Where the prefix depends on the source the length is exactly one, so that no padding shifts the
    positions.

    Args:
        batch_size: None for :func:`batch_that_fits`.

    Returns:
        the index of a prompt and its output, not in order.
    """

    def texts(batch: list[int]) -> list[str]:
        front = _in_front(prefix, batch)
        picked = [prompts[i] for i in batch]
        return decode_batch(model, tokenizer, front, picked, search, on_finished)

    def on_finished(n_text: int) -> None:
        shown.at(shown.done + n_text)

    lengths = [len(prompt) for prompt in prompts]
    if batch_size is None:
        batch_size = batch_that_fits(model, max(lengths, default=0), search)
    one_length = isinstance(prefix, Prefix)
    shown = show_decoding(len(prompts), len(set(skip)))
    return decode_by_length(lengths, batch_size, set(skip), texts, one_length, shown)
