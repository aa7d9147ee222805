"""Decoding: the original's folders and texts, exports, stopped decodes, contradictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import load_vectors, part, vector_cases
from rouge_score.rouge_scorer import RougeScorer
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from harness.lock import locked
from prefix_tuning.errors import UserError
from seq2seq import finetune, predict, train_bart

SHORT = ["--eval_beams", "2", "--eval_min_gen_length", "2", "--eval_max_gen_length", "8"]
SHORT += ["--accelerator", "cpu"]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture(scope="module")
def trained(bart_folder: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained for two steps and decoded its best checkpoint."""
    output = tmp_path_factory.mktemp("run") / "m"
    flags = f"--do_train --do_predict --model_name_or_path {bart_folder} --data_dir {pairs}"
    flags += f" --output_dir {output} --preseqlen 3 --mid_dim 8 --max_steps 2 --num_workers 0"
    flags += " --logger_name none --max_source_length 24 --learning_rate 0.1"
    finetune.main([*flags.split(), *SHORT])
    return output


def decode(data: Path, *more: str) -> None:
    """Decode, replacing what another test has decoded."""
    decode_beside(data, "--overwrite_results", *more)


def decode_beside(data: Path, *more: str) -> None:
    finetune.main(["--do_predict", "--data_dir", str(data), *SHORT, *map(str, more)])


