"""Training: losses against the original's, what is trained, schedules, checkpoints, mistakes."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import load_vectors, part, vector_cases
from packaging.version import parse
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from prefix_tuning import checkpoint
from prefix_tuning import prefix as prefixes
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.initialization import activations
from seq2seq import arguments, finetune, loading, modules, run_folder, training
from seq2seq.callbacks import Seq2SeqLoggingCallback
from seq2seq.data import read_split
from seq2seq.lightning_base import BaseTransformer


def command(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    """One epoch of five steps."""
    return [
        *("--do_train", "--model_name_or_path", str(base), "--data_dir", str(data)),
        *("--output_dir", str(output), "--preseqlen", "3", "--mid_dim", "8"),
        *("--learning_rate", "0.01", "--train_batch_size", "4", "--eval_batch_size", "4"),
        *("--num_train_epochs", "1", "--num_workers", "0", "--accelerator", "cpu"),
        *("--eval_beams", "1", "--eval_min_gen_length", "2", "--eval_max_gen_length", "8"),
        *("--max_source_length", "24", "--max_target_length", "12", "--logger_name", "none"),
        *more,
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def close(one: Path, other: Path, tolerance: float) -> None:
    first, second = weights(one), weights(other)
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=tolerance, rtol=0), name


def make_module(arguments_of_run: list[str], data: Path) -> Any:
    """A module as ``finetune.py`` makes it, without the run around it."""
    args = arguments.parse(arguments_of_run)
    records = {split: read_split(data, split, True) for split in ("train", "val")}
    return finetune.MODULES[args.task_mode, args.tuning_mode].load(args, records)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modules that runs of a test train."""
    modules: list[Any] = []
    original = training.generic_train

    def keep(module: Any, *args: Any) -> Any:
        modules.append(module)
        return original(module, *args)

    monkeypatch.setattr(training, "generic_train", keep)
    return modules


# Losses and what is trained.


@pytest.mark.parametrize("name", vector_cases("bart_"))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_originals_losses_and_gradients(
    name: str,
    smoothing: float,
    bart_tokenizer: PreTrainedTokenizerFast,
    pairs: Path,
    tmp_path: Path,
) -> None:
    case, tensors = load_vectors(f"bart_{name}")
    config = case["config"]
    ours = ("preseqlen", "mid_dim", "use_deep")
    model = BartForConditionalGeneration(
        BartConfig(**{k: v for k, v in config.items() if k not in ours})
    )
    model.load_state_dict(part(tensors, "base."))
    model.save_pretrained(tmp_path / "base")
    bart_tokenizer.save_pretrained(tmp_path / "base")
    more = ("--label_smoothing", str(smoothing), "--val_max_target_length", "40")
    flags = ("--preseqlen", str(config["preseqlen"]), "--mid_dim", str(config["mid_dim"]))
    more += (*flags, "--use_deep", "yes" if config["use_deep"] else "no")
    module = make_module(command(tmp_path / "base", pairs, tmp_path / "m", *more), pairs).eval()
    module.model.load_state_dict(part(tensors, "prefix."))

    batch = part(tensors, "in.")
    assert torch.equal(module._inputs(batch)["decoder_input_ids"], batch["decoder_input_ids"])
    loss = module.step(batch)
    loss.backward()
    suffix = "_smoothed" if smoothing else ""
    tolerance = case["reproduction"]["recommended_tolerance"]
    wanted = tensors[f"out.loss{suffix}"]
    assert torch.allclose(loss, wanted, atol=1e-4 * max(1, wanted.item()), rtol=0)
    for parameter, gradient in part(tensors, f"grad{suffix}.").items():
        found = module.model.get_parameter(parameter).grad
        limit = tolerance.get(f"grad{suffix}", tolerance["grad"])
        assert torch.allclose(found, gradient, atol=limit, rtol=0), parameter
    assert all(p.grad is None for p in module.seq2seq_model.parameters())


