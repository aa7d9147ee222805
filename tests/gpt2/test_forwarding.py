"""Flags that reach the search, what identifies a decode, and the random numbers of sampling."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from transformers import PreTrainedTokenizerFast

from gpt2 import decoding
from gpt2.decode_request import DecodeRequest, Search
from gpt2.decoding import decode_batch, decode_samples, newline_ids, no_prefix
from gpt2.generator import TextGenerator
from gpt2.readers import Record
from prefix_tuning.attention import enable_prefix
from prefix_tuning.beam_search import Hypotheses
from prefix_tuning.errors import UserError
from prefix_tuning.finite import FiniteLogits

OTHER = Search(
    **{"num_beams": 3, "max_new_tokens": 7, "min_length": 2, "length_penalty": 0.5},
    **{"implementation": "paper", "n_sample": 0, "top_p": 0.7, "seed": 11},
    **{"no_repeat_ngram_size": 4, "no_repeat_in": "text"},
)


class Recorder:
    """A model that keeps the arguments of ``generate``, and answers with the end token."""

    def __init__(self) -> None:
        self.config = tiny_model("gpt2").config
        self.device = torch.device("cpu")
        self.seen: dict[str, Any] = {}

    def generate(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.seen = {"ids": ids, **kwargs, "random": torch.initial_seed()}
        rows = len(ids) * kwargs.get("num_return_sequences", 1)
        return torch.zeros(rows, ids.shape[1] + 1, dtype=torch.long)


def test_every_option_reaches_the_search_of_2020(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def search(model: Any, prefix: Any, ids: Any, mask: Any, **options: Any) -> list[Hypotheses]:
        seen.update(options, ids=ids, mask=mask)
        return [Hypotheses(1, tokens=[[5]], scores=[0.0]) for _ in ids]

    monkeypatch.setattr(decoding, "beam_search", search)
    model = Recorder()
    decode_batch(model, tokenizer, no_prefix(model), [[7, 8, 9], [6]], OTHER)
    assert seen.pop("ids").tolist() == [[7, 8, 9], [0, 0, 6]]
    assert seen.pop("mask").tolist() == [[1, 1, 1], [0, 0, 1]]
    assert seen == {
        **{"num_beams": 3, "max_new_tokens": 7, "min_length": 2, "length_penalty": 0.5},
        **{"eos_token_id": 0, "bad_token_ids": newline_ids(tokenizer), "on_finished": None},
        **{"no_repeat_ngram_size": 4, "before": [[7, 8, 9], [6]]},
    }
    search = replace(OTHER, no_repeat_in="output")
    decode_batch(model, tokenizer, no_prefix(model), [[7, 8, 9], [6]], search)
    assert seen["before"] == [[], []]


def test_another_search_is_not_taken_for_one_of_the_two() -> None:
    with pytest.raises(UserError, match="--beam_search legacy: use one of paper, transformers"):
        replace(OTHER, implementation="legacy")


def test_every_option_reaches_todays_search(tokenizer: PreTrainedTokenizerFast) -> None:
    model, front = Recorder(), no_prefix(Recorder())
    search = replace(OTHER, implementation="transformers")
    decode_batch(model, tokenizer, front, [[7, 8, 9], [6]], search)
    del model.seen["random"]
    check, least, repeats = model.seen.pop("logits_processor")
    assert (repeats.before, repeats.width, repeats.size) == ([[7, 8, 9], [6]], 3, 4)
    assert isinstance(check, FiniteLogits)
    assert (least.prompts.tolist(), least.width, least.end, least.least) == ([3, 1], 3, 0, 2)
    assert model.seen.pop("ids").tolist() == [[7, 8, 9], [0, 0, 6]]
    assert model.seen.pop("attention_mask").tolist() == [[1, 1, 1], [0, 0, 1]]
    assert model.seen == {
        **{"prefix": front, "do_sample": False, "num_beams": 3, "max_new_tokens": 7},
        **{"length_penalty": 0.5, "eos_token_id": 0, "pad_token_id": 0},
        "bad_words_ids": [[i] for i in newline_ids(tokenizer)],
    }


def test_in_front_of_an_infix_the_source_counts_too(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though decoding starts from the separator alone."""
    monkeypatch.setattr(decoding, "_behind", lambda _model, front, rows: (front, [[0]] * len(rows)))
    model, search = Recorder(), replace(OTHER, implementation="transformers")
    decode_batch(model, tokenizer, no_prefix(model), [[7, 8, 0], [6, 5, 0]], search)
    repeats = model.seen["logits_processor"][2]
    assert (repeats.before, repeats.width) == ([[7, 8, 0], [6, 5, 0]], 1)


