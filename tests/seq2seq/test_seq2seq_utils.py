"""Loss and metrics against their formulas and against the libraries; the small helpers."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5Model

from seq2seq.callbacks import OurModelCheckPoint
from seq2seq.predict import SCORES
from seq2seq.utils import (
    assert_all_frozen,
    calculate_bleu,
    calculate_rouge,
    freeze_embeds,
    freeze_params,
    git_info,
    label_smoothed_nll_loss,
)

OUTPUTS = ["the cat sat on the mat", "rain is expected", "two dogs", "nothing of it"]
REFERENCES = ["the cats sat on a mat", "rain was expected later", "two dogs", "other words"]


def test_label_smoothing_by_hand() -> None:
    lprobs = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
    loss, nll = label_smoothed_nll_loss(lprobs, torch.tensor([[0, 2, 1]]), 0.1, ignore_index=1)
    plain = -math.log(0.5) - math.log(0.1)  # the third is padding
    every = -math.log(0.5 * 0.25 * 0.25) - math.log(0.1 * 0.8 * 0.1)
    assert nll.item() == pytest.approx(plain, rel=1e-6)
    assert loss.item() == pytest.approx(0.9 * plain + 0.1 / 3 * every, rel=1e-6)


@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 5),
    vocabulary=st.integers(2, 9),
    epsilon=st.floats(0, 0.9),
)
def test_label_smoothing_is_a_summed_cross_entropy(
    seed: int, rows: int, vocabulary: int, epsilon: float
) -> None:
    """torch smooths in the same way: (1 - epsilon) on the target, epsilon / V on everything."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    target = torch.randint(vocabulary, (rows,), generator=generator)
    target[torch.rand(rows, generator=generator) < 0.3] = -100
    lprobs = logits.log_softmax(-1)
    loss, nll = label_smoothed_nll_loss(lprobs, target, epsilon)
    for value, smoothing in ((loss, epsilon), (nll, 0.0)):
        reference = torch.nn.functional.cross_entropy(
            logits, target, reduction="sum", label_smoothing=smoothing
        )
        assert value.item() == pytest.approx(reference.item(), abs=1e-9)


def test_gradient_of_padding_is_zero() -> None:
    lprobs = torch.zeros(2, 4).log_softmax(-1).requires_grad_()
    label_smoothed_nll_loss(lprobs, torch.tensor([3, 1]), 0.2, ignore_index=1)[0].backward()
    assert lprobs.grad is not None
    assert lprobs.grad.tolist() == [pytest.approx([-0.05, -0.05, -0.05, -0.85]), [0.0] * 4]


def test_rouge_is_near_the_mean_and_repeatable() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    results = [scorer.score(r, o) for r, o in zip(REFERENCES, OUTPUTS, strict=True)]
    scores = calculate_rouge(OUTPUTS, REFERENCES)
    assert list(scores) == ["rouge1", "rouge2", "rougeL"]
    for name, value in scores.items():
        mean = 100 * float(np.mean([result[name].fmeasure for result in results]))
        assert value == pytest.approx(mean, abs=5)
        assert value == round(value, 4)
    np.random.seed(1)
    assert calculate_rouge(OUTPUTS, REFERENCES) == scores
    assert np.random.get_state()[1][0] == 1  # and draws nothing from the global generator


def test_rouge_of_one_text_is_exact() -> None:
    """Stemmed: cat sat on mat of six and six words; pairs "cat sat", "sat on"."""
    scores = calculate_rouge(OUTPUTS[:1], REFERENCES[:1])
    assert scores == {"rouge1": 83.3333, "rouge2": 60.0, "rougeL": 83.3333}


def test_rouge_of_an_empty_output_is_zero() -> None:
    zero = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    assert calculate_rouge(["", " "], ["a b", "."]) == zero
    assert calculate_rouge(["a b"], ["."]) == zero


