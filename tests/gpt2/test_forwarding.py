"""Flags that reach training and search, what identifies a decode, random numbers of sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import tiny_model
from transformers import PreTrainedTokenizerFast

from gpt2 import bank_generator, decoding, gen, generator, run_generation, training
from gpt2 import run_language_modeling as whole_run
from gpt2.arguments import ModelArguments
from gpt2.bank_generator import BankGenerator
from gpt2.decode_request import DecodeOptions, DecodeRequest, Search
from gpt2.decoding import decode_batch, decode_samples, newline_ids, no_prefix
from gpt2.generator import TextGenerator
from gpt2.readers import Record
from gpt2.tasks import TASKS
from gpt2.train_request import parse
from gpt2.training import Shared
from harness.models import load_causal_lm
from harness.own_data import Columns
from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.beam_search import Hypotheses
from prefix_tuning.errors import UserError
from prefix_tuning.finite import FiniteLogits
from prefix_tuning.parametrizations import FlatPrefix

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
    "top_p": ({"search": "nucleus", "top_p": 0.5}, 0.5),
    "seed": ({"seed": 5}, 5),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 4}, 4),
    "no_repeat_in": ({"no_repeat_ngram_size": 4, "no_repeat_in": "output"}, "output"),
}


@pytest.mark.parametrize("name", [f.name for f in fields(Search) if f.name != "min_length"])
def test_every_flag_of_the_search_reaches_it(name: str) -> None:
    flags, value = FLAGS[name]
    changed = DecodeRequest(model_name_or_path="m", data_file="d", **flags).how()
    same = {"search": flags.get("search")}
    plain = DecodeRequest(model_name_or_path="m", data_file="d", **same).how()
    assert getattr(changed, name) == value != getattr(plain, name)
    others = {f.name for f in fields(Search) if getattr(changed, f.name) != getattr(plain, f.name)}
    assert others == ({name, "no_repeat_ngram_size"} if name == "no_repeat_in" else {name})


def test_names_of_the_search_that_mean_another() -> None:
    """``legacy`` is the paper's; a number of beams asks for beams, where the task has none."""
    common = {"model_name_or_path": "m", "data_file": "d"}
    assert DecodeRequest(**common, beam_search="legacy").how().implementation == "paper"
    assert TASKS["sentiment"].search == "nucleus"
    asked = DecodeRequest(**common, task_mode="sentiment", num_beams=3).how()
    assert (asked.n_sample, asked.num_beams) == (0, 3)


def test_a_limit_is_of_inputs_and_not_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a||x\na||y\nb||z\nc||w\n", encoding="utf-8")
    request = DecodeRequest(
        **{"model_name_or_path": "m", "data_file": str(path), "limit": 2},
        gen_dir=str(tmp_path),
    )
    monkeypatch.setattr(TextGenerator, "prompts", lambda _, request, records: reach(records))
    with pytest.raises(Reached) as reached:
        run_generation.decode(request, TextGenerator(*cast(Any, (None, None, None, 0, {}))))
    (records,) = reached.value.args[0]
    assert [(record.source, record.targets) for record in records] == [
        ("a", ("x", "y")),
        ("b", ("z",)),
    ]


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


def test_prefix_prompt_and_output_may_fill_the_positions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    writer = TextGenerator(model, tokenizer, no_prefix(model), 4, {})
    record = Record("a b", (), "line 1")
    (prompt,) = writer.format(DecodeRequest(model_name_or_path="m")).encode_records([record])
    for length in (64 - 4 - len(prompt), 64 - 4 - len(prompt) + 1):
        request = DecodeRequest(model_name_or_path="m", data_file="d", length=length)
        if length + len(prompt) + 4 == 64:
            assert writer.prompts(request, [record]) == [prompt]
        else:
            with pytest.raises(UserError, match="exceed the model's 64 positions"):
                writer.prompts(request, [record])


class Reached(Exception):
    """Training would begin, or a model be loaded; with what it was asked for."""


def reach(*args: Any) -> Any:
    raise Reached(args)


