"""The loss, the metrics and the small helpers of the original's ``utils.py`` that are still needed.

The metrics are those that training logs, batch by batch; ``evaluation.summarization`` has the score
that is reported.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

import sacrebleu
from torch import Tensor, nn
from transformers import PreTrainedModel

from evaluation import summarization


def label_smoothed_nll_loss(
    lprobs: Tensor, target: Tensor, epsilon: float, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy as in fairseq, summed over tokens and not averaged.

    With V the vocabulary, a token costs ``(1 - epsilon) * -log p(target)`` plus ``epsilon / V``
    times the sum of ``-log p`` over V.

    Args:
        lprobs: ``[..., V]`` log-probabilities.
        target: ``[...]`` int64.
        epsilon: probability mass spread over the vocabulary.
        ignore_index: the target that costs nothing, i.e. padding.

    Returns:
        The smoothed loss and the plain one, both scalars in nats.
    """
    ignored = target == ignore_index
    token = target.masked_fill(ignored, 0).unsqueeze(-1)  # [..., 1]
    nll = -lprobs.gather(-1, token).squeeze(-1).masked_fill(ignored, 0.0).sum()
    smooth = -lprobs.sum(-1).masked_fill(ignored, 0.0).sum()
    return (1.0 - epsilon) * nll + epsilon / lprobs.size(-1) * smooth, nll


def calculate_rouge(
    output_lns: Sequence[str], reference_lns: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """ROUGE-1, -2 and -L (stemmed F, from 0 to 100, 4 decimals) of a batch.

    They are medians of bootstrap samples, as the original's, whose samples had no seed; for few
    texts they are a little off the mean. They are nan where they are undefined.
    """
    scores = summarization.score(reference_lns, output_lns, bootstrap_seed=seed)
    values = {name: scores[summarization.COLUMNS[name]] for name in ("rouge1", "rouge2", "rougeL")}
    return {name: math.nan if v is None else round(v, 4) for name, v in values.items()}


def calculate_bleu(output_lns: Sequence[str], refs_lns: Sequence[str]) -> dict[str, float]:
    """sacrebleu's corpus BLEU with one reference each, from 0 to 100, 4 decimals."""
    return {"bleu": round(sacrebleu.corpus_bleu(output_lns, [refs_lns]).score, 4)}


def freeze_params(model: nn.Module) -> None:
    """Exclude every parameter of ``model`` from training."""
    model.requires_grad_(False)


def freeze_embeds(model: PreTrainedModel) -> None:
    """Freeze the token embeddings of an encoder-decoder, and its position tables if it has any."""
    freeze_params(model.get_input_embeddings())
    for stack in (model.get_encoder(), model.get_decoder()):
        for name in ("embed_tokens", "embed_positions"):
            if isinstance(getattr(stack, name, None), nn.Module):
                freeze_params(getattr(stack, name))


def assert_all_frozen(model: nn.Module) -> None:
    """Raise AssertionError, naming them, if parameters of ``model`` would be trained."""
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert not trained, f"{len(trained)} parameters are not frozen: {', '.join(trained[:3])}"


def git_info(folder: Path | None = None) -> dict[str, str]:
    """Commit and branch of the checkout that ``folder`` lies in; empty outside one.

    Args:
        folder: this file's own where not given.
    """
    info = {}
    questions = {"repo_sha": ["rev-parse", "HEAD"], "repo_branch": ["branch", "--show-current"]}
    for name, question in questions.items():
        command = ["git", "-C", str(folder or Path(__file__).parent), *question]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return {}
        info[name] = answer.stdout.strip()
    return info
