"""Texts and scores: post-processing by hand, the split of WebNLG, one line per record of DART."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BPE, tiny_model
from torch.nn.functional import one_hot
from transformers import (
    GPT2Config,
    GPT2Tokenizer,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedTokenizerFast,
    set_seed,
)

from gpt2 import decoding, run_generation
from gpt2.decoding import (
    Search,
    batch_that_fits,
    decode_batch,
    newline_ids,
    no_prefix,
    output_text,
    sample,
)
from gpt2.readers import Record
from gpt2.records import group_by_source
from gpt2.run_generation import score_outputs
from harness.text import clean_up
from prefix_tuning.attention import enable_prefix


def test_clean_up_is_that_of_2020() -> None:
    """The ten replacements, in an order that matters for the apostrophe."""
    text = "It 's a pub , is n't it ? Yes ! They 've said they 're open . I 'm in ' the ' pub"
    expected = "It's a pub, isn't it? Yes! They've said they're open. I'm in'the'pub"
    assert clean_up(text) == expected


def test_output_text(tokenizer: PreTrainedTokenizerFast) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    prompt = ids(" name : x , y <|endoftext|>")
    assert (
        output_text(tokenizer, prompt, ids(" It is a pub .  <|endoftext|> more")) == "It is a pub."
    )
    assert output_text(tokenizer, prompt, ids(" two\nlines")) == "two lines"
    assert output_text(tokenizer, prompt, ids("  <|endoftext|>")) == "Error"


def test_line_breaks_of_gpt2_are_forbidden() -> None:
    if not (BPE / "merges.txt").is_file():
        pytest.skip("GPT-2's vocabulary is not here: scripts/test.sh fetches it")
    assert newline_ids(GPT2Tokenizer.from_pretrained(BPE)) == [628, 198]


def test_no_prefix_is_the_model_by_itself(tokenizer: PreTrainedTokenizerFast) -> None:
    stock, model = tiny_model("gpt2"), enable_prefix(tiny_model("gpt2"))
    ids = torch.randint(3, 50, (2, 6))
    assert torch.allclose(model(ids, prefix=no_prefix(model)).logits, stock(ids).logits, atol=1e-5)


@pytest.fixture(scope="module")
def repetitive(tiny_folder: Path) -> Any:
    """A model that likes to go round in circles of four tokens, as 40, 41, 42, 43, 40."""
    from harness.models import load_causal_lm

    model: Any = enable_prefix(load_causal_lm(str(tiny_folder)))
    read: list[torch.Tensor] = []

    def go_round(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        ids = read.pop()[:, -logits.shape[1] :]  # [B, T]
        return logits + 3 * one_hot(ids - ids % 4 + (ids + 1) % 4, logits.shape[2])

    words = model.get_input_embeddings()
    words.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
    model.lm_head.register_forward_hook(go_round)
    return model


def as_tokens(_tokenizer: Any, _prompt: list[int], generated: list[int]) -> str:
    """What stands for :func:`output_text`: the tokens themselves, up to the end."""
    return str(generated[: generated.index(0)] if 0 in generated else generated)


def test_transformers_own_search_is_the_other_choice(
    tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    from harness.models import load_causal_lm

    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    prompts = tokenizer(["name : a b c", "name : d"]).input_ids
    search = Search(num_beams=3, max_new_tokens=6, implementation="transformers")
    texts = decode_batch(model, tokenizer, no_prefix(model), prompts, search)
    for prompt, text in zip(prompts, texts, strict=True):
        generated = model.generate(
            torch.tensor([prompt]),
            num_beams=3,
            max_new_tokens=6,
            do_sample=False,
            bad_words_ids=[[i] for i in newline_ids(tokenizer)] or None,
            eos_token_id=0,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert text == output_text(tokenizer, prompt, generated)


class OfOutput(NoRepeatNGramLogitsProcessor):
    """transformers' own rule, on the output alone."""

    def __init__(self, size: int, n_prompt: int) -> None:
        super().__init__(size)
        self.n_prompt = n_prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return super().__call__(input_ids[:, self.n_prompt :], scores)


