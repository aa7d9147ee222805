"""Whole runs on a tiny model: launch, train, resume, decode, and the mistakes of a user."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from gpt2 import decoding, gen, run_language_modeling, train_e2e, training
from gpt2.launch_flags import read
from gpt2.train_control import PrefixTuning
from gpt2.train_e2e import run_name
from gpt2.train_request import parse
from gpt2.trainer_prefix import Trainer_Prefix
from harness import graphs
from harness.lock import locked
from harness.models import load_causal_lm
from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError

DATA = ROOT / "data" / "restaurants"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small slices of the restaurants, in E2E's format."""
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("train", 40), ("valid", 12), ("test", 9)):
        lines = (DATA / f"src1_{split}.txt").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"src1_{split}.txt").write_text("".join(lines[:n]), encoding="utf-8")
    return folder


def command(base: Path, files: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(base), "--output_dir", str(output), "--preseqlen", "3"),
        *("--train_file", str(files / "src1_train.txt"), "--bsz", "4", "--mid_dim", "8"),
        *("--eval_file", str(files / "src1_valid.txt"), "--learning_rate", "0.01"),
        *("--test_file", str(files / "src1_test.txt"), "--epoch", "2", "--use_cpu"),
        *("--results_dir", str(output.parent), "--report_to", "none"),
        *("--score", "no", *more),
    ]


def losses(run: Path) -> list[tuple[int, float]]:
    history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
    return [
        (log["step"], log[key]) for log in history for key in ("loss", "eval_loss") if key in log
    ]


@pytest.fixture(scope="module")
def run(tiny_folder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, shared by the tests that look at different parts of it."""
    output = tmp_path_factory.mktemp("run") / "m"
    more = ("--logging_steps", "4", "--save_steps", "8", "--eval_steps", "10", "--length", "8")
    train_e2e.main(command(tiny_folder, files, output, *more[:6]))
    return output


def test_a_run_leaves_what_it_promises(run: Path, tiny_folder: Path) -> None:
    meta = checkpoint.read_metadata(run)
    assert meta["base_model"]["name_or_path"] == str(tiny_folder)
    options = {"length": 3, "dropout": 0.0, "sites": ["self"], "mid_dim": 8, "deep": False}
    assert meta["options"] == options
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert (config["preseqlen"], config["_my_arg_task_mode"]) == (3, "data2text")
    assert (run / "loss.png").stat().st_size > 1000
    assert (run / "eval_results_lm.txt").read_text(encoding="utf-8").startswith("eval_loss = ")
    assert (run / "export" / "prefix.safetensors").is_file()
    costs = json.loads((run / "train_results.json").read_text(encoding="utf-8"))
    slots = 2 * 2 * 2 * 16  # 2 layers, 2 heads of size 16, keys and values
    assert costs["trained_parameters"] == 3 * 32 + 8 * 33 + slots * 9
    assert costs["steps"] == 20
    assert costs["seconds"] > 0
    assert costs["peak_bytes"] > 50e6
    assert len(list(run.glob("m-checkpoint-*"))) == 1
    script = run.with_name("m.sh").read_text(encoding="utf-8")
    assert "run_language_modeling.py" in script
    history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
    evaluations = [log["eval_loss"] for log in history if "eval_loss" in log]
    assert evaluations[-1] < evaluations[0]


def test_the_base_model_is_untouched_and_every_slot_has_moved(
    run: Path, tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    """Trained again here, to look at the frozen model that the run held."""
    held = []
    original = training.load_causal_lm
    try:
        training.load_causal_lm = lambda *a: held.append(original(*a)) or held[-1]
        train_e2e.main(command(tiny_folder, files, tmp_path / "m", "--generate", "no"))
    finally:
        training.load_causal_lm = original
    fresh = GPT2LMHeadModel.from_pretrained(tiny_folder).state_dict()
    for name, value in held[0].state_dict().items():
        assert torch.equal(value[: len(fresh[name])], fresh[name]), name
        assert not value.requires_grad
    row = torch.randn(32, generator=torch.Generator().manual_seed(101)) * 0.02
    assert torch.equal(held[0].lm_head.weight[300:], row[None]), "[PAD] is drawn with --seed"
    trained = load_file(tmp_path / "m" / "model.safetensors")
    assert torch.equal(trained["wte.weight"], load_file(run / "model.safetensors")["wte.weight"])
    torch.manual_seed(0)
    table = load_file(tmp_path / "m/export/prefix.safetensors")["past_key_values"]
    start = _initial_prefix(tiny_folder, files, tmp_path / "start")
    moved = (table - start).abs().amax(dim=(2, 4))
    assert moved.min() > 0


def _initial_prefix(base: Path, files: Path, output: Path) -> torch.Tensor:
    """The prefix of the same seed before training: a run whose learning rate is nearly 0."""
    train_e2e.main(
        command(base, files, output, "--generate", "no", "--max_steps", "1")
        + ["--learning_rate", "1e-30"]
    )
    return load_file(output / "export" / "prefix.safetensors")["past_key_values"]


def test_recorded_steps_train_and_show_what_eager_ones_do(
    tiny_folder: Path,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a recorder that repeats the computation: here is no GPU."""
    recorded: list[object] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        return step

    monkeypatch.setattr(graphs, "obstacle", lambda args: None)
    monkeypatch.setattr(graphs, "CudaRecorder", lambda: record)
    shown = {}
    for way in ("no", "auto"):
        more = ("--generate", "no", "--max_steps", "8", "--cuda_graphs", way)
        train_e2e.main(command(tiny_folder, files, tmp_path / way, *more))
        said = capsys.readouterr().out
        shown[way] = re.findall(r"^step \d+/8 +loss \S+ \(\S+ a token\)", said, re.MULTILINE)
    assert recorded
    assert shown["auto"] == shown["no"]
    assert len(shown["no"]) == 8
    eager, replayed = (load_file(tmp_path / way / "model.safetensors") for way in ("no", "auto"))
    for name, value in eager.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-6, atol=1e-7)


