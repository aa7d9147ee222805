"""BERTScore, MoverScore and BLEURT through their packages, where package and model are there.

Nothing is downloaded: a model counts only if it is a folder or already in the Hugging Face cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.report import Unavailable


def _local_model(name: str) -> str:
    """Folder of a model given by path or by name; Unavailable if it is not on this machine."""
    if Path(name).is_dir():
        return name
    try:
        from huggingface_hub import snapshot_download

        return snapshot_download(name, local_files_only=True)
    except Exception as error:
        raise Unavailable(
            f"needs the model {name}, which is not on this machine: hf download {name}"
        ) from error


def bertscore(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], model: str, layers: int
) -> list[float]:
    """BERTScore F (Zhang et al. 2020) of each text: best reference, no idf, no rescaling.

    Args:
        references: one or more texts per instance.
        hypotheses: one text per instance.
        model: folder or Hugging Face name; DART's script uses roberta-large.
        layers: the layer whose states are compared; 17 for roberta-large.

    Raises:
        Unavailable: package or model is missing.
    """
    try:
        import bert_score
    except ImportError as error:
        raise Unavailable("needs bert-score: pip install bert-score") from error
    scorer = bert_score.BERTScorer(model_type=_local_model(model), num_layers=layers)
    # bert-score 0.3.13 hands "no limit" (1e30) to transformers, which no longer takes it.
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, 512)
    _, _, f1 = scorer.score(list(hypotheses), [list(group) for group in references])
    return f1.tolist()


def moverscore(references: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
    """MoverScore (Zhao et al. 2019) of each text with distilbert, single reference.

    Raises:
        Unavailable: the package cannot be imported. Version 1.0.3 loads its model while being
            imported, and needs a GPU and a NumPy below 1.24.
    """
    try:
        import moverscore_v2
    except Exception as error:  # whatever model, device or NumPy it did not find
        raise Unavailable(
            f"needs moverscore 1.0.3, which cannot be imported: {_first_line(error)}"
        ) from error
    reference_idf = moverscore_v2.get_idf_dict(references)
    hypothesis_idf = moverscore_v2.get_idf_dict(hypotheses)
    return moverscore_v2.word_mover_score(
        references, hypotheses, reference_idf, hypothesis_idf, stop_words=[], n_gram=1
    )


def bleurt(
    references: Sequence[str], hypotheses: Sequence[str], checkpoint: str | None
) -> list[float]:
    """BLEURT (Sellam et al. 2020) of each text, single reference.

    Args:
        references: one text per instance.
        hypotheses: one text per instance.
        checkpoint: folder or Hugging Face name of a checkpoint in bleurt-pytorch's format.
            The script of DART's authors names BLEURT's two-layer test_checkpoint.

    Raises:
        Unavailable: package or checkpoint is missing, or none was named. bleurt-pytorch 0.0.1
            needs a transformers below 5.
    """
    if checkpoint is None:
        raise Unavailable("no checkpoint named, and scores of two checkpoints are not comparable")
    folder = _local_model(checkpoint)
    try:
        import torch
        from bleurt_pytorch import BleurtForSequenceClassification, BleurtTokenizer
    except Exception as error:
        raise Unavailable(
            f"needs bleurt-pytorch, which cannot be imported: {_first_line(error)}"
        ) from error
    model = BleurtForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = BleurtTokenizer.from_pretrained(folder)
    scores: list[float] = []
    for i in range(0, len(hypotheses), 64):
        batch = (list(references[i : i + 64]), list(hypotheses[i : i + 64]))
        inputs = tokenizer(*batch, padding="longest", truncation=True, return_tensors="pt")
        with torch.no_grad():
            scores += model(**inputs).logits.flatten().tolist()
    return scores


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
