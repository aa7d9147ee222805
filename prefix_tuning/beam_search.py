"""The beam search of transformers 3.3 (2020), batched.

It differs from today's ``generate`` in one way that changes results: a hypothesis is scored by its
log-probability divided by the length of *prompt and* generated tokens (prefix slots not counted),
where today's divides by generated tokens only. The old rule prefers shorter outputs, and the
paper's numbers were obtained with it.

Each prompt is read once. From then on its keys and values are, to its beams, what a prefix is: they
stand in front, shared by all beams of the row. So does what the beams themselves have written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_tuning.attention import run
from prefix_tuning.beam_tree import BeamTree
from prefix_tuning.finite import check_logits
from prefix_tuning.head import Head
from prefix_tuning.key_values import Front, KeyValues
from prefix_tuning.positions import check_length, check_window, real_positions
from prefix_tuning.repetition import forbid, repeating


@dataclass
class Hypotheses:
    """The ``size`` best finished hypotheses of one prompt, best first."""

    size: int
    length_penalty: float = 1.0
    tokens: list[list[int]] = field(default_factory=list)
    """Generated token ids of each hypothesis, its end token included if it has one."""
    scores: list[float] = field(default_factory=list)
    """Log-probability (nats) / (prompt and generated tokens, without end) ** length_penalty."""

    def add(self, tokens: list[int], log_prob: float, length: int) -> None:
        """Keep ``tokens`` if it is among the best; ``length`` counts prompt and generated."""
        score = log_prob / length**self.length_penalty
        if len(self.scores) == self.size and score <= self.scores[-1]:
            return
        at = next((i for i, other in enumerate(self.scores) if score > other), len(self.scores))
        self.scores.insert(at, score)
        self.tokens.insert(at, tokens)
        del self.scores[self.size :], self.tokens[self.size :]

    def is_done(self, best_log_prob: float, length: int, early_stopping: bool) -> bool:
        """Whether no live beam can still be better, by the original's optimistic bound."""
        if len(self.scores) < self.size:
            return False
        return early_stopping or self.scores[-1] >= best_log_prob / length**self.length_penalty


@dataclass
class Row:
    """What the search keeps of one prompt besides tensors."""

    n_prompt: int
    finished: Hypotheses
    beams: list[list[int]]
    before: list[int] = field(default_factory=list)
    """Tokens whose n-grams are not to be repeated either."""


@torch.no_grad()
def beam_search(
    model: PreTrainedModel,
    prefix: KeyValues,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    eos_token_id: int,
    num_beams: int = 5,
    max_new_tokens: int = 100,
    min_length: int = 0,
    bad_token_ids: Sequence[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    no_repeat_ngram_size: int = 0,
    before: Sequence[list[int]] | None = None,
    on_finished: Callable[[int], None] | None = None,
) -> list[Hypotheses]:
    """Search for the best continuation of every prompt.

    A batch gives what each of its rows gives alone; ``num_beams=1`` is greedy search.

    Args:
        model: a model that has been through ``enable_prefix``, in eval mode.
        prefix: one row for all prompts, or one row each.
        input_ids: ``[B, T]`` int64 prompts, padded on the left.
        attention_mask: ``[B, T]``, 0 on padding.
        min_length: prompt and generated tokens before the end token is allowed.
        bad_token_ids: tokens never generated (their probability is not redistributed).
        length_penalty: exponent of the length in a hypothesis' score.
        early_stopping: stop a row as soon as it has ``num_beams`` finished hypotheses.
        no_repeat_ngram_size: tokens of the n-grams that come only once; 0: they may repeat.
        before: per prompt what counts for them in front of its output, if anything.
        on_finished: told how many more rows are finished, whenever some are.

    Returns:
        per prompt the finished hypotheses, best first.

    Raises:
        UserError: prefix, prompt and new tokens do not fit the model.
    """
    n_prompt = attention_mask.sum(dim=1)
    width = n_prompt if isinstance(prefix.offset, Tensor) else input_ids.shape[1]
    check_length(model, prefix.offset, width + max_new_tokens)
    check_window(model, input_ids.shape[1] + max_new_tokens)
    tree, parts = _read_prompts(model, prefix, input_ids, attention_mask, num_beams)
    rows = [
        Row(n, Hypotheses(num_beams, length_penalty), [[]] * num_beams, tokens)
        for n, tokens in zip(n_prompt.tolist(), before or [[]] * len(n_prompt), strict=True)
    ]
    finished = [row.finished for row in rows]
    # All beams start equal: only the first may be extended, or they would stay equal.
    parts = (part.repeat_interleave(num_beams, dim=0) for part in parts)
    log_probs = torch.full((len(rows), num_beams), -1e9, device=input_ids.device)
    log_probs[:, 0] = 0.0
    for step in range(max_new_tokens):
        # The end token is forbidden while prompt and generated tokens are too few.
        too_short = n_prompt + step < min_length
        every = [[*row.before, *beam] for row in rows for beam in row.beams if no_repeat_ngram_size]
        never = (bad_token_ids, [repeating(text, no_repeat_ngram_size) for text in every])
        best, beam, token = candidates(parts, log_probs, too_short, eos_token_id, *never)
        alive, picked = advance_rows(rows, best, beam, token, step, eos_token_id, early_stopping)
        if on_finished is not None and len(alive) < len(rows):
            on_finished(len(rows) - len(alive))
        if not alive:
            return finished
        kept = torch.tensor(alive, device=best.device)
        pick = torch.tensor(picked, device=best.device)
        log_probs, beam, token = (x[kept].gather(1, pick) for x in (best, beam, token))
        if len(alive) < len(rows):
            tree.select(kept)
            n_prompt = n_prompt[kept]
            rows = [rows[i] for i in alive]
        if step + 1 < max_new_tokens:
            tree.grow(beam)
            inputs = {
                "input_ids": token.view(-1, 1),
                "position_ids": (n_prompt + step).repeat_interleave(num_beams)[:, None],
                "use_cache": False,
            }
            _, parts = _logits(model, tree, inputs)
    for row, values in zip(rows, log_probs.tolist(), strict=True):
        for tokens, log_prob in zip(row.beams, values, strict=True):
            row.finished.add(tokens, log_prob, row.n_prompt + max_new_tokens)
    return finished


def _read_prompts(
    model: PreTrainedModel,
    prefix: KeyValues,
    input_ids: Tensor,
    attention_mask: Tensor,
    num_beams: int,
) -> tuple[BeamTree, Iterable[Tensor]]:
    """What the beams of each prompt share, and the logits behind it as :func:`_logits` has them."""
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": real_positions(input_ids.shape[1], 0, attention_mask, input_ids.device),
        "use_cache": True,
    }
    output, parts = _logits(model, prefix, inputs)
    tree = BeamTree.of_prompt(prefix, output.past_key_values, attention_mask, num_beams)
    return tree, parts