@pytest.mark.parametrize("implementation", ["paper", "transformers"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_padding_does_not_count_towards_the_least_length(
    implementation: str, num_beams: int, tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A model that wants to end at once: a prompt of one token needs four more, one of six none."""
    from harness.models import load_causal_lm

    model: Any = enable_prefix(load_causal_lm(str(tiny_folder)))
    wish = torch.zeros(len(tokenizer))
    wish[tokenizer.eos_token_id] = 100.0
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + wish)
    search = Search(num_beams, max_new_tokens=9, implementation=implementation)
    prompts = [[40], [40, 41, 42, 43, 44, 45]]

    def texts(prompts: list[list[int]]) -> list[str]:
        return decode_batch(model, tokenizer, no_prefix(model), prompts, search)

    alone = [texts([prompt])[0] for prompt in prompts]
    assert texts(prompts) == alone
    assert alone[1] == "Error"
    assert alone[0] != "Error"


def test_every_option_reaches_sampling_and_every_prompt_has_its_seed(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model, front = Recorder(), no_prefix(Recorder())
    seeds = []
    search = replace(OTHER, n_sample=2)
    for _ in decode_samples(model, tokenizer, front, [[7, 8], [7, 8]], search):
        seeds.append(model.seen.pop("random", None))
        model.seen.pop("ids", None)
    check, repeats = model.seen.pop("logits_processor")
    assert (repeats.before, repeats.width, repeats.size) == ([[7, 8]], 2, 4)
    assert isinstance(check, FiniteLogits)
    assert model.seen == {
        **{"prefix": front, "do_sample": True, "top_p": 0.7, "top_k": 0},
        **{"num_return_sequences": 2, "max_new_tokens": 7},
        **{"eos_token_id": 0, "pad_token_id": 0},
    }
    assert seeds == [11, None, 12, None]


def test_equal_prompts_get_texts_of_their_own_whatever_was_done_before(
    tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    from harness.models import load_causal_lm

    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    prompts = [tokenizer("name : a").input_ids] * 3
    search = Search(n_sample=2, max_new_tokens=8, top_p=1.0)

    def texts(skip: list[int], seed: int = 42) -> dict[int, str]:
        options = replace(search, seed=seed)
        return dict(decode_samples(model, tokenizer, no_prefix(model), prompts, options, skip))

    found = texts([])
    assert [*found] == [*range(6)]
    assert len(set(found.values())) == 6
    assert texts([0, 1, 2]) == {i: found[i] for i in (2, 3, 4, 5)}
    assert not set(texts([], seed=7).values()) & set(found.values())


FLAGS: dict[str, tuple[dict[str, Any], Any]] = {
    "num_beams": ({"num_beams": 3}, 3),
    "max_new_tokens": ({"length": 9}, 9),
    "length_penalty": ({"length_penalty": 0.25}, 0.25),
    "implementation": ({"beam_search": "transformers"}, "transformers"),
    "n_sample": ({"search": "nucleus", "num_return_sequences": 4}, 4),
    "top_p": ({"top_p": 0.5}, 0.5),
    "seed": ({"seed": 5}, 5),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 4}, 4),
    "no_repeat_in": ({"no_repeat_ngram_size": 4, "no_repeat_in": "output"}, "output"),
}


@pytest.mark.parametrize("name", [f.name for f in fields(Search) if f.name != "min_length"])
def test_every_flag_of_the_search_reaches_it(name: str) -> None:
    flags, value = FLAGS[name]
    changed = DecodeRequest(model_name_or_path="m", data_file="d", **flags).how()
    plain = DecodeRequest(model_name_or_path="m", data_file="d").how()
    assert getattr(changed, name) == value != getattr(plain, name)
    others = {f.name for f in fields(Search) if getattr(changed, f.name) != getattr(plain, f.name)}
    assert others == ({name, "no_repeat_ngram_size"} if name == "no_repeat_in" else {name})


def test_texts_of_a_version_without_ngrams_are_known_again() -> None:
    request = DecodeRequest(model_name_or_path="m", data_file="d")
    names = {field.name for field in fields(Search)} - {"no_repeat_ngram_size", "no_repeat_in"}
    assert request.how().options == {name: getattr(request.how(), name) for name in names}
    assert OTHER.options == vars(OTHER)


def test_where_ngrams_count_needs_their_size() -> None:
    with pytest.raises(UserError, match="--no_repeat_in output: only with --no_repeat_ngram_size"):
        DecodeRequest(model_name_or_path="m", data_file="d", no_repeat_in="output")
    with pytest.raises(UserError, match="--no_repeat_ngram_size -1: must not be negative"):
        DecodeRequest(model_name_or_path="m", data_file="d", no_repeat_ngram_size=-1)


def test_a_decode_is_identified_by_all_that_decides_its_texts(
    tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    records = [Record("a b", (), "line 1"), Record("c", (), "line 2")]
    plain = {"model_name_or_path": str(tiny_folder), "data_file": "d", "length": 8}

    def identity(
        records: list[Record] = records, task: dict[str, Any] | None = None, **flags: Any
    ) -> Any:
        request = DecodeRequest(**{**plain, **flags})
        writer = TextGenerator(model, tokenizer, no_prefix(model), 0, task or {})
        return writer.identity(request, records, writer.prompts(request, records)).settings()

    first = identity()
    assert identity() == first
    for flags, _ in FLAGS.values():
        assert identity(**flags) != first, flags
    assert identity(records[::-1]) != first
    assert identity(separator=" =>") != first
    assert identity(task={"separator": " =>"}) != first
    assert identity(task={"source_prefix": "summarize"}) != first
    assert identity(task={"spaces": "no"}) != first
    assert identity(data_file="e") != first
    model.bfloat16()
    assert identity() != first
