"""Random subsets: what is drawn, what the flags and names say, and the word in front."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from gpt2 import gen, train_e2e, training
from gpt2.arguments import DataArguments
from gpt2.launch_flags import read
from gpt2.readers import Record
from gpt2.records import development_size, sample_pairs, subset_size
from gpt2.tasks import read_records
from gpt2.train_e2e import folder_name, run_name
from gpt2.train_request import parse
from gpt2.training import _read
from prefix_tuning.errors import UserError
from scripts import sample_lowdata_e2e

DATA = ROOT / "data" / "restaurants"


def records(counts: list[int]) -> list[Record]:
    """Inputs with so many references each."""
    return [
        Record(f"s{i}", tuple(f"t{i}.{j}" for j in range(count)), f"line {i}")
        for i, count in enumerate(counts)
    ]


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=40).filter(any),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_a_sample_is_a_subset_in_order(counts: list[int], seed: int, data: st.DataObject) -> None:
    every = [(r.source, t) for r in records(counts) for t in r.targets]
    size = data.draw(st.integers(1, len(every)))
    drawn = sample_pairs(records(counts), str(size), seed)
    pairs = [(r.source, *r.targets) for r in drawn]
    assert len(pairs) == size
    assert not Counter(pairs) - Counter(every)
    assert pairs == sorted(pairs, key=every.index)
    assert drawn == sample_pairs(records(counts), str(size), seed)


def test_seeds_draw_different_pairs_evenly() -> None:
    """Every one of 40 pairs is drawn in about half of 400 samples of 20 (sd 10)."""
    drawn = Counter(
        r.targets[0] for seed in range(400) for r in sample_pairs(records([2] * 20), "20", seed)
    )
    assert len(drawn) == 40
    assert all(150 < count < 250 for count in drawn.values())


def test_sizes() -> None:
    assert subset_size("100", 7) == 100
    assert subset_size("10%", 42_061) == 4206
    assert development_size("50") == "15"
    assert development_size("500") == "150"
    assert development_size("1") == "1"
    assert development_size("20%") == "20%"
    for size in ("0", "-1", "ten", "1.5", "", "0%", "%"):
        with pytest.raises(UserError, match="--train_size"):
            subset_size(size, 10)
    for size in ("3", "200%"):
        with pytest.raises(UserError, match="the file has 2 pairs"):
            sample_pairs(records([2]), size, 0)


def test_the_script_writes_what_training_draws(tmp_path: Path) -> None:
    files = ["--train_file", str(DATA / "src1_train.txt")]
    files += ["--eval_file", str(DATA / "src1_valid.txt"), "--output_dir", str(tmp_path)]
    sizes = ["--seeds", "4", "5", "--sizes", "20", "--percents", "10"]
    sample_lowdata_e2e.main([*files, *sizes])
    assert len(list(tmp_path.iterdir())) == 8
    for stem, size in (("lowdata_4_20", "20"), ("datalevels_5_10", "10%")):
        arguments = DataArguments(
            train_data_file=str(DATA / "src1_train.txt"),
            eval_data_file=str(DATA / "src1_valid.txt"),
            train_size=size,
            sample_seed=int(stem.split("_")[1]),
        )
        for drawn, split in zip(_read(arguments), ("train", "valid"), strict=True):
            written = read_records("data2text", tmp_path / f"{stem}_{split}.txt", training=True)
            assert [(r.source, r.targets) for r in written] == [
                (r.source, r.targets) for r in drawn
            ]
    lines = (tmp_path / "lowdata_4_20_train.txt").read_text("utf-8").splitlines()
    assert (len(lines), len(set(lines))) == (20, 20)
    whole = (DATA / "src1_train.txt").read_text("utf-8").splitlines()
    assert set(lines) <= set(whole)
    assert len((tmp_path / "lowdata_4_20_valid.txt").read_text("utf-8").splitlines()) == 6
    assert len((tmp_path / "datalevels_4_10_train.txt").read_text("utf-8").splitlines()) == round(
        len(whole) / 10
    )
    with pytest.raises(UserError, match="nothing to write"):
        sample_lowdata_e2e.main(files)


def arguments_of(flags: str) -> tuple:
    args = read(flags.split())[0]
    request = parse(train_e2e.command_of(args, Path("r")))
    return SimpleNamespace(**vars(request.model), **vars(request.tuning)), request.data, request.run


NO_WORD = "--use_lowdata_token no"


@pytest.mark.parametrize("mode", ["prefixtune", "finetune", "finetune-top", "adaptertune", "lora"])
def test_notes_and_plain_flags_say_the_same(mode: str) -> None:
    """The original's defaults for low data, in every tuning mode."""
    for notes, plain, steps in (
        ("--notes Alowdata_4_100", "--train_size 100 --sample_seed 4", 400),
        ("--notes datalevels_4_10", "--train_size 10% --sample_seed 4", -1),
    ):
        said = [arguments_of(f"--tuning_mode {mode} {NO_WORD} {way}") for way in (notes, plain)]
        for _, data, run in said:
            assert (data.train_size, data.sample_seed) == (plain.split()[1], 4)
            assert (run.max_steps, run.eval_steps, run.warmup_steps) == (steps, 50, 100)
            assert run.per_device_eval_batch_size == 32
            assert Path(data.train_data_file).name == "src1_train.txt"
        assert vars(said[0][0]) == vars(said[1][0])
    run = arguments_of(f"--tuning_mode {mode} {NO_WORD} --train_size 50 --max_steps 7")[2]
    assert run.max_steps == 7


