"""The 2020 beam search: the original's outputs, identities, and a search written as plainly."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from conftest import FAMILIES, SLIDING, case_of, tiny_model, vector_cases, within
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from prefix_tuning import head
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.beam_search import Hypotheses, beam_search
from prefix_tuning.beam_tree import BeamTree
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Attention
from prefix_tuning.parametrizations import FlatPrefix, MLPPrefix
from prefix_tuning.repetition import forbid
from prefix_tuning.shape import PrefixShape
from scripts.verify import gpt2_numbers


def left_padded(prompts: list[list[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(p)) + p for p in prompts]
    mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids), torch.tensor(mask)


@pytest.mark.parametrize("part", [1024, 5])
@pytest.mark.parametrize("name", vector_cases("gpt2_beam_"))
def test_the_originals_outputs(name: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "PART", part)
    """With beams and greedy, one by one and with padding in front."""
    within(gpt2_numbers.outputs(case_of(f"gpt2_beam_{name}")))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_one_by_one_and_scores_equal_rescoring(family: str) -> None:
    model = enable_prefix(tiny_model(family))
    torch.manual_seed(3)
    prefix = KeyValues(MLPPrefix(PrefixShape.from_config(model.config), 4, 8).key_values())
    prompts = [torch.randint(3, 50, (n,)).tolist() for n in (2, 9, 5, 1)]
    options = {"eos_token_id": 1, "num_beams": 3, "max_new_tokens": 12}
    ids, mask = left_padded(prompts)
    for prompt, found in zip(
        prompts, beam_search(model, prefix, ids, mask, **options), strict=True
    ):
        alone = beam_search(model, prefix, *left_padded([prompt]), **options)[0]
        assert found.tokens == alone.tokens
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)
        for tokens, score in zip(found.tokens, found.scores, strict=True):
            logits = model(torch.tensor([prompt + tokens]), prefix=prefix).logits[0]
            log_probs = logits[len(prompt) - 1 : -1].log_softmax(-1)
            total = log_probs.gather(1, torch.tensor(tokens)[:, None]).sum().item()
            length = len(prompt) + len(tokens) - (tokens[-1] == 1)
            assert score == pytest.approx(total / length, abs=1e-4)


def test_rows_may_have_prefixes_of_their_own() -> None:
    model = enable_prefix(tiny_model("llama"))
    shape = PrefixShape.from_config(model.config)
    torch.manual_seed(0)
    one = [MLPPrefix(shape, 4, 8).key_values() for _ in range(2)]
    rows = KeyValues(torch.cat(pairs, dim=1) for pairs in zip(*one, strict=True))
    ids, mask = left_padded([[5, 6, 7], [8]])
    options = {"eos_token_id": 1, "num_beams": 3, "max_new_tokens": 8}
    together = beam_search(model, rows, ids, mask, **options)
    for i, prompt in enumerate([[5, 6, 7], [8]]):
        alone = beam_search(model, KeyValues(one[i]), *left_padded([prompt]), **options)[0]
        assert together[i].tokens == alone.tokens


def test_it_is_told_how_many_rows_are_finished() -> None:
    """All want to end at once, and may when prompt and output have six tokens."""
    model = enable_prefix(tiny_model("gpt2"))
    wish = torch.nn.functional.one_hot(torch.tensor(1), 50) * 100.0
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + wish)
    told: list[int] = []
    options: dict[str, Any] = {"eos_token_id": 1, "num_beams": 1, "max_new_tokens": 9}
    prefix = KeyValues(FlatPrefix(model.config, 2).key_values())
    inputs = left_padded([[5], [5, 6, 7], [8, 8, 8]])
    beam_search(model, prefix, *inputs, **options, min_length=6, on_finished=told.append)
    assert told == [2, 1]


def test_rows_that_are_left_keep_what_is_theirs() -> None:
    keys, visible = torch.rand(3, 2, 4, 8), torch.rand(3, 4) > 0.5
    tree = BeamTree([keys], [-keys], visible, torch.tensor([4, 0, 9]), num_beams=2)
    tree.select(torch.tensor([0, 2]))
    assert torch.equal(tree.keys[0], keys[[0, 2]])
    assert torch.equal(tree.values[0], -keys[[0, 2]])
    assert torch.equal(tree.hidden, (~visible[[0, 2]])[:, None].expand(-1, 2, -1))
    assert torch.as_tensor(tree.offset).tolist() == [4, 9]


def test_a_beam_attends_to_its_own_ancestors() -> None:
    """Beside a list of keys and values that every beam keeps of its own, and copies."""
    torch.manual_seed(0)
    n_beam, heads, group, size = 3, 2, 2, 4
    keys, values, visible = torch.randn(2, heads, 5, size), torch.randn(2, heads, 5, size), [3, 5]
    seen = torch.arange(5) >= 5 - torch.tensor(visible)[:, None]  # padding on the left
    tree = BeamTree([keys], [values], seen, 0, n_beam)
    beams: Any = [
        [(keys[b, :, 5 - n :], values[b, :, 5 - n :])] * n_beam for b, n in enumerate(visible)
    ]
    module: Any = SimpleNamespace(layer_idx=0)
    for step in range(40):  # more than room is made for at once
        parents = torch.randint(n_beam, (len(beams), n_beam))
        if step == 20:
            tree.select(torch.tensor([1]))
            beams, parents = beams[1:], parents[1:]
        tree.grow(parents)
        flat = len(beams) * n_beam
        new_key, new_value = torch.randn(2, flat, heads, 1, size).unbind(0)
        query = torch.randn(flat, heads * group, 1, size)
        attention = Attention(Mock(), module, query, new_key, new_value, None, {})
        found, _ = tree.compute(attention)
        beams = [
            [
                tuple(
                    torch.cat([old, new[b * n_beam + k]], dim=1)
                    for old, new in zip(beams[b][parent], (new_key, new_value), strict=True)
                )
                for k, parent in enumerate(parents[b].tolist())
            ]
            for b in range(len(beams))
        ]
        for i, (key, value) in enumerate(beam for row in beams for beam in row):
            key, value = (x.repeat_interleave(group, dim=0) for x in (key, value))
            expected = scaled_dot_product_attention(query[i], key, value)  # [H * g, 1, d]
            torch.testing.assert_close(found[i, 0], expected[:, 0])


class Table:
    """A language model that is a table: next-token log-probabilities by last token."""

    def __init__(self, seed: int, size: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(size, size, generator=generator, dtype=torch.float64) * 2
        self.log_probs = table.log_softmax(-1).tolist()


def repeats(text: list[int], size: int) -> bool:
    """Whether the last ``size`` tokens have come before, as fairseq's dictionary says."""
    grams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
    return bool(size and grams and grams[-1] in grams[:-1])