def _logits(
    model: PreTrainedModel, front: Front, inputs: dict[str, Any]
) -> tuple[Any, Iterable[Tensor]]:
    """What the model returns, and the logits of each row's last token in parts ``[N, n]``."""
    head = Head.of(model)
    if head is None:
        output = run(model, front, {**inputs, "logits_to_keep": 1})
        return output, [output.logits[:, -1]]
    output = run(model, front, inputs, model.base_model)
    return output, head.parts(output.last_hidden_state[:, -1])


def candidates(
    parts: Iterable[Tensor],
    log_probs: Tensor,
    too_short: Tensor,
    eos_token_id: int,
    bad_token_ids: Sequence[int],
    banned: Sequence[Sequence[int]] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``2 K`` best continuations of each row: log-probability, beam and token ``[B, 2K]``.

    Args:
        parts: the logits of every beam, ``[B * K, n]`` at a time in the order of the vocabulary;
            overwritten where tokens are forbidden. nan and inf are refused.
        log_probs: of the beams, ``[B, K]``.
        too_short: bool ``[B]``, where the end token is forbidden.
        bad_token_ids: forbidden everywhere; ``banned`` in each of the ``B * K`` beams, or empty.
    """
    n_row, num_beams = log_probs.shape
    short = too_short.repeat_interleave(num_beams)
    normalisers, best, token, start = [], [], [], 0
    for logits in parts:
        logits, n = logits.float(), logits.shape[1]
        normalisers.append(logits.logsumexp(dim=1))
        logits[:, [i - start for i in bad_token_ids if 0 <= i - start < n]] = -torch.inf
        forbid(logits, [[i - start for i in tokens if i >= start] for tokens in banned])
        if 0 <= eos_token_id - start < n:
            logits[:, eos_token_id - start].masked_fill_(short, -torch.inf)
        top = logits.topk(min(2 * num_beams, n), dim=1)
        best.append(top.values)
        token.append(top.indices + start)
        start += n
    # Of all parts, and then of all beams of a row.
    total = torch.cat(best, dim=1) - torch.stack(normalisers).logsumexp(dim=0)[:, None]
    total = total.view(n_row, num_beams, -1) + log_probs[:, :, None]  # [B * K, n] -> [B, K, n]
    width = total.shape[2]
    found, flat = total.view(n_row, -1).topk(2 * num_beams, dim=1)  # of [B, K * n]
    check_logits(found)  # nan is the greatest, hence among them
    return found, flat // width, torch.cat(token, dim=1).view(n_row, -1).gather(1, flat)


def advance_rows(
    rows: list[Row],
    best: Tensor,
    beam: Tensor,
    token: Tensor,
    step: int,
    eos_token_id: int,
    early_stopping: bool,
) -> tuple[list[int], list[list[int]]]:
    """Advance every row; return which go on, and which candidates are their new beams."""
    alive, picked = [], []
    candidates = zip(best.tolist(), beam.tolist(), token.tolist(), strict=True)
    for i, (row, candidate) in enumerate(zip(rows, candidates, strict=True)):
        pick = _advance(row, eos_token_id, *candidate)
        if not row.finished.is_done(candidate[0][0], row.n_prompt + step, early_stopping):
            alive.append(i)
            picked.append(pick)
    return alive, picked


def _advance(
    row: Row, eos_token_id: int, best: list[float], beam: list[int], token: list[int]
) -> list[int]:
    """Finish or extend the beams of one row; return which candidates are its new beams."""
    num_beams = len(row.beams)
    beams, picked = [], []
    for rank, (log_prob, parent, new) in enumerate(zip(best, beam, token, strict=True)):
        tokens = row.beams[parent]
        if new != eos_token_id:
            beams.append([*tokens, new])
            picked.append(rank)
            if len(beams) == num_beams:
                break
        elif rank < num_beams:
            length = row.n_prompt + len(tokens)
            row.finished.add([*tokens, new], log_prob, length)
    row.beams = beams
    return picked
