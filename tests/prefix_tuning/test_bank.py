"""Prefixes by name: mixed batches equal each row alone, memory is bounded, files may change."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file
from transformers import LogitsProcessor, LogitsProcessorList

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.bank import BrokenPrefix, PrefixBank, UnknownPrefix
from prefix_tuning.beam_search import beam_search
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.prefix import PrefixShape
from prefix_tuning.serve.sampling import draw

LENGTHS = {"a": 1, "b": 9, "c": 4, "d": 4, "e": 7, "f": 2}
PAD, END = 2, 1


def write_prefix(folder: Path, model: Any, length: int, seed: int = 0, sites: Any = None) -> None:
    torch.manual_seed(seed)
    sites = sites or ("self",)
    prefix = FlatPrefix(PrefixShape.from_config(model.config), length, sites=sites)
    checkpoint.export(folder, prefix, checkpoint.metadata(prefix, model, "tiny"))


def make_bank(folder: Path, family: str = "gpt2", **options: Any) -> PrefixBank:
    model = tiny_model(family)
    for seed, (name, length) in enumerate(LENGTHS.items()):
        write_prefix(folder / name, model, length, seed)
    return PrefixBank(model, folder, **options)


def alone(bank: PrefixBank, name: str | None) -> dict[str, Any]:
    """The ``prefix`` argument of one row, read without the bank; none for a row without."""
    if name is None:
        return {}
    prefix, _ = checkpoint.load(bank.folder / name, bank.model)
    return {"prefix": KeyValues(prefix.key_values())}


def mixed_prompts(count: int = 60) -> list[tuple[str | None, list[int]]]:
    chance = random.Random(5)
    names = [*LENGTHS, None]
    return [
        (chance.choice(names), [chance.randrange(3, 50) for _ in range(chance.randrange(1, 12))])
        for _ in range(count)
    ]


def left_padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


class SeededRows(LogitsProcessor):
    """Leaves of each row only the token drawn by the row's own generator."""

    def __init__(self, seeds: list[int]) -> None:
        self.chances = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.tensor([c.random() for c in self.chances], dtype=torch.float64)
        ones = torch.ones_like(uniform)
        token = draw(scores, uniform, 0.8 * ones, 0.95 * ones)
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


def new_tokens(output: torch.Tensor, width: int) -> list[list[int]]:
    rows = [row[width:].tolist() for row in output]
    return [row[: row.index(END)] if END in row else row for row in rows]


def generate(bank: PrefixBank, prompts: list[list[int]], search: str, seeds: list[int], **kw: Any):
    inputs = left_padded(prompts)
    if search == "beams":
        kw["num_beams"] = 3
    if search == "sampling":
        kw["logits_processor"] = LogitsProcessorList([SeededRows(seeds)])
    output = bank.model.generate(**inputs, max_new_tokens=5, do_sample=False, **kw)
    return new_tokens(output, inputs["input_ids"].shape[1])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("search", ["greedy", "sampling", "beams"])
def test_every_row_of_a_mixed_batch_equals_the_row_alone(
    tmp_path: Path, family: str, search: str
) -> None:
    bank, mixed = make_bank(tmp_path, family), mixed_prompts()
    bank.model.double()  # in fp32 two beams may score alike
    names, prompts = [name for name, _ in mixed], [prompt for _, prompt in mixed]
    prefix = bank.key_values(names)
    together = generate(bank, prompts, search, [*range(60)], prefix=prefix)
    for i, (name, prompt) in enumerate(mixed):
        assert [together[i]] == generate(bank, [prompt], search, [i], **alone(bank, name))
    assert len({tuple(row) for row in together}) > 20  # they are not all one text


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_papers_beam_search_over_mixed_rows(tmp_path: Path, family: str) -> None:
    bank, mixed = make_bank(tmp_path, family), mixed_prompts()
    options = {"eos_token_id": END, "num_beams": 3, "max_new_tokens": 5}
    inputs = left_padded([prompt for _, prompt in mixed])
    prefix = bank.key_values([name for name, _ in mixed])
    together = beam_search(bank.model, prefix, **inputs, **options)
    shape = PrefixShape.from_config(bank.model.config)
    nothing = KeyValues([torch.zeros(2, 1, shape.n_head, 0, shape.head_dim)] * shape.n_layer)
    for (name, prompt), found in zip(mixed, together, strict=True):
        own = alone(bank, name).get("prefix", nothing)
        expected = beam_search(bank.model, own, **left_padded([prompt]), **options)[0]
        assert found.tokens == expected.tokens
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_drawn_tokens_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(20_000, -1)
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ones = torch.ones_like(uniform)
    for top_p, kept in ((1.0, [0, 1, 2, 3]), (0.9, [1, 2]), (0.01, [2])):
        expected = torch.zeros(4)
        expected[kept] = (logits[0] / 0.5)[kept].softmax(0)
        found = draw(logits, uniform, 0.5 * ones, top_p * ones).bincount(minlength=4) / 20_000
        assert torch.allclose(found.float(), expected, atol=0.01)


