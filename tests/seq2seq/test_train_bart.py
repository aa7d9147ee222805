"""The launcher: the original's run names, folders and lengths, and what it refuses."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from prefix_tuning.errors import UserError
from seq2seq import arguments, finetune, train_bart


def flags(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """What ``finetune.py`` would be called with."""
    train_bart.main([*argv, "--submit", "print"])
    return arguments.parse(shlex.split(capsys.readouterr().out)[2:])


def test_the_originals_run_name(capsys: pytest.CaptureFixture[str]) -> None:
    # The folder of a public log of the original.
    args = flags(
        capsys, *"--mode xsum --preseqlen 200 --bsz 16 --epoch 30".split(), "--mid_dim", "512"
    )
    name = "xsumprefixtune_y_200_act_cat_b=16-e=30_d=0.0_l=0.0_lr=5e-05_w=0.0_s=101_d=n_m=512"
    assert args.output_dir == f"xsum_models/{name}"
    assert args.model_name_or_path == "facebook/bart-large"
    assert (args.preseqlen, args.mid_dim, args.use_deep) == (200, 512, "no")
    assert (args.train_batch_size, args.num_train_epochs, args.seed) == (16, 30, 101)
    assert (args.max_grad_norm, args.warmup_steps) == (0, 0)


def test_ones_own_data_need_no_mode(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The recipe of GPT-2's half, by the 45 of 50 pairs that are trained on."""
    path = tmp_path / "pairs.csv"
    path.write_text("source,target\n" + "".join(f"s{i},t{i}\n" for i in range(50)))
    args = flags(capsys, "--data_dir", str(path))
    assert args.output_dir == str(Path("trained") / "pairs")
    assert (args.train_batch_size, args.max_steps, args.warmup_steps) == (8, 200, 10)
    assert (args.learning_rate, args.eval_fraction) == (1e-3, None)
    assert (args.max_source_length, args.max_target_length) == (512, 142)
    own = "--epoch 3 --bsz 2 --learning_rate 0.5 --eval_fraction 0 --output_dir o"
    args = flags(capsys, "--data_dir", str(path), *own.split())
    assert (args.train_batch_size, args.max_steps, args.num_train_epochs) == (2, -1, 3)
    assert (args.learning_rate, args.output_dir) == (0.5, "o")
    paper = flags(capsys, "--data_dir", str(path), "--mode", "xsum")
    assert (paper.train_batch_size, paper.max_steps, paper.learning_rate) == (10, -1, 5e-5)
    path.write_text("source,target\na\n")
    with pytest.raises(UserError, match=r"pairs\.csv, line 2: 1 columns"):
        flags(capsys, "--data_dir", str(path))
    with pytest.raises(UserError, match=r"--mode xsum.*or your own pairs, --data_dir FILE"):
        flags(capsys)


