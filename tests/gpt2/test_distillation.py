"""Distillation against sums written out by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, tiny_model
from transformers import TrainingArguments

from gpt2 import distillation, train_e2e, training
from gpt2.distillation import Trainer_Distill, matching_loss
from gpt2.launch_flags import read
from gpt2.train_control import PrefixTuning
from gpt2.train_e2e import run_name
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError

DATA = ROOT / "data" / "restaurants"


def kl_by_hand(student: list[float], teacher: list[float]) -> float:
    def probabilities(logits: list[float]) -> list[float]:
        exps = [math.exp(x) for x in logits]
        return [x / sum(exps) for x in exps]

    pairs = zip(probabilities(teacher), probabilities(student), strict=True)
    return sum(p * (math.log(p) - math.log(q)) for p, q in pairs)


def norm_by_hand(student: list[float], teacher: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(student, teacher, strict=True)))


BY_HAND = {"kl": kl_by_hand, "logits": norm_by_hand}


@pytest.mark.parametrize("objective", BY_HAND)
def test_matching_loss(objective: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 7, dtype=torch.float64).unbind()
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = sum(BY_HAND[objective](s, t) for s, t in rows)
    assert matching_loss(student, teacher, objective).item() == pytest.approx(expected, rel=1e-5)
    assert matching_loss(student, student, objective).item() == pytest.approx(0, abs=1e-6)
    halves = [logits.bfloat16() for logits in (student, teacher)]
    found = matching_loss(*halves, objective)
    assert found.dtype == torch.float32
    assert torch.equal(found, matching_loss(*(half.float() for half in halves), objective))


@pytest.mark.parametrize("positions", ["target", "all"])
@pytest.mark.parametrize("objective", BY_HAND)
def test_loss_of_a_batch(tmp_path: Path, objective: str, positions: str) -> None:
    """Two rows, the second padded: which positions count, and that it is a mean over rows."""
    model, teacher = enable_prefix(tiny_model("gpt2")), tiny_model("gpt2", seed=1)
    prefix = PrefixTuning(model.config, preseqlen=2, mid_dim=4, objective_mode=1)
    trainer = Trainer_Distill(
        model=prefix,
        model_gpt2=model.requires_grad_(False),
        teacher=teacher.requires_grad_(False),
        matching_objective=objective,
        positions=positions,
        args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
        save=lambda folder: None,
    )
    ids = torch.tensor([[5, 6, 7, 8, 9, 1], [5, 7, 6, 1, 2, 2]])
    labels = torch.tensor([[-100, -100, 7, 8, 9, 1], [-100, 7, 6, 1, -100, -100]])
    student = model(ids, prefix=prefix_of(prefix)).logits.tolist()
    taught = teacher(ids).logits.tolist()
    chosen = {
        "target": [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2)],
        "all": [(row, position) for row in range(2) for position in range(6)],
    }[positions]
    expected = sum(BY_HAND[objective](student[b][t], taught[b][t]) for b, t in chosen) / 2
    batch = {"input_ids": ids, "labels": labels}
    loss = trainer.compute_loss(prefix.train(), dict(batch))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in prefix.parameters())
    assert all(p.grad is None for p in [*model.parameters(), *teacher.parameters()])
    # Evaluated, it is the loss of the texts, as without a teacher.
    plain = prefix.eval()(**batch, gpt2_model=model).loss.mean()
    assert trainer.compute_loss(prefix, dict(batch)).item() == pytest.approx(plain.item())


def prefix_of(prefix: PrefixTuning) -> Any:
    from prefix_tuning.attention import KeyValues

    return KeyValues(prefix.key_values())


@pytest.fixture(scope="module")
def launch(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Launch with a few pairs; returns the run's folder."""
    folder = tmp_path_factory.mktemp("runs")
    lines = (DATA / "src1_train.txt").read_text("utf-8").splitlines(keepends=True)[:16]
    (folder / "few.txt").write_text("".join(lines), encoding="utf-8")

    def run(name: str, *flags: str) -> Path:
        files = [f"--{split}_file={folder / 'few.txt'}" for split in ("train", "eval", "test")]
        train_e2e.main(
            [*files, "--model_name_or_path", str(tiny_folder), "--output_dir", str(folder / name)]
            + ["--use_cpu", "--report_to", "none", "--generate", "no", "--preseqlen", "3"]
            + ([] if "--init_shallow" in flags else ["--mid_dim", "8"])
            + ["--bsz", "4", "--learning_rate", "0.01", "--epoch", "1", *flags]
        )
        return folder / name

    return run