def test_bleu_is_sacrebleus() -> None:
    expected = sacrebleu.BLEU().corpus_score(OUTPUTS, [REFERENCES]).score
    assert calculate_bleu(OUTPUTS, REFERENCES) == {"bleu": round(expected, 4)}
    assert calculate_bleu(REFERENCES, REFERENCES) == {"bleu": 100.0}


def bart() -> BartForConditionalGeneration:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 8}
    return BartForConditionalGeneration(
        BartConfig(
            **sizes,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            vocab_size=20,
            max_position_embeddings=16,
        )
    )


def test_freezing_everything() -> None:
    model = bart()
    with pytest.raises(AssertionError, match=r"parameters are not frozen: model\.shared"):
        assert_all_frozen(model)
    freeze_params(model)
    assert_all_frozen(model)


def test_freezing_embeddings() -> None:
    model = bart()
    freeze_embeds(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        "model.shared.weight",
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    t5 = T5Model(T5Config(vocab_size=20, **sizes))
    freeze_embeds(t5)
    assert {n for n, p in t5.named_parameters() if not p.requires_grad} == {"shared.weight"}


def test_git_info(tmp_path: Path) -> None:
    assert git_info(tmp_path) == {}
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "init", "-q", "-b", "trunk"], check=True)
    assert git_info(tmp_path) == {}  # no commit yet
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    info = git_info(tmp_path)
    assert info["repo_branch"] == "trunk"
    assert len(info["repo_sha"]) == 40


def test_scores_of_a_script_that_the_tokeniser_does_not_read() -> None:
    assert math.isnan(calculate_rouge(["добрый день"], ["добрый день"])["rouge1"])
    scores = SCORES["summarization"](["добрый день"], ["добрый день"])
    assert scores.values == dict.fromkeys(("rouge1", "rouge2", "rougeL"))
    assert "use --tokenizer intl" in scores.note
    scores = SCORES["translation"](["今天天气很好我们"], ["今天天气很好我们"])
    assert scores.values == {"bleu": None, "exact": 100}
    assert "-tok zh" in scores.note
    of_two = SCORES["translation"](["a b c d", "b c d e"], ["a b c d", "b c d"])
    assert of_two["exact"] == 50
    assert of_two["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(["a b c d", "b c d"], [["a b c d", "b c d e"]]).score, abs=1e-4
    )


@pytest.mark.parametrize(
    ("metric", "validations", "kept"),
    [
        ("rouge2", [(math.nan, 3.0), (math.nan, 2.0), (math.nan, 2.5)], 1),
        ("rouge2", [(0.0, 3.0), (0.0, 2.0), (0.0, 2.5)], 1),
        ("rouge2", [(3.0, 3.0), (4.0, 2.0), (4.0, 1.0)], 1),  # not always equal: the first stays
        ("rouge2", [(math.nan, 1.0), (0.0, 2.0), (0.0, 1.0)], 1),
        ("rouge2", [(0.0, 1.0), (0.0, math.nan), (1.0, 9.0)], 2),
        ("loss", [(math.nan,), (2.0,), (math.nan,), (1.5,), (1.6,)], 3),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_metric_that_is_undefined_or_always_equal_chooses_nothing(
    tmp_path: Path, metric: str, validations: list[tuple[float, ...]], kept: int, resumed: bool
) -> None:
    callback = OurModelCheckPoint(tmp_path, metric, 1, all_epochs=False)
    saved = []
    for number, values in enumerate(validations):
        if resumed:
            state = callback.state_dict()
            callback = OurModelCheckPoint(tmp_path, metric, 1, all_epochs=False)
            callback.load_state_dict(state)
        names = (metric,) if metric == "loss" else (metric, "loss")
        trainer = SimpleNamespace(
            is_global_zero=True,
            callback_metrics={
                f"val_{n}": torch.tensor(v) for n, v in zip(names, values, strict=True)
            },
        )
        module = SimpleNamespace(save=lambda folder, number=number: saved.append(number))
        callback.on_validation_end(trainer, module)
    assert saved[-1] == kept