@pytest.mark.parametrize(
    ("mode", "folder", "data", "lengths", "beams"),
    [
        ("xsum", "xsum_models", "xsum", (512, 60, 60, 100), (6, 0.8, 11, 62)),
        ("xsum_news", "xsum_news_models", "xsum_news", (512, 60, 60, 100), (6, 0.8, 11, 62)),
        (
            "xsum_news_sport",
            "xsum_news_sport_models",
            "xsum_topic-news-sports",
            (512, 60, 60, 100),
            (6, 0.8, 11, 62),
        ),
        ("cnn_dm", "cnndm_models", "cnn_dm", (512, 56, 142, 142), (4, 2.0, 56, 142)),
        ("e2e", "save_e2e_models", "e2e", (512, 56, 142, 142), (6, 0.8, 11, 62)),
        ("webnlg", "webnlg_models", "webnlg", (512, 56, 142, 142), (6, 0.8, 11, 62)),
        ("triples", "triples_models", "triples", (512, 56, 142, 142), (6, 0.8, 11, 62)),
    ],
)
def test_lengths_and_folders_of_every_mode(
    mode: str,
    folder: str,
    data: str,
    lengths: tuple[int, ...],
    beams: tuple[float, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = flags(capsys, "--mode", mode)
    assert Path(args.output_dir).parent.name == folder
    assert Path(args.data_dir).parts[-2:] == ("data", data)
    names = ("source", "target", "val_max_target", "test_max_target")
    keys = ("max_source_length", "max_target_length", *(f"{n}_length" for n in names[2:]))
    assert tuple(getattr(args, key) for key in keys) == lengths
    search = arguments.search(args)
    found = (search.num_beams, search.length_penalty, search.min_length, search.max_length)
    assert found == beams


def test_flags_reach_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    args = flags(
        capsys,
        *"--mode xsum --use_deep yes --dropout 0.1 --label_smoothing 0.1 --fp16 yes".split(),
        *"--gradient_accumulation_step 3 --max_source_length 1024 --length_pen 1.2".split(),
        *"--notes mine --prefix_sites self,encoder --early_stopping_patience 2".split(),
    )
    assert args.output_dir.endswith("_b=30-e=5_d=0.1_l=0.1_lr=5e-05_w=0.0_s=101_d=y_m=512_mine")
    assert (args.use_deep, args.prefix_dropout, args.label_smoothing) == ("yes", 0.1, 0.1)
    assert (args.gradient_accumulation_steps, args.max_source_length, args.fp16) == (3, 1024, True)
    assert (args.length_penalty, args.early_stopping_patience) == (1.2, 2)
    assert arguments.sites(args) == ["self", "encoder"]


def test_low_data_runs(capsys: pytest.CaptureFixture[str]) -> None:
    args = flags(capsys, *"--mode xsum --notes lowdata_101_50 --bsz 5 --epoch 30".split())
    assert Path(args.data_dir).parts[-3:] == ("data", "lowdata_xsum", "xsum_50_101")
    assert args.output_dir.startswith("xsum_lowdata_prefixtune/")
    assert (args.warmup_steps, args.use_lowdata_token, args.lowdata_token) == (
        100,
        "yes",
        "summarize",
    )
    plain = flags(capsys, *"--mode xsum --tuning_mode finetune --notes lowdata_22_500".split())
    assert Path(plain.data_dir).name == "xsum_500_22"
    assert plain.output_dir.startswith("xsum_lowdata_finetune/")


def test_decoding_reads_the_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    args = flags(capsys, *"--mode xsum --do_train no --prefix_model_path runs/p/".split())
    assert (args.do_predict, args.do_train) == (True, False)
    assert args.prefixModel_name_or_path == "runs/p/"
    # Nothing that the checkpoint knows is repeated, and the slash does not get into the name.
    assert (args.preseqlen, args.mid_dim, args.use_deep) == (None, None, None)
    assert (args.model_name_or_path, args.max_source_length) == (None, None)
    assert args.output_dir == "runs/p_decode_eval_0.8"
    tuned = flags(
        capsys,
        *"--mode cnn_dm --do_train no --tuning_mode finetune --finetune_model_path m".split(),
    )
    assert tuned.model_name_or_path == "m"
    assert tuned.output_dir == "m_decode_eval_2.0"


def test_folders_without_a_name_of_their_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "best").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "best")
    for path, name in ((".", "run/best"), ("..", "run")):
        decode = ["--mode", "xsum", "--do_train", "no", "--prefix_model_path", path]
        assert flags(capsys, *decode).output_dir == f"{tmp_path}/{name}_decode_eval_0.8"
        training = flags(capsys, "--mode", "xsum", "--output_dir", path)
        assert training.output_dir == f"{tmp_path}/{name}"


def test_an_unknown_search_is_refused_in_decoding_too() -> None:
    with pytest.raises(SystemExit):
        train_bart.main(
            "--mode xsum --do_train no --prefix_model_path p --search fast --submit print".split()
        )


def test_translation_is_a_mode(capsys: pytest.CaptureFixture[str]) -> None:
    args = flags(capsys, "--mode", "translation")
    assert args.task_mode == "translation"
    assert finetune.MODULES[args.task_mode, args.tuning_mode].mode == "translation"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--mode poems", "--mode poems: use one of xsum"),
        ("--mode xsum --tuning_mode adaptertune", "--tuning_mode adaptertune"),
        ("--mode xsum --optim_prefix no", "--optim_prefix no"),
        ("--mode xsum --format_mode infix", "--format_mode infix"),
        ("--mode xsum --prefix_mode embedding", "--prefix_mode embedding"),
        ("--mode xsum --submit yes", "--submit yes"),
        ("--mode xsum --do_train no", "needs --prefix_model_path"),
        ("--mode xsum --do_train no --tuning_mode finetune", "needs --finetune_model_path"),
        ("--mode xsum --prefix_model_path p", "is decoded, not trained: add --do_train no"),
        ("--mode xsum --notes lowdata_50", "expected lowdata_SEED_SIZE"),
        ("--mode xsum --preseqlen 0", "--preseqlen 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    argv: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        train_bart.main(argv.split())
    assert not list(tmp_path.iterdir())