def test_a_distilled_run(launch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix comes closer to the teacher, which stays as it was."""
    teacher = launch("teacher", "--tuning_mode", "finetune")
    held = []
    original = distillation.load_teacher

    def load(*args: Any) -> Any:
        held.append(original(*args))
        held.append(copy.deepcopy(held[0]))
        return held[0]

    monkeypatch.setattr(distillation, "load_teacher", load)
    losses = []
    compute = Trainer_Distill.compute_loss

    def spy(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, model, *args, **kwargs)
        if model.training:
            losses.append(loss.item())
        return loss

    monkeypatch.setattr(Trainer_Distill, "compute_loss", spy)
    flags = ("--distill", "yes", "--finetuned_model_path", str(teacher), "--epoch", "5")
    flags = (*flags, "--learning_rate", "0.1")
    run = launch("student", *flags)
    assert len(losses) == 20
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4]), "the last epoch and the first"
    assert (run / "export" / "prefix.safetensors").is_file()
    for now, before in zip(held[0].parameters(), held[1].parameters(), strict=True):
        assert torch.equal(now, before)


def test_teachers_that_do_not_fit(launch: Any, tiny_folder: Path, tmp_path: Path) -> None:
    flags = ("--distill", "yes", "--finetuned_model_path")
    message = (
        r"--finetuned_model_path .* predicts 300 tokens, the model of the prefix 301: .*pad_row"
    )
    with pytest.raises(UserError, match=message):
        launch("a", *flags, str(tiny_folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--finetuned_model_path .*empty.*cannot be loaded"):
        launch("b", *flags, str(tmp_path / "empty"))
    # The folder of a prefix has the model's configuration, but not its weights.
    prefix = launch("flat", "--init_shallow", "yes", "--init_shallow_word", "no")
    with pytest.raises(UserError, match=r"--finetuned_model_path .*flat: its weights lack"):
        launch("c", *flags, str(prefix))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--distill yes", "add --finetuned_model_path"),
        ("--distill yes --finetuned_model_path t --matching_objective last_layer", "last_layer: "),
        ("--distill yes --finetuned_model_path t --matching_objective mse", "--matching_objective"),
        ("--distill yes --finetuned_model_path t --tuning_mode finetune", "only with prefixtune"),
        ("--distill yes --finetuned_model_path t --tuning_mode bothtune", "only with prefixtune"),
        ("--distill yes --finetuned_model_path t --label_smoothing 0.1", "--label_smoothing: with"),
        ("--use_custom_teacher_dropout yes", "--use_custom_teacher_dropout yes"),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(
    tmp_path: Path, flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_causal_lm", pytest.fail)
    with pytest.raises(UserError) as caught:
        train_e2e.main(flags.split())
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_run_names() -> None:
    def name(flags: str) -> str:
        return run_name(read(flags.split())[0])

    assert name("--distill yes").endswith("_m=512_o=1_distill_o=kl_o=1")
    assert name("--distill yes --matching_objective logits").endswith("o=1_distill_o=logits_o=1")
    custom = "--tuning_mode finetune --use_custom_teacher_dropout yes"
    assert name(custom).endswith("_m=512_uctd=yes_o=1_o=1")


def test_custom_dropout_of_a_teacher(tmp_path: Path) -> None:
    flags = "--tuning_mode finetune --use_custom_teacher_dropout yes --dropout 0.25".split()
    command = train_e2e.command_of(read(flags)[0], tmp_path)
    assert "--teacher_dropout=0.25" in command