@pytest.mark.parametrize(
    ("beams", "implementation", "size", "where"),
    [
        *((1, "paper", 1, "text"), (1, "paper", 2, "text"), (1, "paper", 4, "output")),
        *((1, "transformers", 1, "output"), (3, "transformers", 2, "output")),
        (3, "transformers", 4, "text"),
    ],
)
def test_no_ngram_comes_twice_as_in_transformers(
    beams: int,
    implementation: str,
    size: int,
    where: str,
    repetitive: Any,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row of a batch gets the tokens that ``generate`` gives it alone."""
    monkeypatch.setattr(decoding, "output_text", as_tokens)
    shared = {"num_beams": beams, "max_new_tokens": 12, "length_penalty": 0.8}
    prompts = [[40, 41, 40, 41, 42], [50], [44, 45, 46, 44, 45, 46, 44]]
    search = Search(
        **shared,
        implementation=implementation,
        no_repeat_ngram_size=size,
        no_repeat_in=where,
        min_length=0,
    )
    found = decode_batch(repetitive, tokenizer, no_prefix(repetitive), prompts, search)
    free = replace(search, no_repeat_ngram_size=0, no_repeat_in="text")
    assert found != decode_batch(repetitive, tokenizer, no_prefix(repetitive), prompts, free)
    bad = [[i] for i in newline_ids(tokenizer)] or None
    for prompt, text in zip(prompts, found, strict=True):
        rule: dict[str, Any] = {"no_repeat_ngram_size": size}
        if where == "output":
            rule = {"logits_processor": LogitsProcessorList([OfOutput(size, len(prompt))])}
        ids = repetitive.generate(
            torch.tensor([prompt]),
            **{**shared, **rule, "do_sample": False, "bad_words_ids": bad},
            **{"eos_token_id": 0, "pad_token_id": 0},
        )
        assert text == as_tokens(tokenizer, prompt, ids[0, len(prompt) :].tolist())
        alone = decode_batch(repetitive, tokenizer, no_prefix(repetitive), [prompt], search)
        assert text == alone[0]


def test_no_ngram_comes_twice_in_what_is_drawn(
    repetitive: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt = [40, 41, 40, 41]
    search = Search(n_sample=3, max_new_tokens=12, no_repeat_ngram_size=2, seed=5)
    found = sample(repetitive, tokenizer, no_prefix(repetitive), prompt, search, index=2)
    set_seed(7)
    drawn = repetitive.generate(
        torch.tensor([prompt]),
        **{"do_sample": True, "top_p": 0.8, "top_k": 0, "no_repeat_ngram_size": 2},
        **{"num_return_sequences": 3, "max_new_tokens": 12, "eos_token_id": 0, "pad_token_id": 0},
    )
    assert found == [output_text(tokenizer, prompt, ids) for ids in drawn[:, 4:].tolist()]


def record(source: str, targets: list[str], relation: str, category: str) -> Record:
    return Record(source, tuple(targets), "", (relation,), category)


def test_dart_and_webnlg_are_scored_one_line_per_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries with the same triples get the same output; the scorer sees both."""
    records = [
        record("a", ["x one"], "r", "Airport"),
        record("b", ["y two"], "r", "Artist"),
        record("a", ["x three"], "r", "Airport"),
    ]
    seen: dict[str, Any] = {}

    def fake(name: str) -> Any:
        return lambda *args, **kwargs: seen.setdefault(name, args) and {}

    monkeypatch.setattr("evaluation.webnlg.score", fake("webnlg"))
    monkeypatch.setattr("evaluation.dart.score", fake("dart"))
    assert len(group_by_source(records)) == 2
    score_outputs("webnlg", records, ["A", "B"])
    score_outputs("triples", records, ["A", "B"])
    references = [("x one",), ("y two",), ("x three",)]
    assert seen["webnlg"] == (references, ["A", "B", "A"], ["Airport", "Artist", "Airport"])
    assert seen["dart"] == (references, ["A", "B", "A"])


def test_e2e_is_scored_per_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: an output equal to a reference of its own input has BLEU 1."""
    monkeypatch.setattr("shutil.which", lambda name: None)  # Java's scores are not looked at
    records = [
        Record("a", ("this is a good pub",), ""),
        Record("b", ("there is another pub nearby",), ""),
        Record("a", ("it is a very good pub",), ""),
    ]
    (scores,) = score_outputs(
        "data2text", records, ["it is a very good pub", "there is another pub nearby"]
    ).values()
    assert scores["BLEU -p"] == pytest.approx(1.0)


def test_inputs_without_references_are_decoded_and_not_scored(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "own.jsonl"
    data.write_text('{"source": "a"}\n{"source": "b", "target": "c"}\n', encoding="utf-8")
    arguments = ["--model_name_or_path", str(tiny_folder), "--data_file", str(data)]
    arguments += ["--gen_dir", str(tmp_path / "out"), "--length", "4", "--no_cuda"]
    run_generation.main(arguments)
    assert "not scored" in capsys.readouterr().out
    assert len((tmp_path / "out/tiny-gpt2_valid_beam").read_text("utf-8").splitlines()) == 2
    assert not (tmp_path / "out/tiny-gpt2_valid_beam_eval.json").exists()


def test_scores_are_written_with_all_digits(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)  # Java's scores are not looked at
    data = tmp_path / "own.jsonl"
    data.write_text('{"source": "b", "target": "c d e f"}\n', encoding="utf-8")
    arguments = ["--model_name_or_path", str(tiny_folder), "--data_file", str(data)]
    arguments += ["--gen_dir", str(tmp_path), "--length", "4", "--no_cuda"]
    run_generation.main(arguments)
    path = tmp_path / "tiny-gpt2_valid_beam_eval.json"
    scores = json.loads(path.read_text("utf-8"))["E2E"]["values"]
    assert {"BLEU", "NIST", "BLEU -p", "NIST -p"} <= set(scores)
    path.unlink()
    run_generation.main([*arguments, "--no_score"])
    assert not path.exists()


@pytest.mark.parametrize(("gigabytes", "n_text"), [(10, 73), (0.1, 1), (1000, 512)])
def test_a_gpu_decodes_as_many_together_as_it_has_memory_for(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, n_text: int
) -> None:
    """GPT-2 medium in bf16: 98,304 bytes a token; twice 540 tokens, and 3 MB of logits."""
    free = int(gigabytes * 1e9)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 0))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 10)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 10)
    config = GPT2Config(n_layer=24, n_head=16, n_embd=1024)
    model: Any = SimpleNamespace(config=config, device=torch.device("cuda"), dtype=torch.bfloat16)
    search = Search(num_beams=5, max_new_tokens=100)
    assert batch_that_fits(model, 40, search) == n_text
    model.device = torch.device("cpu")
    assert batch_that_fits(model, 40, search) == 64