def test_outputs_have_the_originals_files_and_order(run: Path, files: Path) -> None:
    folder = run.parent / "e2e_results_conv2"
    lines = (files / "src1_test.txt").read_text(encoding="utf-8").splitlines()
    sources = list(dict.fromkeys(line.split("||")[0] for line in lines))
    outputs = (folder / "m_test_beam").read_text(encoding="utf-8").split("\n")[:-1]
    prompts = (folder / "m_test_src").read_text(encoding="utf-8").split("\n")[:-1]
    gold = (folder / "m_test_gold").read_text(encoding="utf-8").split("\n\n")[:-1]
    assert len(outputs) == len(sources)
    assert prompts == [f" {source} <|endoftext|>" for source in sources]
    targets = [[x.split("||")[1] for x in lines if x.startswith(f"{s}||")] for s in sources]
    assert [block.split("\n") for block in gold] == targets
    assert all(outputs)


@pytest.mark.parametrize("beams", ["1", "5"])
def test_batches_decode_to_the_same_file_as_one_by_one(run: Path, files: Path, beams: str) -> None:
    texts = []
    for size in ("1", "4"):
        results = run.parent / f"batch{size}-{beams}"
        gen.main(
            ["data2text", "yes", "test", str(run), "no", "--results_dir", str(results)]
            + ["--data_file", str(files / "src1_test.txt"), "--batch_size", size]
            + ["--num_beams", beams, "--length", "30", "--no_score"]
        )
        suffix = "greedy" if beams == "1" else "beam"
        texts.append((results / "e2e_results_conv2" / f"m_test_{suffix}").read_text("utf-8"))
    assert texts[0] == texts[1]
    assert len(set(texts[0].split("\n"))) > 2


def test_the_export_decodes_to_the_same_texts(run: Path, files: Path) -> None:
    for folder, results in ((run, "a"), (run / "export", "b")):
        gen.main(
            ["data2text", "yes", "test", str(folder), "no", "--length", "12", "--no_score"]
            + [
                "--data_file",
                str(files / "src1_test.txt"),
                "--results_dir",
                str(run.parent / results),
            ]
        )
    one = (run.parent / "a/e2e_results_conv2/m_test_beam").read_text("utf-8")
    assert one == (run.parent / "b/e2e_results_conv2/export_test_beam").read_text("utf-8")


