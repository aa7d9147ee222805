"""Real texts and a real pretrained BART through the whole machinery; skipped where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from experiments import pronunciation, spec
from experiments.toy_models import tiny_bart, word_tokenizer
from seq2seq import train_bart
from seq2seq.data import read_split


def test_xsums_pairs_from_training_to_scores(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "xsum" / "xsum_test_500.csv"
    records = read_split(data, "test", training=True)
    tokenizer = word_tokenizer(f"{r.source} {r.target}" for r in records)
    tiny_bart(len(tokenizer), layers=1, width=16).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run = tmp_path / "run"
    common = ["--mode", "xsum", "--model_name_or_path", str(tmp_path / "base"), "--data_dir"]
    common += [str(data), "--max_source_length", "128", "--num_workers", "0", "--output_dir"]
    train_bart.main(
        [*common, str(run), "--preseqlen", "3", "--mid_dim", "8", "--max_steps", "3", "--bsz", "4"]
        + ["--n_val", "20", "--eval_beams", "2", "--logger_name", "none"]
    )
    (validation,) = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["val"]
    assert 0 <= validation["val_avg_rouge1"] <= 100
    best = run / "checkpoint-curr_best"
    decode = ["--do_train", "no", "--prefix_model_path", str(best), "--eval_beams", "1"]
    train_bart.main(
        [*common, str(tmp_path / "d"), *decode, "--decode_batch_size", "100"]
        + ["--eval_max_gen_length", "20"]
    )
    outputs = (best / "test_beam_0.8").read_text(encoding="utf-8").splitlines()
    assert len(outputs) == 500
    found = json.loads((best / "test_beam_0.8_eval.json").read_text(encoding="utf-8"))["scores"]
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    scores = [
        scorer.score(r.target, text)["rouge1"].fmeasure
        for r, text in zip(records, outputs, strict=True)
    ]
    assert found["rouge1"] == pytest.approx(100 * sum(scores) / 500, abs=0.01)


def test_a_real_frozen_bart_learns_british(shared: Path, tmp_path: Path) -> None:
    # A tenth of the table's steps; at its end the share is about 37 %.
    pronunciation.main([str(shared / "data" / "bart_g2p"), "--out", str(tmp_path)])
    model = str(tmp_path / pronunciation.MODEL)
    table = spec.read("small_bart")
    lengths = {name: 40 for name in table.common if name.endswith("_length")}
    common = {"mode": "translation", "data_dir": str(tmp_path), "model_name_or_path": model}
    common |= {**lengths, **table.decoding, "eval_beams": 1, "n_test": 500}
    frozen = {"do_train": "no", "tuning_mode": "finetune", "finetune_model_path": model}
    train_bart.start(*train_bart.read([], {**common, **frozen}))
    (all_three,) = (row for row in table.rows if row.name == "all-three")
    flags = {**table.common, **all_three.flags, **common, "do_predict": True}
    flags |= {"max_steps": 150, "output_dir": str(tmp_path / "run"), "num_workers": 0}
    train_bart.start(*train_bart.read([], flags))
    references = (tmp_path / "test.target").read_text(encoding="utf-8").splitlines()[:500]

    def exact(folder: Path) -> float:
        outputs = (folder / "test_beam_1.0").read_text(encoding="utf-8").splitlines()
        share = 100 * sum(a == b for a, b in zip(references, outputs, strict=True)) / 500
        document = json.loads((folder / "test_beam_1.0_eval.json").read_text(encoding="utf-8"))
        assert document["scores"]["exact"] == pytest.approx(share)
        return share

    before = exact(Path(model))
    assert 15 < before < 24
    assert exact(tmp_path / "run" / "checkpoint-curr_best") > before + 2