def test_the_word_of_fine_tuning() -> None:
    low = "--tuning_mode finetune --notes lowdata_0_50"
    assert arguments_of(low)[1].source_prefix == "summarize"
    assert (
        arguments_of(f"{low} --lowdata_token table-to-text:")[1].source_prefix == "table-to-text:"
    )
    assert arguments_of(f"{low} {NO_WORD}")[1].source_prefix is None
    assert arguments_of("--tuning_mode finetune")[1].source_prefix is None
    assert arguments_of(low.replace("finetune", "finetune-top"))[1].source_prefix is None


def test_a_prefix_starts_from_the_word_unless_the_flags_say_otherwise() -> None:
    low = "--notes lowdata_0_50"
    for mode in ("prefixtune", "bothtune"):
        model = arguments_of(f"{low} --tuning_mode {mode} --preseqlen 7 --deep yes")[0]
        assert (model.init, model.init_text, model.preseqlen) == ("text", "summarize", 0)
        assert model.deep == "yes"
    for own, init, length in (
        ("--init zero --preseqlen 7", "zero", 7),
        ("--init_shallow yes --preseqlen 7", None, 7),
        (NO_WORD, None, 10),
        (f"--format_mode infix {NO_WORD}", None, 10),
    ):
        model = arguments_of(f"{low} {own}")[0]
        assert (model.init, model.init_text, model.preseqlen) == (init, None, length)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("--notes lowdata_1_100", "lowdata_1_100st=400_ev=50_ws=100_t=summarize_o=1_o=1"),
        (
            "--notes lowdata_1_100 --max_steps 200 --lowdata_token table-to-text:",
            "lowdata_1_100st=200_ev=50_ws=100_t=table-to-text:_o=1_o=1",
        ),
        ("--notes datalevels_0_20", "datalevels_0_20ev=50_ws=100_t=summarize_u=yes_o=1_o=1"),
        (
            "--notes datalevels_0_20 --use_lowdata_token no --objective_mode 0",
            "datalevels_0_20ev=50_ws=100_t=summarize_u=no_o=0_o=0",
        ),
        ("--train_size 50 --sample_seed 3", "n=50_ss=3_t=summarize_o=1_o=1"),
        (
            "--notes lowdata_1_100 --init_shallow yes",
            "lowdata_1_100st=400_ev=50_ws=100_t=summarize_s=yes_w=summarize_o=1_o=1",
        ),
        ("--notes x --train_size 10%", "x_n=10%_ss=0_t=summarize_o=1_o=1"),
    ],
)
def test_run_names(flags: str, name: str) -> None:
    args = read(flags.split())[0]
    head = "data2textprefixtune_y_10_act_cat_b=10-e=5_d=0.0_u=no_lr=5e-05_w=0.0_s=101_r=n_m=512_"
    assert run_name(args) == head + name


def test_runs_go_to_the_originals_folders() -> None:
    for flags, folder in (
        ("--notes lowdata_1_100", "e2e_lowdata_models_prefixtune"),
        ("--notes lowdata_1_100 --format_mode infix", "e2e_lowdata_models_prefixtune"),
        ("--notes datalevels_1_10", "e2e_datalevels_models"),
        ("--notes x", "save_e2e_models_convcheck"),
    ):
        args = read(flags.split())[0]
        assert folder_name(args) == folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--notes lowdata_1", "expected lowdata_SEED_SIZE"),
        ("--notes lowdata_a_100", "expected lowdata_SEED_SIZE"),
        ("--notes earlystop_lowdata_1_100", "expected lowdata_SEED_SIZE"),
        ("--notes datalevels_1_x", "expected datalevels_SEED_PERCENT"),
        ("--notes lowdata_1_100 --train_size 100", "says it already"),
        ("--train_size 0 --use_lowdata_token no", "--train_size 0"),
        ("--notes lowdata_1_100 --format_mode infix", "add --use_lowdata_token no"),
        ("--tuning_mode finetune --train_size all", "--train_size all"),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(
    tmp_path: Path, flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_causal_lm", pytest.fail)
    with pytest.raises(UserError, match=message):
        train_e2e.main(flags.split())
    assert list(tmp_path.iterdir()) == []


def test_training_and_decoding_agree_on_the_word(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the batches of training, in the checkpoint, and in the prompts of decoding."""
    test_file = tmp_path / "src1_test.txt"
    lines = (DATA / "src1_test.txt").read_text("utf-8").splitlines(keepends=True)[:6]
    test_file.write_text("".join(lines), encoding="utf-8")
    seen = []
    original = training.TableToTextDataset

    def spy(*args: object, **kwargs: object) -> object:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(training, "TableToTextDataset", spy)
    run = tmp_path / "m"
    train_e2e.main(
        ["--model_name_or_path", str(tiny_folder), "--output_dir", str(run), "--use_cpu"]
        + ["--train_file", str(DATA / "src1_train.txt"), "--report_to", "none"]
        + ["--eval_file", str(DATA / "src1_valid.txt"), "--test_file", str(test_file)]
        + ["--tuning_mode", "finetune", "--notes", "lowdata_7_20", "--max_steps", "2"]
        + ["--generate", "no", "--lowdata_token", "describe this:", "--bsz", "2"]
    )
    assert [len(dataset) for dataset in seen] == [20, 6]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for dataset in seen:
        for example in dataset:
            assert tokenizer.decode(example["input_ids"]).startswith(" describe this: name : ")
    assert json.loads((run / "tuned.json").read_text())["task"]["source_prefix"] == "describe this:"
    gen.main(
        ["data2text", "yes", "test", str(run), "no", "--data_file", str(test_file), "--no_score"]
        + ["--results_dir", str(tmp_path), "--length", "4"]
    )
    prompts = (tmp_path / "e2e_results_conv2" / "m_test_src").read_text("utf-8").splitlines()
    sources = dict.fromkeys(line.split("||")[0] for line in lines)
    assert prompts == [f" describe this: {source} <|endoftext|>" for source in sources]