def test_a_stopped_decode_goes_on(
    run: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["data2text", "yes", "test", str(run), "no", "--length", "12", "--batch_size", "1"]
    arguments.append("--no_score")
    arguments += ["--data_file", str(files / "src1_test.txt")]
    gen.main([*arguments, "--results_dir", str(run.parent / "whole")])
    batches = []
    original = decoding.decode_batch

    def stop_after_two(*args: object) -> list[str]:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(args)
        return original(*args)

    monkeypatch.setattr(decoding, "decode_batch", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        gen.main([*arguments, "--results_dir", str(run.parent / "parts")])
    partial = run.parent / "parts/e2e_results_conv2/m_test_beam.partial"
    with partial.open("a", encoding="utf-8") as file:
        file.write('[0, "half a li')  # as a kill in the middle of a write leaves it
    monkeypatch.setattr(decoding, "decode_batch", original)
    gen.main([*arguments, "--results_dir", str(run.parent / "parts")])
    assert "going on after 2 of 3" in capsys.readouterr().out
    assert not partial.exists()
    whole = (run.parent / "whole/e2e_results_conv2/m_test_beam").read_bytes()
    assert whole == (run.parent / "parts/e2e_results_conv2/m_test_beam").read_bytes()


def test_a_stopped_decode_with_other_flags_starts_again(
    run: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"source": f"a {i}", "target": "b"} for i in range(3)]
    data, results = files / "own.jsonl", run.parent / "flags"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    arguments = ["data2text", "yes", "test", str(run), "no", "--length", "4", "--batch_size", "1"]
    arguments += ["--no_score", "--data_file", str(data), "--results_dir", str(results)]
    done: list[int] = []
    original = decoding.decode_batch

    def stop_after_one(*args: object) -> list[str]:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(1)
        return original(*args)

    def count(*args: object) -> list[str]:
        done.append(1)
        return original(*args)

    for change in ("separator", "dtype", "data"):
        done.clear()
        monkeypatch.setattr(decoding, "decode_batch", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            gen.main(arguments)
        more = {"separator": ["--separator", "=>"], "dtype": ["--dtype", "bfloat16"]}
        if change == "data":
            data.write_text(data.read_text("utf-8").replace("a 1", "c 1"), encoding="utf-8")
        done.clear()
        monkeypatch.setattr(decoding, "decode_batch", count)
        gen.main([*arguments, *more.get(change, [])])
        assert len(done) == 3, change


KILLED = """
import os, signal, sys
from gpt2 import train_e2e
from gpt2.trainer_prefix import Trainer_Prefix
from harness import graphs

step = Trainer_Prefix.training_step

def killed_in_step_8(self, *args, **kwargs):
    if self.state.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

Trainer_Prefix.training_step = killed_in_step_8
train_e2e.main(sys.argv[1:])
"""


def test_killed_and_resumed_is_uninterrupted(
    tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    more = ("--logging_steps", "2", "--save_steps", "3", "--eval_steps", "5", "--generate", "no")
    more = (*more, "--length_groups", "yes", "--dropout", "0.2")
    train_e2e.main(command(tiny_folder, files, tmp_path / "whole", *more))

    cut = command(tiny_folder, files, tmp_path / "cut", *more)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, *cut], cwd=ROOT, capture_output=True, check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert {p.name for p in (tmp_path / "cut").glob("checkpoint-*")} == {"checkpoint-6"}
    # What a kill while writing the next checkpoint would leave behind.
    (tmp_path / "cut" / "checkpoint-19").mkdir()
    (tmp_path / "cut" / "checkpoint-19" / "trainer_state.json").write_text('{"glo')

    train_e2e.main(cut)
    whole, resumed = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "cut"))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    costs = json.loads((tmp_path / "cut" / "train_results.json").read_text(encoding="utf-8"))
    assert costs["steps"] == 20 - 6, "its seconds are those of the second part alone"