@pytest.mark.parametrize("name", vector_cases("bart_"))
def test_a_folder_of_the_original_decodes_to_its_texts(
    name: str, bart_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    case, tensors = load_vectors(f"bart_{name}")
    ours = ("preseqlen", "mid_dim", "use_deep")
    base = BartConfig(**{k: v for k, v in case["config"].items() if k not in ours})
    model = BartForConditionalGeneration(base)
    model.load_state_dict(part(tensors, "base."))
    model.save_pretrained(tmp_path / "base")
    bart_tokenizer.save_pretrained(tmp_path / "base")
    folder = tmp_path / "checkpointepoch=29.ckpt"
    folder.mkdir()
    torch.save(part(tensors, "prefix."), folder / "pytorch_model.bin")
    config = {**base.to_dict(), **{key: case["config"][key] for key in ours}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def text(ids: list[int]) -> str:
        return bart_tokenizer.decode(ids, skip_special_tokens=True)

    def real(ids: list[int]) -> list[int]:
        return [token for token in ids if token != bart_tokenizer.pad_token_id]

    inputs = case["generation_batches"][0]["input_ids"]
    said = [i for i, ids in enumerate(inputs) if bart_tokenizer(text(ids)).input_ids == real(ids)]
    if not said:
        pytest.skip("no source is a text of this tokenizer")
    sources = [text(inputs[i]) for i in said]
    (tmp_path / "test.source").write_text("".join(f"{s}\n" for s in sources), encoding="utf-8")
    compared = 0
    for run in case["generation"]:
        if run["batch"] or run["num_beams"] == 1 or not run["early_stopping"]:
            continue
        flags = ["--do_predict", "--data_dir", str(tmp_path), "--accelerator", "cpu"]
        flags += ["--overwrite_results"]
        flags += ["--model_name_or_path", str(tmp_path / "base"), "--max_source_length", "40"]
        # A slash at the end, which put the original's outputs elsewhere.
        flags += ["--prefixModel_name_or_path", f"{folder}/"]
        for flag, key in {
            "eval_beams": "num_beams",
            "length_penalty": "length_penalty",
            "eval_min_gen_length": "min_length",
            "eval_max_gen_length": "max_length",
            "no_repeat_ngram_size": "no_repeat_ngram_size",
        }.items():
            flags += [f"--{flag}", str(run[key])]
        finetune.main(flags)
        found = lines(folder / f"test_beam_{run['length_penalty']}")
        assert found == [text(run["output"][i]) for i in said]
        compared += 1
    assert compared


def test_training_and_decoding_in_one_go(trained: Path, pairs: Path) -> None:
    best = trained / "checkpoint-curr_best"
    assert len(lines(best / "test_beam_0.8")) == 5
    document = json.loads((best / "test_beam_0.8_eval.json").read_text(encoding="utf-8"))
    assert set(document["scores"]) == {"rouge1", "rouge2", "rougeL"}
    assert document["search"]["num_beams"] == 2
    assert not list(best.glob("*.partial"))


def test_the_export_and_any_batch_size_decode_to_the_same(trained: Path, pairs: Path) -> None:
    wanted = lines(trained / "checkpoint-curr_best" / "test_beam_0.8")
    for folder, size in ((trained, 1), (trained, 3), (trained / "export", 16)):
        decode(pairs, "--prefixModel_name_or_path", folder, "--decode_batch_size", str(size))
        assert lines(folder / "test_beam_0.8") == wanted
    assert len(set(wanted)) > 1


def test_both_splits(trained: Path, pairs: Path, tmp_path: Path) -> None:
    """Each set is decoded as it is alone, and scored against its own references."""
    texts = {kind: lines(pairs / f"test.{kind}") for kind in ("source", "target")}
    for split, chosen in (("test", slice(0, 2)), ("val", slice(2, 5))):
        for kind, of_kind in texts.items():
            text = "".join(f"{line}\n" for line in of_kind[chosen])
            (tmp_path / f"{split}.{kind}").write_text(text, encoding="utf-8")
    alone = lines(trained / "checkpoint-curr_best" / "test_beam_0.8")
    flags = ("--prefixModel_name_or_path", trained, "--limit", "2")
    decode(tmp_path, *flags, "--predict_splits", "val, test")
    for split, wanted in (("val", alone[2:4]), ("test", alone[:2])):
        targets = lines(tmp_path / f"{split}.target")[:2]
        found = lines(trained / f"{split}_beam_0.8")
        assert found == wanted
        path = trained / f"{split}_beam_0.8_eval.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        assert document["n_text"] == len(found) == 2
        assert document["scores"] == pytest.approx(rouge_of(targets, found))
    with pytest.raises(UserError, match="--predict_splits train: give one or more of test,val"):
        decode(tmp_path, *flags, "--predict_splits", "train")


def test_one_file_is_one_split(trained: Path, pairs: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    text = (pairs / "test.source").read_text(encoding="utf-8").split("\n")[0]
    data.write_text(json.dumps({"source": text, "target": text}), encoding="utf-8")
    flags = ("--prefixModel_name_or_path", trained, "--predict_splits")
    with pytest.raises(UserError, match=r"test.jsonl is one file and would be both"):
        decode(data, *flags, "test,val")
    decode(data, *flags, "val")


def test_the_launcher_decodes_as_the_checkpoint_was_trained(
    trained: Path, pairs: Path, tmp_path: Path
) -> None:
    """With its base model and its 24 tokens of a source."""
    wanted = lines(trained / "checkpoint-curr_best" / "test_beam_0.8")
    folder = shutil.copytree(trained, tmp_path / "run")
    flags = f"--mode xsum --do_train no --prefix_model_path {folder} --data_dir {pairs}"
    train_bart.main([*flags.split(), *SHORT, "--overwrite_results"])
    assert lines(folder / "test_beam_0.8") == wanted


def test_a_stopped_decode_starts_again_where_its_data_changed(
    trained: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = lines(trained / "checkpoint-curr_best" / "test_beam_0.8")
    flags = ("--prefixModel_name_or_path", trained)
    data, sources = tmp_path / "test.source", lines(pairs / "test.source")
    data.write_text("".join(f"{source}\n" for source in reversed(sources)), encoding="utf-8")

    def stop(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            decode(tmp_path, *flags)
    data.write_text("".join(f"{source}\n" for source in sources), encoding="utf-8")
    decode(tmp_path, *flags)
    assert lines(trained / "test_beam_0.8") == wanted


def rouge_of(targets: list[str], found: list[str]) -> dict[str, float]:
    """rouge-score's F1 by itself."""
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)
    pairs = [scorer.score(t, p) for t, p in zip(targets, found, strict=True)]
    return {n: 100 * sum(pair[n].fmeasure for pair in pairs) / len(pairs) for n in names}


def test_a_stopped_decode_goes_on(
    trained: Path,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = lines(trained / "checkpoint-curr_best" / "test_beam_0.8")
    flags = ("--prefixModel_name_or_path", trained, "--decode_batch_size", "2")
    batches: list[Any] = []
    original = predict.Decoder.decode_batch

    def stop_after_one(self: Any, batch: Any) -> list[str]:
        if batches:
            raise KeyboardInterrupt
        batches.append(batch)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(predict.Decoder, "decode_batch", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            decode(pairs, *flags)
    partial = trained / "test_beam_0.8.partial"
    with partial.open("a", encoding="utf-8") as file:
        file.write('[0, "half a li')  # as a kill in the middle of a write leaves it
    stopped = partial.read_bytes()
    decode(pairs, *flags)
    assert "going on after 2 of 5" in capsys.readouterr().out
    assert lines(trained / "test_beam_0.8") == wanted
    assert not partial.exists()
    for other in (("--no_repeat_ngram_size", "1"), ("--max_source_length", "12"), ("--bf16",)):
        partial.write_bytes(stopped)
        decode(pairs, *flags, "--overwrite_results", *other)
        assert "going on" not in capsys.readouterr().out, other  # other texts would come of it
        assert not partial.exists()


def test_equal_sources_are_decoded_once_and_files_need_no_references(
    trained: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = lines(pairs / "test.source")
    rows = [sources[0], sources[1], sources[0]]
    text = "".join(json.dumps({"source": row}) + "\n" for row in rows)
    (tmp_path / "test.jsonl").write_text(text, encoding="utf-8")
    decode(tmp_path / "test.jsonl", "--prefixModel_name_or_path", trained)
    one, two, again = lines(trained / "test_beam_0.8")
    assert (one, two) == tuple(lines(trained / "checkpoint-curr_best" / "test_beam_0.8")[:2])
    assert again == one
    assert "not scored" in capsys.readouterr().out
    decode(pairs, "--prefixModel_name_or_path", trained, "--limit", "2")
    assert lines(trained / "test_beam_0.8") == [one, two]


def test_what_is_decoded_otherwise_says_so_and_overwrites_nothing(
    trained: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained / "export", tmp_path / "copy")
    prefix = ("--prefixModel_name_or_path", folder)
    decode_beside(pairs, *prefix)
    in_use = pytest.raises(UserError, match=r"copy/test_beam_0\.8 is in use by process")
    with locked(folder, "test_beam_0.8"), in_use:
        decode_beside(pairs, *prefix)
    whole = (folder / "test_beam_0.8").read_bytes()
    decode_beside(pairs, *prefix, "--decode_batch_size", "2")
    assert {path.name for path in folder.glob("test*_beam_*")} == {
        "test_beam_0.8",
        "test_beam_0.8_eval.json",
    }
    for number, more in enumerate((("--limit", "2"), ("--eval_beams", "1")), start=2):
        decode_beside(pairs, *prefix, *more)
        said = f"holds texts of other weights, data or search: these go to {folder}/test-{number}_"
        assert said in capsys.readouterr().out
        assert (folder / f"test-{number}_beam_0.8_eval.json").is_file()
    assert len(lines(folder / "test-2_beam_0.8")) == 2
    assert (folder / "test_beam_0.8").read_bytes() == whole
    assert "was trained for" not in capsys.readouterr().out
    translate = ("--limit", "2", "--task_mode", "translation")
    decode_beside(pairs, *prefix, *translate, "--overwrite_results")
    assert "copy was trained for summarization, and is decoded as tr" in capsys.readouterr().out
    assert len(lines(folder / "test_beam_0.8")) == 2


def test_a_fine_tuned_folder(bart_folder: Path, pairs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bart_folder, tmp_path / "tuned")
    more = ("--max_source_length", "24", "--bf16")
    decode(pairs, "--tuning_mode", "finetune", "--model_name_or_path", folder, *more)
    assert len(lines(folder / "test_beam_0.8")) == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--preseqlen 4", "was trained with --preseqlen 3, not 4"),
        ("--mid_dim 16", "was trained with --mid_dim 8, not 16"),
        ("--use_deep yes", "was trained with --use_deep no, not yes"),
        ("--prefix_sites self", "was trained with --prefix_sites self,encoder,encoder_decoder"),
    ],
)
def test_flags_must_not_contradict_the_checkpoint(
    trained: Path, pairs: Path, flags: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        decode(pairs, "--prefixModel_name_or_path", trained, *flags.split())
    agreeing = "--preseqlen 3 --mid_dim 8 --use_deep no --prefix_sites encoder_decoder,encoder,self"
    decode(pairs, "--prefixModel_name_or_path", trained, "--limit", "1", *agreeing.split())


def test_mistakes_of_decoding(
    trained: Path, bart_folder: Path, other_base: Path, pairs: Path, tmp_path: Path
) -> None:
    prefix = ("--prefixModel_name_or_path", trained)
    cases = [
        ("--prefixModel_name_or_path is missing", ("--model_name_or_path", bart_folder)),
        ("there is no such folder", ("--prefixModel_name_or_path", tmp_path / "gone")),
        ("holds no prefix", ("--prefixModel_name_or_path", tmp_path)),
        ("--model_name_or_path is missing", ("--tuning_mode", "finetune")),
        ("belongs to", (*prefix, "--model_name_or_path", other_base)),
        ("exclude each other", (*prefix, "--fp16", "--bf16")),
        ("--fp16 needs a GPU", (*prefix, "--fp16")),
        ("--eval_max_gen_length 151", (*prefix, "--eval_max_gen_length", "151")),
    ]
    for message, flags in cases:
        with pytest.raises(UserError, match=message):
            decode(pairs, *flags)
    sent = shutil.copytree(trained / "export", tmp_path / "sent")  # by somebody else
    meta = json.loads((sent / "prefix.json").read_text(encoding="utf-8"))
    meta["base_model"]["name_or_path"] = "somebody/model"
    (sent / "prefix.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(UserError, match=r"does not decide .* give --model_name_or_path somebody/m"):
        decode(pairs, "--prefixModel_name_or_path", sent)
    with pytest.raises(UserError, match="holds none of"):
        decode(tmp_path, *prefix)
    weights = other_base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])  # a copy that was interrupted
    with pytest.raises(UserError, match="other: this folder cannot be loaded"):
        decode(pairs, "--tuning_mode", "finetune", "--model_name_or_path", other_base)


@pytest.fixture
def other_base(bart_folder: Path, tmp_path: Path) -> Path:
    """The base model with other weights."""
    folder = shutil.copytree(bart_folder, tmp_path / "other")
    model = BartForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(folder)
    return folder