def plain_search(
    table: Table, prompt: list[int], beams: int, new: int, minimum: int, bad: list[int], ngram: int
) -> list[tuple[float, list[int]]]:
    """The specification's five steps, one prompt, no tensors."""
    size, end, n_prompt = len(table.log_probs), 1, len(prompt)
    live: list[tuple[float, list[int]]] = [(0.0, [])] + [(-1e9, [])] * (beams - 1)
    kept: list[tuple[float, list[int]]] = []

    def keep(total: float, tokens: list[int], length: int) -> None:
        kept.append((total / length, tokens))
        kept.sort(key=lambda item: -item[0])
        del kept[beams:]

    for step in range(new):
        options = []
        for total, tokens in live:
            text = prompt + tokens
            row = table.log_probs[text[-1]]
            for token in range(size):
                banned = token in bad or (token == end and n_prompt + step < minimum)
                banned = banned or repeats([*text, token], ngram)
                options.append((total + (-math.inf if banned else row[token]), [*tokens, token]))
        options.sort(key=lambda item: -item[0])
        following = []
        for rank, (total, tokens) in enumerate(options[: 2 * beams]):
            if tokens[-1] != end:
                following.append((total, tokens))
            elif rank < beams:
                keep(total, tokens, n_prompt + step)
            if len(following) == beams:
                break
        if len(kept) == beams and kept[-1][0] >= options[0][0] / (n_prompt + step):
            return kept
        live = following
    for total, tokens in live:
        keep(total, tokens, n_prompt + new)
    return kept


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    beams=st.integers(1, 5),
    new=st.integers(1, 8),
    minimum=st.integers(0, 6),
    bad=st.lists(st.integers(2, 6), max_size=2, unique=True),
    prompt=st.lists(st.integers(2, 11), min_size=1, max_size=4),
)
def test_against_the_rules_written_plainly(
    seed: int, beams: int, new: int, minimum: int, bad: list[int], prompt: list[int]
) -> None:
    compare(seed, beams, new, minimum, bad, prompt)


