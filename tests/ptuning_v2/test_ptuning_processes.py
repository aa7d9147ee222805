"""Two processes on the CPU train, evaluate and predict what one does; one of them writes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from conftest import ROOT
from processes import losses, run
from torch.testing import assert_close
from transformers import BertConfig, BertModel, BertTokenizer

from ptuning_v2.run import main

SENTENCES = ["a cat sat", "the dog sat on the mat", "who was the cat", "dog does play", "a mat"]


def test_two_processes_train_and_predict_as_one(
    bert_tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    # Two processes draw two dropouts: there is none here.
    sizes |= {"intermediate_size": 16, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(bert_tokenizer), **sizes)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "bert")
    bert_tokenizer.save_pretrained(tmp_path / "bert")
    data = tmp_path / "sst2"
    data.mkdir()
    rows = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate((SENTENCES * 3)[:13]))
    # 13 rows: an epoch ends with one, which the first process has.
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    numbered = "".join(f"{number}\t{text}\n" for number, text in enumerate(SENTENCES))
    (data / "test.tsv").write_text(f"index\tsentence\n{numbered}", encoding="utf-8")
    flags = (
        f"--model_name_or_path {tmp_path / 'bert'} --task_name glue --dataset_name sst2 --prefix "
        f"--data_dir {data} --do_train --do_eval --do_predict --pre_seq_len 2 "
        "--hidden_dropout_prob 0 --max_steps 6 --logging_steps 1 --learning_rate 0.01 "
        "--max_seq_length 16 --eval_strategy epoch --use_cpu --report_to none"
    ).split()
    found = [tmp_path / "one", tmp_path / "two"]
    alone, together = (
        [*flags, "--output_dir", str(f), "--per_device_train_batch_size", batch]
        for f, batch in zip(found, ("4", "2"), strict=True)
    )
    main(alone)
    run(ROOT / "ptuning_v2" / "run.py", together, tmp_path, 2)
    assert_close(*(losses(f / "trainer_state.json") for f in found), atol=1e-5, rtol=1e-5)
    best = [json.loads((f / "best_results.json").read_text(encoding="utf-8")) for f in found]
    assert best[0] == best[1]
    names = [sorted(p.name for p in f.glob("*.tsv")) for f in found]
    assert names[0] == names[1] != []
    for name in names[0]:
        assert (found[0] / name).read_bytes() == (found[1] / name).read_bytes()