def test_a_finished_run_is_not_trained_again(
    tiny_folder: Path, files: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    more = ("--logging_steps", "4", "--save_steps", "8", "--eval_steps", "10", "--generate", "no")
    train_e2e.main(command(tiny_folder, files, run, *more))
    assert "trained already" in capsys.readouterr().out
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_overwriting_forgets_the_old_run_but_not_for_a_mistake(
    tiny_folder: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overwritten run that is killed early must not go on from the old one's checkpoint."""
    again = command(tiny_folder, files, tmp_path / "m", "--generate", "no", "--save_steps", "8")
    train_e2e.main(again)
    old = sorted(p.name for p in (tmp_path / "m").rglob("*"))
    with pytest.raises(UserError, match="no such file"):
        train_e2e.main([*again, "--resume", "no", "--train_file", str(tmp_path / "gone")])
    assert sorted(p.name for p in (tmp_path / "m").rglob("*")) == old

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer_Prefix, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_e2e.main([*again, "--resume", "no"])
    assert list((tmp_path / "m").glob("*checkpoint-*")) == []


def test_the_loss_on_the_training_set_is_no_evaluation(
    tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    """However low it is, the best checkpoint is that of the evaluation file."""
    run = tmp_path / "m"
    more = ["--evaluate_train_set", "yes", "--generate", "no", "--max_steps", "30"]
    more += ["--eval_steps", "10", "--learning_rate", "1.0"]
    for split, text in (("train", "a||b"), ("eval", "a||c c c")):  # learning one forgets the other
        (tmp_path / split).write_text(f"{text}\n", encoding="utf-8")
        more += [f"--{split}_file", str(tmp_path / split)]
    train_e2e.main(command(tiny_folder, files, run, *more))
    history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
    found = {log["step"]: log["eval_loss"] for log in history if "eval_loss" in log}
    best = min(found, key=lambda step: found[step])
    text = (run / "eval_results_lm.txt").read_text(encoding="utf-8")
    results = dict(line.split(" = ") for line in text.splitlines())
    assert best < 30
    assert float(results["train_set_loss"]) < found[best], "or nothing is shown"
    assert float(results["eval_loss"]) == found[30]
    assert [p.name for p in run.glob("m-checkpoint-*")] == [f"m-checkpoint-{best}"]


@pytest.mark.parametrize(("step", "expected"), [(5, 2.0), (6, 4.0)])
def test_the_final_loss_is_that_of_the_final_weights(step: int, expected: float) -> None:
    """An evaluation of the last step is not made again, and one of another is not taken for it."""
    logs = [{"step": 3, "eval_loss": 9.0}, {"step": step, "eval_loss": 4.0}, {"step": 6, "loss": 1}]
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(log_history=logs, global_step=6),
        eval_dataset=[1],
        evaluate=lambda: {"eval_loss": 2.0},
    )
    assert training._final_losses(trainer, False) == {"eval_loss": expected}


def test_earlystop_decodes_the_best_evaluation_too(
    tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    run = tmp_path / "earlystop [1]"  # as --notes and words can make it
    train_e2e.main(command(tiny_folder, files, run, "--max_steps", "4", "--eval_steps", "2"))
    (best,) = run.glob("*-checkpoint-*")
    found = {path.name for path in (tmp_path / "e2e_results_conv2").glob("*_beam")}
    assert found == {f"{n}_{s}_beam" for n in (run.name, best.name) for s in ("valid", "test")}


def test_fine_tuning_trains_and_decodes(tiny_folder: Path, files: Path, tmp_path: Path) -> None:
    train_e2e.main(
        command(tiny_folder, files, tmp_path / "ft", "--tuning_mode", "finetune")
        + ["--max_steps", "3"]
    )
    assert not checkpoint.is_prefix_folder(tmp_path / "ft")
    tuned = load_causal_lm(str(tmp_path / "ft"))
    assert tuned.config.vocab_size == 301, "with the [PAD] row, as the original's"
    assert (tmp_path / "e2e_results_conv2" / "ft_test_beam").is_file()


def test_gradient_checkpointing_and_accumulation_train_the_same(
    tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    more = ("--max_steps", "3", "--generate", "no")
    weights = []
    for name, flags in (("plain", ()), ("checkpointed", ("--gradient_checkpointing",))):
        train_e2e.main(command(tiny_folder, files, tmp_path / name, *more, *flags))
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-6)


def test_accumulated_batches_are_a_mean(tiny_folder: Path, files: Path, tmp_path: Path) -> None:
    """Two batches of 4 accumulated: the step of one batch of 8 (objective 1)."""
    weights = []
    for name, size, accumulate in (("one", "8", "1"), ("two", "4", "2")):
        more = ("--bsz", size, "--gradient_accumulation_steps", accumulate, "--generate", "no")
        arguments = command(tiny_folder, files, tmp_path / name, "--max_steps", "1", *more)
        train_e2e.main(arguments)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


# Names, commands, mistakes.


@pytest.mark.parametrize("mode", ["prefixtune", "finetune"])
def test_smoothed_labels_train_and_evaluate_without(
    mode: str, tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    """At a rate of 0 nothing is learnt, so that the losses are the first ones throughout."""

    def losses_of(name: str, smoothing: str) -> dict[str, float]:
        more = f"--tuning_mode {mode} --max_steps 1 --logging_steps 1 --generate no"
        options = [*more.split(), "--learning_rate", "1e-30", "--label_smoothing", smoothing]
        train_e2e.main(command(tiny_folder, files, tmp_path / name, *options))
        history = json.loads((tmp_path / name / "log_history.json").read_text(encoding="utf-8"))
        return {k: log[k] for log in history for k in ("loss", "eval_loss") if k in log}

    plain, smooth = losses_of("a", "0"), losses_of("b", "0.5")
    assert plain["eval_loss"] == smooth["eval_loss"]
    assert plain["loss"] != pytest.approx(smooth["loss"], rel=1e-3)
    with pytest.raises(
        UserError, match=r"was started with --label_smoothing 0\.5, now it is 0\.25"
    ):
        losses_of("b", "0.25")


def test_run_name_is_the_originals() -> None:
    args = read("--mode webnlg --preseqlen 5 --bsz 5".split())[0]
    assert run_name(args) == (
        "webnlgprefixtune_y_5_act_cat_b=5-e=5_d=0.0_u=no_lr=5e-05_w=0.0_s=101_r=n_m=512_o=1_o=1"
    )
    args = read("--tuning_mode finetune --notes x".split())[0]
    assert run_name(args).endswith("_m=512_x_uctd=no_o=1_o=1")


def test_defaults_are_the_originals(tmp_path: Path) -> None:
    args = read([])[0]
    request = parse(train_e2e.command_of(args, tmp_path / "r"))
    model, prefix, data, run = request.model, request.tuning, request.data, request.run
    assert (model.model_name_or_path, prefix.preseqlen, prefix.mid_dim) == ("gpt2-medium", 10, 512)
    assert (prefix.objective_mode, prefix.use_dropout, model.pad_row) == (1, "no", "auto")
    assert (run.learning_rate, run.num_train_epochs, run.per_device_train_batch_size) == (
        5e-5,
        5,
        10,
    )
    assert (run.max_grad_norm, run.weight_decay, run.warmup_steps, run.seed) == (1.0, 0.0, 0, 101)
    assert (run.adam_beta1, run.adam_beta2, run.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert str(run.lr_scheduler_type.value) == "linear"
    assert (run.eval_steps, run.logging_steps) == (5000, 500)
    assert Path(data.train_data_file).parts[-3:] == ("data", "e2e_data", "src1_train.txt")
    args = read(["--notes", "large"])[0]
    assert "--model_name_or_path=gpt2-large" in train_e2e.command_of(args, tmp_path / "r")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mode nonsense", "--mode nonsense"),
        ("--tuning_mode nonsense", "--tuning_mode nonsense"),
        ("--format_mode nopeek", "never see the source"),
        ("--optim_prefix no", "--optim_prefix no"),
        ("--distill yes", "--finetuned_model_path"),
        ("--notes lowdata_1", "expected lowdata_SEED_SIZE"),
        ("--preseqlen 0", "--preseqlen 0"),
        ("--objective_mode 7", "--objective_mode 7"),
        ("--dropout 1.0", "--prefix_dropout 1.0"),
        ("--mid_dim 0", "--mid_dim 0"),
        ("--learning_rate -1", "--learning_rate -1"),
        ("--learning_rate nan", "--learning_rate nan"),
        ("--max_steps 0", "--max_steps"),
        ("--bsz 0", "--per_device_train_batch_size 0"),
        ("--gradient_accumulation_steps 0", "--gradient_accumulation_steps 0"),
        ("--eval_steps 0", "--eval_steps 0"),
        ("--seed -1", "--seed -1"),
        ("--report_to nonsense", "--report_to nonsense"),
        ("--nonsense 1", "--nonsense"),
        ("--warmup_steps -1", "warmup_steps"),
        ("--submit yes", "--submit yes"),
        ("--prefix_model_path x", "--prefix_model_path x"),
    ],
)
def test_impossible_flags_are_refused_before_anything_is_loaded(
    tmp_path: Path, flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_causal_lm", pytest.fail)
    with pytest.raises(UserError) as caught:
        train_e2e.main(flags.split())
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_flags_of_trainer_are_passed_on_and_not_taken_for_short_ones() -> None:
    args, rest = read(["--optim", "adafactor"])
    assert (args.prefix.optim_prefix, rest) == ("yes", ["--optim", "adafactor"])


def test_every_flag_of_the_original_is_known(tmp_path: Path) -> None:
    """Its defaults, given explicitly, change nothing."""
    flags = (
        "--mode data2text --tuning_mode prefixtune --optim_prefix yes --preseqlen 10 "
        "--prefix_mode activation --format_mode cat --lowdata_token summarize "
        "--use_lowdata_token yes --parametrize_emb MLP --adapter_design 1 "
        "--adapter_bottleneck 100 --top_layers 1 --objective_mode 1 --init_shallow no "
        "--init_shallow_word summarize --use_dropout no --seed 101 --bsz 10 --use_big no "
        "--epoch 5 --gradient_accumulation_steps 1 --learning_rate 5e-5 --weight_decay 0.0 "
        "--dropout 0.0 --mid_dim 512 --init_random no --submit no --distill no "
        "--matching_objective kl --use_custom_teacher_dropout no"
    )
    launch, rest = read(flags.split())
    assert rest == []
    assert train_e2e.command_of(launch, tmp_path) == train_e2e.command_of(read([])[0], tmp_path)
    for flag in ("notes", "dir_name", "max_steps", "eval_steps", "warmup_steps", "cache_dir"):
        assert read([f"--{flag}", "1"])[1] == []


@pytest.mark.parametrize("use_dropout", ["yes", "no"])
def test_dropout_of_the_frozen_model_is_a_choice(
    tiny_folder: Path,
    files: Path,
    tmp_path: Path,
    use_dropout: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In train mode while training if asked for, never while evaluating."""
    seen: dict[bool, set[bool]] = {True: set(), False: set()}
    original = PrefixTuning.forward

    @functools.wraps(original)  # Trainer reads the signature
    def spy(self: PrefixTuning, *args: object, **kwargs: object) -> object:
        seen[self.training].add(kwargs["gpt2_model"].transformer.drop.training)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PrefixTuning, "forward", spy)
    more = ("--max_steps", "2", "--generate", "no", "--use_dropout", use_dropout)
    train_e2e.main(command(tiny_folder, files, tmp_path / "m", *more))
    assert seen == {True: {use_dropout == "yes"}, False: {False}}


def test_print_shows_the_command_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_e2e.main(["--submit", "print", "--notes", "a b;touch hacked"])
    line = capsys.readouterr().out
    assert "'--output_dir=save_e2e_models_convcheck/" in line
    assert list(tmp_path.iterdir()) == []


def test_mistakes_with_run_folders(
    tiny_folder: Path, files: Path, tmp_path: Path, run: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train_e2e.main(command(tiny_folder, files, tmp_path / "full"))
    with pytest.raises(UserError, match="was started with --mid_dim 8, now it is 16"):
        train_e2e.main(command(tiny_folder, files, run, "--mid_dim", "16"))
    with pytest.raises(UserError, match="was started with --data_seed None, now it is 7"):
        train_e2e.main(command(tiny_folder, files, run, "--data_seed", "7"))
    elsewhere = ("--resume_from_checkpoint", str(tmp_path / "checkpoint-8"))
    with pytest.raises(UserError, match=r"checkpoint-8: .*holds no run to go on with"):
        train_e2e.main(command(tiny_folder, files, tmp_path / "new", *elsewhere))
    with pytest.raises(UserError, match="is a file"):
        train_e2e.main(command(tiny_folder, files, tmp_path / "full" / "thesis.tex"))
    direct = ["--train_data_file", str(files / "src1_train.txt"), "--output_dir", str(run)]
    with pytest.raises(UserError, match=r"was started with --.*, now it is .*: use the old value"):
        run_language_modeling.main(direct)


def test_mistakes_of_decoding(run: Path, tmp_path: Path, files: Path) -> None:
    test_file = str(files / "src1_test.txt")
    base = ["data2text", "yes", "test"]
    with pytest.raises(UserError, match="no such folder"):
        gen.main([*base, str(tmp_path / "none"), "no"])
    with pytest.raises(UserError, match="neither a prefix nor a model"):
        gen.main([*base, str(tmp_path), "no"])
    with pytest.raises(UserError, match="MODE nonsense"):
        gen.main(["nonsense", "yes", "test", str(run), "no"])
    with pytest.raises(UserError, match="--batch_size 0"):
        gen.main([*base, str(run), "no", "--data_file", test_file, "--batch_size", "0"])
    for flag in ("--limit=0", "--limit=-1", "--seed=-1"):
        with pytest.raises(UserError, match=flag.replace("=", " ")):
            gen.main([*base, str(run), "no", "--data_file", test_file, flag])
    with pytest.raises(UserError, match=r"line 1: prefix, .* exceed the model's 320 positions"):
        gen.main([*base, str(run), "no", "--data_file", test_file, "--length", "300"])
    results = tmp_path / "e2e_results_conv2"
    results.mkdir()
    with locked(results, "m_test"), pytest.raises(UserError, match="m_test is in use by process"):
        gen.main([*base, str(run), "no", "--data_file", test_file, "--results_dir", str(tmp_path)])


def test_a_prefix_too_long_for_the_model(tiny_folder: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prefix of 320 slots .* 320 positions"):
        train_e2e.main(command(tiny_folder, files, tmp_path / "m", "--preseqlen", "320"))


def test_a_record_too_long_for_the_model(tiny_folder: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text(f"name : a||b \nname : {'x ' * 50_000}||c \n", encoding="utf-8")
    request = parse(
        ["--train_data_file", str(long), "--output_dir", str(tmp_path / "r"), "--preseqlen", "3"]
        + ["--optim_prefix", "yes", "--tuning_mode", "prefixtune", "--use_cpu"]
        + ["--model_name_or_path", str(tiny_folder)]
    )
    with pytest.raises(UserError, match=r"long\.txt, line 2: \d+ tokens, but 317 fit"):
        training.train(request)


@pytest.mark.parametrize(
    ("way", "folder"),
    [
        (["-m", "gpt2.train_e2e"], "."),
        (["run_language_modeling.py"], "gpt2"),
        (["gen.py"], "gpt2"),
        (["gpt2/run_generation.py"], "."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_the_ways_to_start(way: list[str], folder: str) -> None:
    # As without installation: an editable install would put the project on the path.
    process = subprocess.run(
        [sys.executable, *way, "--help"],
        cwd=ROOT / folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "usage:" in process.stdout


def test_a_mistake_is_one_sentence_and_a_status(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, str(ROOT / "gpt2/train_e2e.py"), "--train_file", "missing.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.strip() == (
        "error: missing.txt: there is no such file; README.md says where data goes"
    )