@pytest.mark.parametrize(("ngram", "part"), [(1, 1024), (2, 5), (3, 7)])
def test_without_repeating_ngrams_against_the_rules_written_plainly(
    ngram: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PART", part)
    """Of texts that would repeat; orders of the same bigrams, equally likely, are not met here."""
    changed = 0
    for seed in range(6):
        given = (seed, 1 + seed % 3, 8, 0, [2], [5, 3, 5, 3, 4])
        changed += compare(*given, ngram) != compare(*given)
    assert changed > 3


def test_a_prompt_may_have_tokens_that_the_head_has_not() -> None:
    logits = torch.zeros(2, 4)
    forbid(logits, [[3, 9], []])
    assert logits.tolist() == [[0, 0, 0, -math.inf], [0, 0, 0, 0]]


def compare(
    seed: int,
    beams: int,
    new: int,
    minimum: int,
    bad: list[int],
    prompt: list[int],
    ngram: int = 0,
) -> list[list[int]]:
    """GPT-2 whose blocks do nothing and whose head is a table reproduces any bigram model."""
    size, table = 12, Table(seed, 12)
    model = _bigram_model(table, size)
    prefix = KeyValues([torch.zeros(2, 1, 1, 2, size)])
    ids, mask = left_padded([prompt, [3]], pad=7)
    found = beam_search(
        model,
        prefix,
        ids,
        mask,
        eos_token_id=1,
        num_beams=beams,
        max_new_tokens=new,
        min_length=minimum,
        bad_token_ids=bad,
        no_repeat_ngram_size=ngram,
        before=[prompt, [3]],
    )
    for row, hypotheses in zip([prompt, [3]], found, strict=True):
        expected = plain_search(table, row, beams, new, minimum, bad, ngram)
        assert hypotheses.tokens[0] == expected[0][1]
        assert hypotheses.scores == pytest.approx([s for s, _ in expected], abs=1e-4)
    return [hypotheses.tokens[0] for hypotheses in found]


def _bigram_model(table: Table, size: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=size,
        n_embd=size,
        n_layer=1,
        n_head=1,
        n_positions=40,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # One-hot embeddings, a final norm that leaves ((one-hot) - mean) / std, and a head that
        # undoes it: logits are the row of the table up to a constant.
        model.transformer.wte.weight.copy_(torch.eye(size))
        model.transformer.ln_f.weight.fill_(1.0)
        scale = math.sqrt((1 / size) * (1 - 1 / size) + config.layer_norm_epsilon)
        model.lm_head.weight.copy_(torch.tensor(table.log_probs).T * scale)
        shift = model.lm_head.weight.sum(1) / size / scale
        model.lm_head.bias = torch.nn.Parameter(shift)
    return enable_prefix(model)


def test_hypotheses_keep_the_best() -> None:
    kept = Hypotheses(size=2)
    for tokens, total in (([1], -3.0), ([2], -1.0), ([3], -2.0), ([4], -9.0)):
        kept.add(tokens, total, length=1)
    assert kept.tokens == [[2], [3]]
    assert kept.scores == [-1.0, -2.0]
    assert kept.is_done(-4.0, 2, early_stopping=False)
    assert not kept.is_done(-3.9, 2, early_stopping=False)
    assert kept.is_done(-3.9, 2, early_stopping=True)
    kept = Hypotheses(size=1, length_penalty=2.0)
    for tokens, total, length in (([1], -8.0, 2), ([2, 2], -9.0, 3), ([3], -12.0, 3)):
        kept.add(tokens, total, length)
    assert (kept.tokens, kept.scores) == ([[2, 2]], [-1.0])
    assert kept.is_done(-4.0, 2, early_stopping=False)
    assert not kept.is_done(-3.9, 2, early_stopping=False)


def test_too_long_is_a_clear_error() -> None:
    model = enable_prefix(tiny_model("gpt2"))
    prefix = KeyValues(MLPPrefix(PrefixShape.from_config(model.config), 4, 8).key_values())
    with pytest.raises(UserError, match="do not fit into the 64"):
        beam_search(model, prefix, *left_padded([[5]]), eos_token_id=1, max_new_tokens=60)


def test_sliding_windows_are_refused_when_they_would_slide() -> None:
    model = enable_prefix(tiny_model(SLIDING))
    prefix = KeyValues(MLPPrefix(PrefixShape.from_config(model.config), 4, 8).key_values())
    ids, mask = left_padded([[5, 6, 7]])
    beam_search(model, prefix, ids, mask, eos_token_id=1, max_new_tokens=5)
    with pytest.raises(UserError, match="sliding window"):
        beam_search(model, prefix, ids, mask, eos_token_id=1, max_new_tokens=6)