@pytest.fixture
def trainer_of(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """``trainer_of(flags, shared)``: what would train on the summaries in ``tmp_path``."""
    monkeypatch.setattr(training.loop, "train", reach)
    for split, n in (("train", 30), ("val", 20)):
        for end, text in (("source", "a tea"), ("target", "rain " * 200)):
            (tmp_path / f"{split}.{end}").write_text(f"{text}\n" * n, encoding="utf-8")
    data = f"--train_data_file {tmp_path}/train.source --eval_data_file {tmp_path}/val.source"
    plain = f"{data} --model_name_or_path {tiny_folder} --use_cpu --report_to none --mid_dim 4 "
    plain += "--tuning_mode prefixtune --optim_prefix yes --preseqlen 2"
    numbers = iter(range(9))

    def of(flags: str, shared: Shared | None = None) -> Any:
        output = ["--output_dir", str(tmp_path / f"run{next(numbers)}")]
        with pytest.raises(Reached) as reached:
            training.train(parse([*plain.split(), *output, *flags.split()]), shared)
        return reached.value.args[0][0]

    return of


def test_every_flag_reaches_training(trainer_of: Callable[..., Any]) -> None:
    flags = "--task_mode cnndm --dtype bfloat16 --activation stock --use_dropout yes --seed 5 "
    flags += "--pad_multiple 7 --train_size 10 --sample_seed 3 --length_groups yes --data_seed 9 "
    flags += "--objective_mode 0 --label_smoothing 0.1 --per_device_train_batch_size 3"
    trainer = trainer_of(flags)
    model, train, evaluated = trainer.model_gpt2, trainer.train_dataset, trainer.eval_dataset
    assert model.dtype == torch.bfloat16
    assert not any(isinstance(module, torch.nn.GELU) for module in model.modules())
    assert (len(train), len(evaluated)) == (10, 3)  # 30 % of the pairs, section 6.3
    # Cut to 56 tokens for training and 142 for evaluation, and the end token.
    for examples, most in ((train, 56), (evaluated, 142)):
        assert {sum(i >= 0 for i in example["labels"]) for example in examples} == {most + 1}
    assert trainer.data_collator([train[0]])["input_ids"].shape[1] % 7 == 0
    sampler = trainer._get_train_sampler()
    assert (sampler.seed, sampler.batch_size, len(sampler.lengths)) == (9, 3, 10)
    assert (trainer.use_dropout, trainer.label_smoothing) == (True, 0.1)
    assert trainer.prefix.objective_mode == 0


def test_runs_share_only_what_is_the_same(trainer_of: Callable[..., Any], tmp_path: Path) -> None:
    path, shared = tmp_path / "train.txt", Shared()
    path.write_text(f"a|||{'rain ' * 400}\n" * 2, encoding="utf-8")
    flags = f"--task_mode writingPrompts --train_data_file {path} --eval_data_file {path} "
    one = trainer_of(flags, shared)
    longer = trainer_of(f"{flags} --preseqlen 100", shared)
    ids = one.train_dataset[0]["input_ids"]
    assert len(ids) == 320 - 2  # a story fills what the prefix leaves of the positions
    assert len(longer.train_dataset[0]["input_ids"]) == 320 - 100
    assert longer.model_gpt2 is one.model_gpt2
    other = trainer_of(f"{flags} --separator => --train_size 1", shared)
    assert len(other.train_dataset) == 1
    assert other.train_dataset[0]["input_ids"] != ids
    half = trainer_of(f"{flags} --dtype bfloat16", shared)
    assert half.model_gpt2.dtype == torch.bfloat16
    tuned = [trainer_of(f"{flags} --tuning_mode finetune", shared).model for _ in range(2)]
    assert tuned[0] is not tuned[1], "a model that is trained is no other run's"


def test_what_is_read_is_what_the_flags_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the file that is decoded last shows before hours of training."""
    seen: list[dict[str, Any]] = []

    def read(mode: str, path: Any, **more: Any) -> list[Record]:
        seen.append({"mode": mode, "path": path, **more})
        return [Record("a", ("b",), "line 1")]

    monkeypatch.setattr(training, "read_records", read)
    flags = "--train_data_file t.csv --eval_data_file e.csv --test_data_file d.csv --output_dir o "
    flags += "--source_column q --target_column a --empty_sources skip --use_cpu --report_to none"
    training._read(parse(flags.split()).data)
    common = {"mode": "data2text", "skip_empty": True, "columns": Columns("q", "a")}
    assert seen == [
        {**common, "path": "t.csv", "training": True},
        {**common, "path": "e.csv", "training": True, "split": "valid"},
        {**common, "path": "d.csv", "training": False, "split": "test"},
    ]
    seen.clear()
    training._read(parse([*flags.split(), "--generate", "no"]).data)
    assert [one["path"] for one in seen] == ["t.csv", "e.csv"]
    monkeypatch.setattr(run_generation, "read_records", lambda *a, **k: read(*a, **k) and reach(0))
    request = DecodeRequest(
        **{"model_name_or_path": "m", "data_file": "d", "eval_dataset": "test"},
        **{"source_column": "q", "target_column": "a", "empty_sources": "skip"},
    )
    with pytest.raises(Reached):
        run_generation.decode(request)
    assert seen[-1] == {**common, "path": "d", "training": False, "split": "test"}


def test_a_folder_says_precision_and_positions(tiny_folder: Path, tmp_path: Path) -> None:
    model = load_causal_lm(str(tiny_folder), "bfloat16")
    prefix = FlatPrefix(model.config, 3)
    meta = checkpoint.metadata(prefix, model, str(tiny_folder))
    checkpoint.export(tmp_path, prefix, {**meta, "position_offset": 0})
    request = DecodeRequest(
        model_name_or_path=str(tiny_folder), prefixModel_name_or_path=str(tmp_path), data_file="d"
    )
    found = TextGenerator.load(request)
    assert found.model.dtype == torch.bfloat16
    assert isinstance(found.prefix, KeyValues)
    assert {pair.dtype for pair in found.prefix.sites["self"]} == {torch.bfloat16}
    assert (found.prefix.offset, found.n_slot) == (0, 3)
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    asked = TextGenerator.load(replace(request, dtype="float32"))
    assert asked.model.dtype == torch.float32


@pytest.mark.parametrize("search", ["beam", "nucleus"])
@pytest.mark.parametrize("module", [generator, bank_generator])
def test_what_is_decoded_already_is_left_out(
    module: Any, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    for name in ("decode", "decode_samples"):
        monkeypatch.setattr(module, name, lambda *a, name=name: seen.append((name, *a[3:])))
    parts = (Recorder(), None, None, 0, {})
    writer: Any = TextGenerator(*parts)
    if module is bank_generator:
        writer = BankGenerator(*parts, bank=cast(Any, None))
    request = DecodeRequest(model_name_or_path="m", data_file="d", search=search, batch_size=2)
    writer.texts(request, [[5], [6], [7]], [1])
    name, more = ("decode", (2,)) if search == "beam" else ("decode_samples", ())
    assert seen == [(name, [[5], [6], [7]], request.how(), *more, [1])]


def test_names_precision_and_cache_reach_all_that_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    for module in (training, generator):
        monkeypatch.setattr(module, "tokenizer_for", lambda *names: seen.append(names))
        monkeypatch.setattr(module, "load_causal_lm", reach)
    flags = {"model_name_or_path": "m", "tokenizer_name": "t", "cache_dir": "c"}
    for load in (
        lambda: training._base(ModelArguments(**flags, dtype="bfloat16")),
        lambda: TextGenerator.load(DecodeRequest(**flags, data_file="d", dtype="bfloat16")),
    ):
        with pytest.raises(Reached) as reached:
            load()
        seen.append(reached.value.args[0])
    assert seen == [("m", "t", "c"), ("m", "bfloat16", "c")] * 2


def test_what_is_decoded_after_training_is_as_its_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(gen, "request_of", lambda *given: seen.append(given))
    monkeypatch.setattr(TextGenerator, "load", lambda _: None)
    monkeypatch.setattr(run_generation, "decode", lambda *_: None)
    plain = {"dtype": "bfloat16", "activation": "stock", "cache_dir": "c", "empty_sources": "skip"}
    columns = {"source_column": "q", "target_column": "a"}
    flags = "--train_data_file t --model_name_or_path m --results_dir r --score no --use_cpu "
    flags += "--overwrite_output_dir --report_to none --test_data_file d --output_dir o "
    flags += " ".join(f"--{name} {value}" for name, value in {**plain, **columns}.items())
    held = str(tmp_path / training.HELD_OUT)
    for more, evaluated in (("--eval_data_file e", "e"), ("--eval_fraction 0.1", held)):
        whole_run.decode_run(parse(f"{flags} {more}".split()), tmp_path)
        for split, path in (("valid", evaluated), ("test", "d")):
            args, options = seen.pop(0)
            named = columns if path != held else {}
            given: Any = {**plain, **named, "data_file": path}
            assert options == DecodeOptions(**given, no_score=True, overwrite_results=True)
            folder = str(tmp_path)
            expected = gen.GenArguments("data2text", "yes", split, folder, "no", "m", "r")
            assert args == expected