def test_a_smoothed_mean_is_the_sum_over_tokens(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    module = make_module(
        command(bart_folder, pairs, tmp_path / "m", "--label_smoothing", "0.1"), pairs
    )
    dataset = module.datasets["train"]
    batch = dataset.collate_fn([dataset[i] for i in range(3)])
    summed = module.eval().step(batch)
    module.args.label_smoothing_mean = "yes"
    n_token = sum(len(module.tokenizer(dataset[i]["tgt_texts"]).input_ids[:12]) for i in range(3))
    assert torch.allclose(module.step(batch), summed / n_token)
    of_rows, counts = module._row_losses(batch)  # what validation adds up
    assert torch.allclose(of_rows.sum().float(), summed)
    assert counts.sum() == n_token
    with torch.autocast("cpu", torch.bfloat16):
        assert module.step(batch).dtype == torch.float32  # a sum in bfloat16 has eight bits


def test_the_frozen_model_has_dropout_while_training_and_none_in_validation(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[bool]] = {"training_step": set(), "validation_step": set()}
    for name in seen:
        original = getattr(finetune.SummarizationModule, name)

        def spy(self: Any, batch: Any, index: int, name: str = name, step: Any = original) -> Any:
            assert all(m.training is self.training for m in self.seq2seq_model.modules())
            state = torch.get_rng_state()
            changes = not torch.equal(self.step(batch), self.step(batch))
            torch.set_rng_state(state)
            seen[name].add(changes)
            return step(self, batch, index)

        monkeypatch.setattr(finetune.SummarizationModule, name, spy)
    # A second epoch: validation must give the mode back.
    finetune.main(command(bart_folder, pairs, tmp_path / "m", "--num_train_epochs", "2"))
    assert seen == {"training_step": {True}, "validation_step": {False}}


def test_only_the_prefix_is_trained_and_every_slot_of_it(
    bart_folder: Path, pairs: Path, tmp_path: Path, held: list[Any]
) -> None:
    finetune.main(command(bart_folder, pairs, tmp_path / "m", "--save_all_epochs", "yes"))
    (module,) = held
    fresh = BartForConditionalGeneration.from_pretrained(bart_folder).state_dict()
    for name, value in module.seq2seq_model.state_dict().items():
        assert torch.equal(value, fresh[name]), name
    assert all(name.startswith("model.") for name in module.state_dict())
    torch.manual_seed(42)  # the default of --seed
    start = make_module(command(bart_folder, pairs, tmp_path / "x"), pairs).model
    for site in ("self", "encoder", "encoder_decoder"):
        moved = (module.model.slots(site) - start.slots(site)).abs().amax(dim=1)
        assert moved.min() > 0, site
    kept = weights(tmp_path / "m" / "checkpointepoch=0.ckpt")
    assert torch.equal(kept["wte.weight"], module.model.wte.weight)


def test_a_run_leaves_what_it_promises(
    bart_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "m"
    more = ("--logging_steps", "2", "--label_smoothing", "0.1")
    arguments_of_run = command(bart_folder, pairs, run, *more)
    logged = arguments_of_run.index("--logger_name") + 1
    arguments_of_run[logged] = "default"
    finetune.main(arguments_of_run)
    said = capsys.readouterr().out
    assert "trained parameters              1,416" in said
    steps = [line for line in said.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[0] for line in steps] == [f"step {step}/5" for step in range(1, 6)]
    assert "a token)" in steps[0]  # label smoothing adds them up
    assert "\nevaluation at step 5  loss " in said
    meta = checkpoint.read_metadata(run)
    assert meta["options"]["sites"] == ["self", "encoder", "encoder_decoder"]
    assert meta["position_offset"] == 0
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert (config["preseqlen"], config["mid_dim"], config["use_deep"]) == (3, 8, False)
    (entry,) = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["val"]
    rouge = [f"{kind}_rouge{n}" for kind in ("val_avg", "legacy") for n in ("1", "2", "L")]
    others = ["val_avg_loss", "legacy_loss", "val_avg_gen_time", "val_avg_gen_len", "step_count"]
    assert sorted(entry) == sorted(rouge + others)
    assert entry["step_count"] == 1
    assert 2 <= entry["val_avg_gen_len"] <= 7  # of 8 without the start token
    history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
    assert [sorted(log) for log in history] == [["loss", "step"]] * 2 + [["eval_loss", "step"]]
    assert (run / "loss.png").stat().st_size > 1000
    assert list((run / "runs").glob("events.out.tfevents*"))
    assert not (run / "last.ckpt").exists()
    best = checkpoint.load(run / "checkpoint-curr_best" / "export")[0]
    trained = checkpoint.load(run)[0]
    assert torch.allclose(best.slots("encoder"), trained.slots("encoder"))
    before = (run / "model.safetensors").stat().st_mtime_ns
    finetune.main(arguments_of_run)
    assert "is trained already" in capsys.readouterr().out
    assert (run / "model.safetensors").stat().st_mtime_ns == before


# Optimisation.


def test_of_one_file_a_tenth_is_validated_and_decoded_and_not_trained_on(
    bart_folder: Path, tmp_path: Path, held: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "pairs.csv", tmp_path / "run"
    lines = [f"name {i},{text} {i}" for i in range(20) for text in ("one", "other")]
    data.write_text("\n".join(["question,answer", *lines]) + "\n", encoding="utf-8")
    finetune.main(command(bart_folder, data, run, "--do_predict", "--seed", "3"))
    train, val = (held[0].datasets[split].records for split in ("train", "val"))
    assert (len(train), len(val)) == (36, 4)
    sources = [{record.source for record in split} for split in (train, val)]
    assert not sources[0] & sources[1]
    kept = [json.loads(line) for line in (run / "held_out.jsonl").read_text().splitlines()]
    assert kept == [{"source": record.source, "target": record.target} for record in val]
    said = capsys.readouterr().out
    assert "36 training and 4 validation pairs" in said
    assert "4 texts in" in said
    flags = ["--eval_fraction", "0", "--seed", "3"]
    finetune.main(command(bart_folder, data, tmp_path / "all", *flags))
    assert "note: they are the same pairs" in capsys.readouterr().out
    assert len(held[1].datasets["train"].records) == len(held[1].datasets["val"].records) == 40
    data.write_text("source,target\na,b\na,c\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--eval_fraction 0.1: cannot be taken from .*pairs.csv"):
        finetune.main(command(bart_folder, data, tmp_path / "one"))


def test_an_older_run_goes_on_without_holding_out(tmp_path: Path) -> None:
    data, settings = tmp_path / "pairs.csv", tmp_path / "run" / "run_settings.json"
    data.write_text("source,target\na,b\nc,d\n", encoding="utf-8")
    args = arguments.parse(command(tmp_path / "base", data, settings.parent))
    assert run_folder.as_begun(args) == args
    settings.parent.mkdir()
    for recorded, share in (({"seed": 42}, 0.0), ({"eval_fraction": None}, 0.1)):
        settings.write_text(json.dumps(recorded), encoding="utf-8")
        assert arguments.held_out_share(run_folder.as_begun(args)) == share


def test_a_folder_has_a_split_to_validate_on(pairs: Path, tmp_path: Path) -> None:
    words = ["--data_dir", str(pairs), "--eval_fraction", "0.2"]
    with pytest.raises(UserError, match=r"--eval_fraction 0\.2: --data_dir .* is not one file"):
        arguments.parse(["--do_train", "--output_dir", str(tmp_path), *words])
    (tmp_path / "a.csv").touch()
    with pytest.raises(UserError, match="only with --do_train"):
        arguments.parse(["--do_predict", "--data_dir", str(tmp_path / "a.csv"), *words[2:]])


def by_hand(name: str, step: int, total: float, warmup: int, lr: float) -> float:
    if step < warmup:
        return lr * step / warmup
    done = (step - warmup) / (total - warmup)
    if name == "linear":
        return lr * max(0.0, 1 - done)
    if name == "polynomial":  # of degree 1, down to 1e-7
        return 1e-7 if step > total else (lr - 1e-7) * (1 - done) + 1e-7
    if name == "cosine_w_restarts" and done >= 1:
        return 0.0
    return lr * max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


@pytest.mark.parametrize("name", arguments.SCHEDULES)
def test_schedules(
    name: str, bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseTransformer, "total_steps", lambda self: 10)
    more = ("--lr_scheduler", name, "--warmup_steps", "4")
    module = make_module(command(bart_folder, pairs, tmp_path / "m", *more), pairs)
    (optimizer,), (schedule,) = module.configure_optimizers()
    assert schedule["interval"] == "step"
    for step in range(10):
        wanted = by_hand(name, step, 10, 4, 0.01)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted, abs=1e-9)
        optimizer.step()
        schedule["scheduler"].step()


def test_the_schedule_ends_where_the_originals_formula_says(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 examples in batches of 4, twice: 4.5 steps an epoch by the formula, 5 in truth."""
    rates: list[float] = []

    def spy(self: Any, trainer: Any, *_: Any) -> None:
        rates.append(trainer.optimizers[0].param_groups[1]["lr"])

    monkeypatch.setattr(Seq2SeqLoggingCallback, "on_train_batch_end", spy)
    more = ("--n_train", "18", "--num_train_epochs", "2", "--weight_decay", "0.1")
    finetune.main(command(bart_folder, pairs, tmp_path / "m", *more))
    assert rates == pytest.approx([0.01 * max(0, 9 - step) / 9 for step in range(1, 11)])


def test_groups_and_optimisers(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    module = make_module(
        command(bart_folder, pairs, tmp_path / "m", "--weight_decay", "0.1", "--max_steps", "9")
        + ["--adam_epsilon", "1e-6"],
        pairs,
    )
    assert module.total_steps() == 9
    (optimizer,), _ = module.configure_optimizers()
    assert type(optimizer) is torch.optim.AdamW
    decayed, spared = optimizer.param_groups
    names = {id(p): name for name, p in module.model.named_parameters()}
    assert {names[id(p)] for p in spared["params"]} == {n for n in names.values() if "bias" in n}
    assert len(decayed["params"]) == 9
    assert len(spared["params"]) == 6
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert (decayed["eps"], spared["eps"]) == (1e-6, 1e-6)
    module.args.adafactor = True
    (optimizer,), _ = module.configure_optimizers()
    group = optimizer.param_groups[0]
    assert (group["scale_parameter"], group["relative_step"]) == (False, False)


def test_accumulated_batches_and_checkpointing_train_the_same(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    """Targets cut to one length: the mean of two batches of 4 is that of one of 8."""
    plain = ("--dropout", "0", "--attention_dropout", "0", "--max_target_length", "6")
    runs = {
        "one": ("--train_batch_size", "8"),
        "two": ("--gradient_accumulation_steps", "2"),
        "checkpointed": ("--train_batch_size", "8", "--gradient_checkpointing"),
    }
    for name, flags in runs.items():
        more = (*plain, "--max_steps", "2", *flags)
        finetune.main(command(bart_folder, pairs, tmp_path / name, *more))
    close(tmp_path / "one", tmp_path / "two", 1e-5)
    close(tmp_path / "one", tmp_path / "checkpointed", 1e-6)


@pytest.mark.parametrize(
    "flags",
    [
        ("--bf16",),
        ("--adafactor",),
        ("--sortish_sampler",),
        ("--max_tokens_per_batch", "96"),
        ("--max_grad_norm", "0.1", "--prefix_dropout", "0.2", "--use_deep", "yes"),
    ],
    ids=" ".join,
)
def test_further_ways_to_train(
    flags: tuple[str, ...], bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    more = ("--num_train_epochs", "4", *flags)
    finetune.main(command(bart_folder, pairs, tmp_path / "m", *more))
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text(encoding="utf-8"))
    losses = [entry["val_avg_loss"] for entry in metrics["val"]]
    assert losses[-1] < losses[0]


# Which checkpoint, and when to stop.


@pytest.mark.parametrize("metric", ["loss", "rouge2"])
def test_the_best_checkpoint_and_early_stopping(
    metric: str, bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validations that are good, better, worse, worse: the second is kept, the fourth is last."""
    values = iter([3.0, 2.0, 2.5, 2.1, 1.0] if metric == "loss" else [3.0, 4.0, 3.5, 4.0, 5.0])
    original = finetune.SummarizationModule.log_dict

    def replace(self: Any, logged: dict[str, Any], **more: Any) -> None:
        if "val_loss" in logged:
            logged = {**logged, f"val_{metric}": next(values)}
        original(self, logged, **more)

    monkeypatch.setattr(finetune.SummarizationModule, "log_dict", replace)
    more = ("--num_train_epochs", "5", "--n_train", "4", "--save_all_epochs", "yes")
    more += ("--early_stopping_patience", "2", "--val_metric", metric)
    run = tmp_path / "m"
    finetune.main(command(bart_folder, pairs, run, *more))
    epochs = sorted(run.glob("checkpointepoch=*.ckpt"))
    assert [path.name for path in epochs] == [f"checkpointepoch={i}.ckpt" for i in range(4)]
    best = weights(run / "checkpoint-curr_best")["wte.weight"]
    assert [torch.equal(best, weights(p)["wte.weight"]) for p in epochs] == [
        False,
        True,
        False,
        False,
    ]
    assert torch.equal(weights(run)["wte.weight"], weights(epochs[-1])["wte.weight"])


def test_max_steps_ends_with_a_validation(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    for steps in (3, 7):
        run = tmp_path / str(steps)
        finetune.main(command(bart_folder, pairs, run, "--max_steps", str(steps)))
        history = json.loads((run / "log_history.json").read_text(encoding="utf-8"))
        assert [log["step"] for log in history if "eval_loss" in log] == [
            *range(5, steps, 5),
            steps,
        ]


def test_validation_scores_whole_references_once_each(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that returns the references is perfect, though training would cut them."""
    targets = (pairs / "val.target").read_text(encoding="utf-8").splitlines()
    found = iter(targets)
    monkeypatch.setattr(modules, "texts", lambda tokenizer, rows: [next(found) for _ in rows])
    original = finetune.SummarizationModule.validation_step

    def step(self: Any, batch: Any, index: int) -> None:
        monkeypatch.setattr(modules, "clean_up", lambda text: "cut")
        monkeypatch.setattr(
            modules,
            "texts",
            lambda tokenizer, rows: [targets[i] for i in batch["ids"].tolist()],
        )
        original(self, batch, index)

    monkeypatch.setattr(finetune.SummarizationModule, "validation_step", step)
    finetune.main(command(bart_folder, pairs, tmp_path / "m", "--max_steps", "1"))
    (entry,) = json.loads((tmp_path / "m/metrics.json").read_text(encoding="utf-8"))["val"]
    assert [entry[f"val_avg_rouge{n}"] for n in ("1", "2", "L")] == pytest.approx([100] * 3)


# What else can be trained.


def test_sites_switched_off_have_no_parameters(
    bart_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    more = ("--prefix_sites", "self,encoder_decoder", "--max_steps", "2")
    finetune.main(command(bart_folder, pairs, tmp_path / "m", *more))
    names = {name.split(".")[0] for name in weights(tmp_path / "m")}
    assert names == {"wte", "control_trans", "wte2", "control_trans2"}
    assert set(load_file(tmp_path / "m/export/prefix.safetensors")) == {
        "past_key_values",
        "past_key_values.encoder_decoder",
    }


def test_fine_tuning(bart_folder: Path, pairs: Path, tmp_path: Path, held: list[Any]) -> None:
    more = ("--tuning_mode", "finetune", "--freeze_embeds", "--freeze_encoder")
    finetune.main(command(bart_folder, pairs, tmp_path / "m", *more, "--save_steps", "2"))
    assert not checkpoint.is_prefix_folder(tmp_path / "m")
    tuned = BartForConditionalGeneration.from_pretrained(tmp_path / "m").state_dict()
    fresh = BartForConditionalGeneration.from_pretrained(bart_folder).state_dict()
    changed = {name for name, value in fresh.items() if not torch.equal(value, tuned[name])}
    trainable = {n for n, p in held[0].model.named_parameters() if p.requires_grad}
    assert changed == trainable
    assert {name.split(".layers.")[0] for name in changed} == {
        "model.decoder",
        "model.decoder.layernorm_embedding.weight",
        "model.decoder.layernorm_embedding.bias",
    }


def test_translation_is_scored_with_bleu(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    for mode in ("prefixtune", "finetune"):
        more = ("--task_mode", "translation", "--tuning_mode", mode, "--max_steps", "1")
        finetune.main(command(bart_folder, pairs, tmp_path / mode, *more))
        metrics = json.loads((tmp_path / mode / "metrics.json").read_text(encoding="utf-8"))
        assert {"val_avg_bleu", "legacy_bleu"} <= set(metrics["val"][0])
        assert "val_avg_rouge2" not in metrics["val"][0]
    assert checkpoint.read_metadata(tmp_path / "prefixtune")["task"]["task_mode"] == "translation"


@pytest.fixture(scope="module")
def t5_folder(
    bart_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("base") / "t5"
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(bart_tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        task_specific_params={"summarization": {"prefix": "summarize: "}},
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    bart_tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.skipif(
    parse(transformers.__version__) < parse("5.23"), reason="T5 is refused by name before"
)
def test_t5_is_a_base_model_with_its_own_words_in_front(
    t5_folder: Path, pairs: Path, tmp_path: Path, held: list[Any]
) -> None:
    more = ("--do_predict", "--gradient_checkpointing")
    finetune.main(command(t5_folder, pairs, tmp_path / "m", *more))
    (module,) = held
    assert module.datasets["train"][0]["src_texts"].startswith("summarize: ")
    batch = {"labels": torch.tensor([[5, 6, 2, 1]]), "input_ids": 0, "attention_mask": 0}
    assert module._inputs(batch)["decoder_input_ids"].tolist() == [[1, 5, 6, 2]]
    assert all(p.grad is None for p in module.seq2seq_model.parameters())
    best = tmp_path / "m" / "checkpoint-curr_best"
    assert checkpoint.read_metadata(best)["task"]["source_prefix"] == "summarize: "
    assert len((best / "test_beam_0.8").read_text(encoding="utf-8").splitlines()) == 5


def test_low_data_runs_start_from_words(
    bart_folder: Path,
    pairs: Path,
    tmp_path: Path,
    held: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prefix is as long as the words with their special tokens, and close to their keys."""
    fits: list[tuple[Any, ...]] = []
    original = prefixes.fit

    def fit(prefix: Any, targets: Any, *args: Any, **more: Any) -> Any:
        fits.append((prefix, targets))
        losses = original(prefix, targets, *args, **more)
        assert (len(losses), losses[-1] < losses[0]) == (200, True)
        return losses

    monkeypatch.setattr(prefixes, "fit", fit)
    more = ("--use_lowdata_token", "yes", "--lowdata_token", "The restaurant", "--max_steps", "1")
    finetune.main(command(bart_folder, pairs, tmp_path / "m", *more, "--do_predict"))
    assert checkpoint.read_metadata(tmp_path / "m")["options"]["length"] == 4
    ((prefix, targets),) = fits  # once, and not again for decoding
    base = enable_prefix(BartForConditionalGeneration.from_pretrained(bart_folder))
    ids = held[0].tokenizer("The restaurant", return_tensors="pt").input_ids
    for site, table in activations(base, ids).items():
        assert torch.allclose(targets[site], table, atol=1e-6)
    assert prefix is held[0].model


def test_training_starts_from_a_trained_prefix(
    bart_folder: Path, pairs: Path, tmp_path: Path, held: list[Any]
) -> None:
    finetune.main(command(bart_folder, pairs, tmp_path / "a", "--max_steps", "1"))
    again = command(bart_folder, pairs, tmp_path / "b", "--max_steps", "1")
    again[again.index("--learning_rate") + 1] = "1e-30"
    again += ["--prefix_dropout", "0.3"]
    finetune.main([*again, "--prefixModel_name_or_path", str(tmp_path / "a")])
    assert [module.model.dropout.p for module in held] == [0.0, 0.3]
    close(tmp_path / "a", tmp_path / "b", 0.0)
    again[again.index("--preseqlen") + 1] = "4"
    with pytest.raises(UserError, match="was trained with --preseqlen 3, not 4"):
        finetune.main(
            [*again, "--prefixModel_name_or_path", str(tmp_path / "a"), "--overwrite_output_dir"]
        )


# Mistakes.

SIZES = "preseqlen mid_dim eval_beams eval_max_gen_length val_max_target_length n_val".split()
SIZES += "train_batch_size max_steps warmup_steps save_steps num_workers devices".split()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--tuning_mode adaptertune", "--tuning_mode adaptertune"),
        ("--tuning_mode bothtune", "--tuning_mode bothtune"),
        ("--format_mode infix", "--format_mode infix"),
        ("--prefix_mode embedding", "--prefix_mode embedding"),
        ("--optim_prefix no", "--optim_prefix no"),
        ("--prefix_sites decoder", "--prefix_sites decoder"),
        ("--preseqlen 0", "--preseqlen 0"),
        ("--mid_dim 0", "--mid_dim 0"),
        ("--prefix_dropout 1", "--prefix_dropout 1"),
        ("--task_mode e2e", "--task_mode e2e"),
        ("--val_metric bleu", "--val_metric bleu"),
        ("--max_target_length 200", "--val_max_target_length 142"),
        ("--max_target_length 100 --test_max_target_length 99", "--test_max_target_length 99"),
        ("--max_source_length 2", "--max_source_length 2"),
        ("--max_tokens_per_batch 9 --sortish_sampler", "--sortish_sampler"),
        ("--max_tokens_per_batch 9 --devices 2", "one device"),
        ("--max_tokens_per_batch -1", "--max_tokens_per_batch -1"),
        ("--fp16 --bf16", "--fp16 and --bf16"),
        ("--learning_rate 0", "--learning_rate 0"),
        ("--learning_rate 1e-8 --lr_scheduler polynomial", "--learning_rate 1e-08"),
        ("--train_batch_size 0", "--train_batch_size 0"),
        ("--n_val 0", "--n_val 0"),
        ("--warmup_steps -1", "--warmup_steps -1"),
        ("--label_smoothing 1", "--label_smoothing 1"),
        ("--eval_beams 0", "--eval_beams 0"),
        ("--eval_max_gen_length 5", "--eval_max_gen_length"),
        ("--config_name x", "--config_name x"),
        ("--max_steps -5", "--max_steps -5"),
        ("--seed -1", "--seed -1"),
        ("--seed 4294967296", "--seed 4294967296"),
        ("--learning_rate nan", "--learning_rate nan"),
        ("--max_grad_norm nan", "--max_grad_norm nan"),
        ("--learning_rate inf", "--learning_rate inf: must be positive"),
        ("--weight_decay inf", "--weight_decay inf"),
        ("--learning_rate 1e39", "--learning_rate 1e+39"),
        ("--length_penalty nan", "--length_penalty nan"),
        ("--length_penalty inf", "--length_penalty inf"),
        ("--n_train -5", "--n_train -5: give a number of examples, or -1 for all"),
        ("--n_val -2", "--n_val -2"),
        ("--early_stopping_patience -3", "--early_stopping_patience -3"),
        ("--no_repeat_ngram_size -1", "--no_repeat_ngram_size -1"),
        ("--adafactor --adam_epsilon 1e-6", "--adam_epsilon is AdamW's"),
        ("--lowdata_token food", "--lowdata_token food: needs --use_lowdata_token yes"),
        ("--label_smoothing_mean yes", "--label_smoothing_mean yes: needs --label_smoothing"),
        ("--source_column a --target_column a", "are one column"),
        *((f"--{name} {10**30}", f"--{name} 1000000000") for name in SIZES),
        ("--encoder_layerdrop 1.5", "--encoder_layerdrop 1.5"),
        ("--n_tpu_cores 8", "--n_tpu_cores 8"),
        ("--save_top_k 3", "--save_top_k 3"),
        ("--use_lowdata_token yes --prefixModel_name_or_path x", "--use_lowdata_token"),
        ("--tuning_mode finetune --prefixModel_name_or_path x", "--prefixModel_name_or_path"),
        ("--data_dir missing", "missing"),
    ],
)
def test_impossible_flags_are_refused_before_anything_is_loaded(
    flags: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_model", pytest.fail)
    base = "--do_train --model_name_or_path bart --data_dir data.csv --output_dir run"
    with pytest.raises(UserError) as caught:
        finetune.main([*base.split(), *flags.split()])
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["--do_train", "--model_name_or_path", "--output_dir"])
def test_what_training_cannot_do_without(missing: str) -> None:
    flags = {"--do_train": [], "--model_name_or_path": ["bart"], "--output_dir": ["run"]}
    given = [x for name, value in flags.items() if name != missing for x in (name, *value)]
    with pytest.raises(UserError, match=missing):
        arguments.parse(["--data_dir", "data", *given])


def test_what_the_model_or_the_machine_cannot_do(
    bart_folder: Path, tiny_folder: Path, t5_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    def refuse(message: str, *more: str, base: Path = bart_folder) -> None:
        with pytest.raises(UserError, match=message):
            finetune.main(command(base, pairs, tmp_path / "m", *more))
        assert not (tmp_path / "m" / "last.ckpt").exists()

    refuse("--max_source_length 151: the model has 150 positions", "--max_source_length", "151")
    refuse("--eval_max_gen_length 151", "--eval_max_gen_length", "151")
    refuse("t5 has no such setting as one of --dropout", "--dropout", "0.2", base=t5_folder)
    if importlib.util.find_spec("wandb") is None:
        refuse("--logger_name wandb: the package wandb", "--logger_name", "wandb")
    refuse("tiny-gpt2: this folder cannot be loaded", base=tiny_folder)
    refuse("the tokenizer of this model has no languages", "--src_lang", "en_XX")
    if not torch.cuda.is_available():
        refuse("--accelerator gpu: there is no GPU", "--accelerator", "gpu")
    refuse("--fp16 needs a GPU", "--fp16")


def test_mistakes_with_run_folders(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        finetune.main(command(bart_folder, pairs, tmp_path / "full"))
    with pytest.raises(UserError, match="is a file"):
        finetune.main(command(bart_folder, pairs, tmp_path / "full" / "thesis.tex"))
    run = command(bart_folder, pairs, tmp_path / "m", "--max_steps", "1")
    finetune.main(run)
    with pytest.raises(UserError, match="was started with --mid_dim 8, now it is 16"):
        finetune.main([*run, "--mid_dim", "16"])
    again = [*run, "--mid_dim", "16", "--overwrite_output_dir"]
    old = sorted(path.name for path in (tmp_path / "m").rglob("*"))
    for mistake in (("--data_dir", str(tmp_path)), ("--max_source_length", "151")):
        with pytest.raises(UserError):
            finetune.main([*again, *mistake])
        assert sorted(path.name for path in (tmp_path / "m").rglob("*")) == old
    finetune.main(again)
    assert checkpoint.read_metadata(tmp_path / "m")["options"]["mid_dim"] == 16


def test_defaults_are_the_originals() -> None:
    args = arguments.parse("--do_train --model_name_or_path b --data_dir d --output_dir o".split())
    assert isinstance(args, arguments.Arguments)
    wanted = {
        "learning_rate": 5e-5,
        "train_batch_size": 10,
        "eval_batch_size": 10,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 0.0,
        "num_workers": 4,
        "n_val": 500,
        "max_target_length": 56,
        "val_max_target_length": 142,
        "test_max_target_length": 142,
        "label_smoothing": 0.0,
        "lr_scheduler": "linear",
        "tuning_mode": "prefixtune",
        "seed": 42,
        "early_stopping_patience": -1,
    }
    assert {name: getattr(args, name) for name in wanted} == wanted
    assert vars(arguments.search(args)) == {
        "num_beams": 6,
        "length_penalty": 0.8,
        "min_length": 11,
        "max_length": 62,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    }


def test_what_is_frozen_and_what_is_trained_are_two_hooks(
    bart_folder: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No class of the diamond is cut out: fine-tuning's own freezing runs behind a prefix too."""
    ran: list[str] = []
    for name in ("freeze_embeds", "freeze_params"):
        monkeypatch.setattr(modules, name, lambda _, name=name: ran.append(name))
    monkeypatch.setattr(modules, "assert_all_frozen", lambda _: None)
    flags = command(bart_folder, pairs, tmp_path / "m", "--freeze_embeds", "--freeze_encoder")
    prefix = make_module(flags, pairs)
    assert ran == ["freeze_embeds", "freeze_params"]
    assert not any(p.requires_grad for p in prefix.seq2seq_model.parameters())
    assert all(p.requires_grad for p in prefix.model.parameters())
