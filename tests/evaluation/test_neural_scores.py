"""BERTScore with a tiny model against official numbers; what is said where a model is missing."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from conftest import official_files

from evaluation import neural
from evaluation.report import Unavailable


@pytest.mark.parametrize("name", official_files("bertscore_tiny"))
def test_official_bertscore(vectors, shared, name):
    pytest.importorskip("bert_score")
    file = vectors(name)
    model = str(shared / "vectors/metrics/tiny_bert")
    for run in file["runs"]:
        if not run["idf"]:
            f1 = neural.bertscore(file["refs"], file["hyps"], model, run["num_layers"])
            assert f1 == pytest.approx(run["F"], abs=1e-5)


def test_a_model_that_is_not_here(monkeypatch):
    pytest.importorskip("bert_score")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match="no/such-model, which is not on this machine"):
        neural.bertscore([["a"]], ["a"], "no/such-model", 1)


def test_packages_that_are_not_here(monkeypatch, tmp_path):
    for package in ("bert_score", "moverscore_v2", "bleurt_pytorch"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unavailable, match="pip install bert-score"):
        neural.bertscore([["a"]], ["a"], str(tmp_path), 1)
    with pytest.raises(Unavailable, match=r"needs moverscore 1\.0\.3"):
        neural.moverscore(["a"], ["a"])
    with pytest.raises(Unavailable, match="needs bleurt-pytorch"):
        neural.bleurt(["a"], ["a"], str(tmp_path))
    with pytest.raises(Unavailable, match="no checkpoint named"):
        neural.bleurt(["a"], ["a"], None)


def test_bertscore_is_of_the_layer_and_length_of_its_model(monkeypatch, tmp_path):
    package, made = types.ModuleType("bert_score"), []
    limits = iter((10**30, 77))

    class Scorer:
        def __init__(self, **options):
            made.append((options, self))
            self._tokenizer = types.SimpleNamespace(model_max_length=next(limits))

        def score(self, hypotheses, references):
            return torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])

    package.BERTScorer = Scorer
    monkeypatch.setitem(sys.modules, "bert_score", package)
    for found in (512, 77):
        assert neural.bertscore([["a"]], ["b"], str(tmp_path), 5) == [3.0]
        options, scorer = made.pop()
        assert options == {"model_type": str(tmp_path), "num_layers": 5}
        assert scorer._tokenizer.model_max_length == found


def test_bleurt_scores_every_text_of_every_batch(monkeypatch, tmp_path):
    package = types.ModuleType("bleurt_pytorch")

    class Model(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, folder):
            return cls()

        def forward(self, lengths):
            assert not self.training
            assert not torch.is_grad_enabled()
            return types.SimpleNamespace(logits=lengths.unsqueeze(1))

    class Tokenizer:
        @classmethod
        def from_pretrained(cls, folder):
            return cls()

        def __call__(self, references, hypotheses, **options):
            assert options == {"padding": "longest", "truncation": True, "return_tensors": "pt"}
            assert len(references) <= 64
            pairs = zip(references, hypotheses, strict=True)
            return {"lengths": torch.tensor([10.0 * len(r) + len(h) for r, h in pairs])}

    package.BleurtForSequenceClassification, package.BleurtTokenizer = Model, Tokenizer
    monkeypatch.setitem(sys.modules, "bleurt_pytorch", package)
    references, hypotheses = ["a" * i for i in range(130)], ["b" * (i % 3) for i in range(130)]
    expected = [10.0 * i + i % 3 for i in range(130)]
    assert neural.bleurt(references, hypotheses, str(tmp_path)) == expected


def test_moverscore_is_called_as_its_authors_do(monkeypatch):
    package = types.ModuleType("moverscore_v2")
    package.get_idf_dict = lambda texts: {"of": list(texts)}

    def word_mover_score(refs, hyps, idf_ref, idf_hyp, stop_words, n_gram):
        assert (idf_ref["of"], idf_hyp["of"]) == (refs, hyps)
        assert (stop_words, n_gram) == ([], 1)
        return [0.5] * len(hyps)

    package.word_mover_score = word_mover_score
    monkeypatch.setitem(sys.modules, "moverscore_v2", package)
    assert neural.moverscore(["a", "b"], ["c", "d"]) == [0.5, 0.5]