def test_rows_without_a_prefix_have_the_logits_of_the_model(tmp_path: Path) -> None:
    bank = make_bank(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    expected = tiny_model("gpt2")(ids).logits
    assert torch.allclose(bank.model(ids, prefix=bank.key_values([None])).logits, expected)
    both = bank.model(ids.expand(2, -1), prefix=bank.key_values(["b", None])).logits
    assert torch.allclose(both[1:], expected, atol=1e-5)


def test_prefixes_of_an_encoder_decoder(tmp_path: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    sizes = {
        f"{side}_{what}": 2
        for side in ("encoder", "decoder")
        for what in ("layers", "attention_heads")
    }
    config = BartConfig(vocab_size=50, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    model = enable_prefix(BartForConditionalGeneration(config).eval())
    for length in (2, 5):
        write_prefix(tmp_path / f"p{length}", model, length, length, SITES)
    bank = PrefixBank(model, tmp_path)
    inputs = {
        "input_ids": torch.tensor([[3, 4, 5]] * 2),
        "decoder_input_ids": torch.tensor([[2, 7]] * 2),
    }
    together = model(**inputs, prefix=bank.key_values(["p2", "p5"])).logits
    for i, name in enumerate(("p2", "p5")):
        prefix, _ = checkpoint.load(tmp_path / name, model)
        one = {key: value[:1] for key, value in inputs.items()}
        own = model(**one, prefix=KeyValues(prefix.all_key_values())).logits
        assert torch.allclose(together[i : i + 1], own, atol=1e-5)
    write_prefix(tmp_path / "short", model, 2)
    with pytest.raises(BrokenPrefix, match="no prefix for the attention encoder"):
        bank.key_values(["short"])


def test_a_thousand_prefixes_in_the_memory_of_forty(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    write_prefix(tmp_path / "p0", model, 5)
    for i in range(1, 1000):
        (tmp_path / f"p{i}").mkdir()
        for file in checkpoint.EXPORT:
            os.link(tmp_path / "p0" / file, tmp_path / f"p{i}" / file)
    slot = 3 * 2 * 32 * 4  # bytes: layers, keys and values, width, fp32
    bank = PrefixBank(model, tmp_path, memory=200 * slot)
    assert bank.capacity == 200
    assert len(bank.names()) == 1000
    expected = bank.key_values(["p0"]).sites["self"][0]
    for i in range(1000):
        assert torch.equal(bank.key_values([f"p{i}", "p0"]).sites["self"][0][:, :1], expected)
    assert bank.loads == 1000  # p0 was used all the time and stayed
    bank.key_values(["p990"])
    assert bank.loads == 1000
    bank.key_values(["p3"])
    assert bank.loads == 1001
    with pytest.raises(UserError, match="more than the 200 slots"):
        bank.key_values([f"p{i}" for i in range(41)])
    bank.key_values([f"p{i}" for i in range(40)])


def test_what_was_used_least_recently_makes_room(tmp_path: Path) -> None:
    size = 4 * PrefixShape.from_config(tiny_model("gpt2").config).features
    bank = make_bank(tmp_path, memory=8 * size)  # two prefixes of four slots
    for name, loads in (("c", 1), ("d", 2), ("c", 2), ("f", 3), ("c", 3), ("d", 4)):
        bank.key_values([name])
        assert bank.loads == loads, name


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    bank = make_bank(tmp_path)
    before = bank.key_values(["b"])
    write_prefix(tmp_path / "b", bank.model, 3, seed=77)
    after = bank.key_values(["b"])
    assert before.sites["self"][0].shape[3] == 9
    expected, _ = checkpoint.load(tmp_path / "b")
    assert torch.equal(after.sites["self"][1], expected.key_values()[1])
    assert after.offset.tolist() == [3]
    for seed in (78, 79):  # of the same size, and written in the same moment
        times = [os.stat(tmp_path / "b" / file).st_mtime_ns for file in checkpoint.EXPORT]
        write_prefix(tmp_path / "b", bank.model, 3, seed=seed)
        for file, time in zip(checkpoint.EXPORT, times, strict=True):
            os.utime(tmp_path / "b" / file, ns=(time, time))
        expected, _ = checkpoint.load(tmp_path / "b")
        assert torch.equal(bank.key_values(["b"]).sites["self"][1], expected.key_values()[1])


def damage(path: Path, how: str) -> None:
    if how == "half":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "json":
        (path.parent / "prefix.json").write_text('{"options": 3}')
    elif how == "no numbers":
        tensors = load_file(path)
        next(iter(tensors.values())).view(-1)[-1] = torch.nan
        save_file(tensors, path, {"format": "pt"})
    else:
        write_prefix(path.parent, tiny_model("gpt2", seed=9), 4)


@pytest.mark.parametrize("how", ["half", "json", "no numbers", "other model"])
def test_a_broken_file_is_refused_by_name_and_the_old_one_stays(tmp_path: Path, how: str) -> None:
    bank = make_bank(tmp_path)
    before = bank.key_values(["b"]).sites["self"][0]
    for name in "be":
        damage(tmp_path / name / "prefix.safetensors", how)
    assert torch.equal(bank.key_values(["b"]).sites["self"][0], before)
    assert str(tmp_path / "b") in bank.refused["b"]
    loads = bank.loads
    bank.key_values(["b"])
    assert bank.loads == loads  # the same bytes are not tried again
    with pytest.raises(BrokenPrefix, match=str(tmp_path / "e")):
        bank.key_values(["e"])
    write_prefix(tmp_path / "b", bank.model, 2)
    assert bank.key_values(["b"]).offset.tolist() == [2]
    assert "b" not in bank.refused


def test_names_stay_inside_the_folder(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "inside")
    write_prefix(tmp_path / "outside", bank.model, 2)
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "inside" / "run").mkdir()
    write_prefix(tmp_path / "inside" / "run" / "export", bank.model, 2)
    assert bank.names() == [*LENGTHS, "run"]
    assert bank.key_values(["run"]).offset.tolist() == [2]
    for name in (
        "../outside",
        "link",
        "/etc",
        "",
        ".",
        "..",
        "a/../b",
        "a\0",
        "nothing",
        "x" * 300,
    ):
        assert name not in bank
        with pytest.raises(UnknownPrefix, match="has no prefix"):
            bank.key_values([name])


def test_a_pickle_is_no_prefix(tmp_path: Path) -> None:
    bank = make_bank(tmp_path)
    torch.save({"a": 1}, tmp_path / "a" / "pytorch_model.bin")
    (tmp_path / "a" / "prefix.safetensors").unlink()
    with pytest.raises(UnknownPrefix):
        bank.key_values(["a"])


def test_rows_are_held_to_the_position_table_by_their_own_length(tmp_path: Path) -> None:
    bank = make_bank(tmp_path)
    inputs = left_padded([[5] * 60, [6]])
    bank.model.generate(**inputs, max_new_tokens=4, prefix=bank.key_values([None, "b"]))
    with pytest.raises(UserError, match="9 positions and 60 tokens"):
        bank.model.generate(**inputs, max_new_tokens=4, prefix=bank.key_values(["b", None]))


@pytest.mark.parametrize("place", ["head.safetensors", "prefix.json"])
def test_a_prefix_trained_with_a_head_is_refused(tmp_path: Path, place: str) -> None:
    """Its texts would come from keys and values that were never trained for this model's head."""
    bank = make_bank(tmp_path)
    path = tmp_path / "a" / place
    if place == "prefix.json":
        path.write_text(json.dumps({**json.loads(path.read_text()), "head": ["score.weight"]}))
    else:
        path.write_bytes(b"")
    with pytest.raises(BrokenPrefix, match="trained together with a head"):
        bank.key_values(["b", "a"])


def test_tokens_are_numbered_from_where_the_files_say(tmp_path: Path) -> None:
    bank = make_bank(tmp_path)
    prefix, meta = checkpoint.load(tmp_path / "c", bank.model)
    checkpoint.export(tmp_path / "from 0", prefix, {**meta, "position_offset": 0})
    assert bank.key_values(["c", "from 0"]).offset.tolist() == [4, 0]
    assert (bank.occupied("c"), bank.occupied("from 0")) == (4, 0)


def test_padding_is_finite_whatever_was_in_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hidden slot that is not a number would still make one of the whole row."""
    model = make_bank(tmp_path).model
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", lambda *n, **more: torch.full(n, torch.nan, **more))
        bank = PrefixBank(model, tmp_path, memory=2**16)
    pairs = bank.key_values(["a", "b", None]).sites["self"]
    assert all(pair.isfinite().all() for pair in pairs)


@pytest.mark.parametrize("ask", ["key_values", "occupied", "task"])
def test_threads_take_turns(tmp_path: Path, ask: str) -> None:
    """Else one would overwrite the slots that another is about to read."""
    bank = make_bank(tmp_path)
    given = ["a"] if ask == "key_values" else "a"
    thread = threading.Thread(target=getattr(bank, ask), args=(given,), daemon=True)
    with bank._lock:
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
