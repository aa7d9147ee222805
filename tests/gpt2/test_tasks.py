"""The other tasks: files, exact strings, cuts, and that decoding starts where training did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import BPE, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from gpt2 import gen, run_generation, train_e2e
from gpt2.data import Format, TableToTextDataset
from gpt2.decoding import Search, decode_samples, no_prefix, output_text, sample
from gpt2.readers import Record
from gpt2.run_generation import score_outputs
from gpt2.tasks import TASKS, read_records
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError

E = "<|endoftext|>"
# Mode, its file, and every record's source and target as the original's readers give them.
FILES = {
    "writingPrompts": (
        "A story -lrb- short -rrb- , please .|||Once .<newline>The end .\nBe brief .|||No .\n",
        [
            ("A story ( short ) , please .", "Once .\nThe end ."),
            ("Be brief .", "No ."),
        ],
    ),
    "sentiment": (
        "positive|||A fine film .< br / >See it .\nnegative|||Bad ||| worse .\n",
        [("positive", "A fine film .\nSee it ."), ("negative", "Bad ||| worse .")],
    ),
    "topic": (
        "world||Peace talks begin .\nsports||A draw .\n",
        [("world", "Peace talks begin ."), ("sports", "A draw .")],
    ),
    "classify-sentiment": (
        "positive|||A fine film .< br / >See it .\nnegative|||Bad .\n",
        [("A fine film .\nSee it .", "positive"), ("Bad .", "negative")],
    ),
    "classify-topic": (
        "world||Peace talks begin .\nsports||A draw .\n",
        [("Peace talks begin .", "world"), ("A draw .", "sports")],
    ),
}
# The whole training string: spaces exactly as the original joins them.
STRINGS = {
    "writingPrompts": f" {{s}} {E} {{t}} {E}",
    "sentiment": f" {{s}}{E}{{t}}{E}",
    "topic": f" {{s}}{E}{{t}}{E}",
    "classify-sentiment": f" {{s}} {E} {{t}}{E}",
    "classify-topic": f" {{s}} {E} {{t}}{E}",
    "xsum": f"{{s}}{E}{{t}}{E}",
    "cnndm": f"{{s}}{E}{{t}}{E}",
}


def write(folder: Path, mode: str, name: str = "train") -> Path:
    """A data file of ``mode``."""
    if mode in FILES:
        path = folder / f"{name}.txt"
        path.write_text(FILES[mode][0], encoding="utf-8")
        return path
    path = folder / f"{name}.source"
    path.write_text("An article about tea .\nOne about rain .\n", encoding="utf-8")
    path.with_suffix(".target").write_text("Tea .\nIt rains .\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("mode", STRINGS)
def test_records_and_strings(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, mode: str) -> None:
    records = read_records(mode, write(tmp_path, mode), training=True)
    pairs = [(r.source, *r.targets) for r in records]
    summaries = [("An article about tea .", "Tea ."), ("One about rain .", "It rains .")]
    assert pairs == (FILES[mode][1] if mode in FILES else summaries)
    assert read_records(mode, tmp_path / records[0].where.split(",")[0], False) == records
    text_format = Format(tokenizer, layout=TASKS[mode].layout)
    prompts = text_format.encode_prompts([r.source for r in records])
    dataset = TableToTextDataset(records, text_format)
    for (source, target), example, prompt in zip(pairs, dataset, prompts, strict=True):
        joined = STRINGS[mode].format(s=source, t=target)
        assert example["input_ids"] == tokenizer(joined).input_ids
        assert example["input_ids"][: len(prompt)] == prompt
        assert example["labels"] == [-100] * len(prompt) + example["input_ids"][len(prompt) :]
        assert prompt[-1] == tokenizer.eos_token_id


def test_token_ids_of_gpt2() -> None:
    """GPT-2's own vocabulary: no token for a space where there is none in the string."""
    if not (BPE / "merges.txt").is_file():
        pytest.skip("GPT-2's vocabulary is not here: scripts/test.sh fetches it")
    tokenizer = GPT2Tokenizer.from_pretrained(BPE)
    cases = {
        "sentiment": ("positive", "Hi", [3967, 50256, 17250, 50256]),
        "classify-sentiment": ("Hi", "positive", [15902, 220, 50256, 3967, 50256]),
    }
    for mode, (source, target, ids) in cases.items():
        (example,) = TableToTextDataset(
            [Record(source, (target,), "")], Format(tokenizer, layout=TASKS[mode].layout)
        )
        assert example["input_ids"] == ids


# One line, no separator inside, something visible on it.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r|<>"), min_size=1).filter(
    lambda text: text.strip()
)


@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_lines_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for mode, separator in (("sentiment", "|||"), ("topic", "||"), ("writingPrompts", "|||")):
        path = folder / mode
        path.write_bytes("".join(f"{a}{separator}{b}\n" for a, b in pairs).encode())
        read = [(r.source, *r.targets) for r in read_records(mode, path, training=True)]
        brackets = [(a.replace("-lrb-", "(").replace("-rrb-", ")"), b) for a, b in pairs]
        assert read == (brackets if mode == "writingPrompts" else pairs)
    (folder / "a.source").write_bytes("".join(f"{a}\n" for a, _ in pairs).encode())
    (folder / "a.target").write_bytes("".join(f"{b}\n" for _, b in pairs).encode())
    read = [(r.source, *r.targets) for r in read_records("xsum", folder / "a.source", True)]
    assert read == [(a.strip(), b.strip()) for a, b in pairs]


@pytest.mark.parametrize(
    ("mode", "content", "message"),
    [
        ("writingPrompts", "a|||b\na||b\n", "line 2: no '|||' between"),
        ("sentiment", "a|||b\n|||b\n", "line 2: the text before '|||' is missing"),
        ("classify-topic", "a|| \n", "line 1: the text after '||' is missing"),
        ("topic", "\n", "the file has no records"),
    ],
)
def test_malformed_lines(tmp_path: Path, mode: str, content: str, message: str) -> None:
    (tmp_path / "f").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_records(mode, tmp_path / "f", training=True)
    assert message in str(caught.value)


def test_malformed_parallel_files(tmp_path: Path) -> None:
    source, target = tmp_path / "a.source", tmp_path / "a.target"
    source.write_text("x\ny\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.target: there is no such file"):
        read_records("xsum", source, training=True)
    target.write_text("x\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.source has 2 lines, .*a\.target 1"):
        read_records("xsum", source, training=True)
    target.write_text("x\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.target, line 2: the summary is missing"):
        read_records("cnndm", source, training=True)
    with pytest.raises(UserError, match=r"expected a file NAME\.source"):
        read_records("cnndm", target, training=True)


@pytest.mark.parametrize(
    ("mode", "n_target", "n_evaluated"), [("xsum", 60, 60), ("cnndm", 56, 142)]
)
def test_summaries_are_cut_at_token_ids(
    tokenizer: PreTrainedTokenizerFast, mode: str, n_target: int, n_evaluated: int
) -> None:
    article, summary = "pub area " * 700, "tea rain " * 200
    ids, wanted = tokenizer(article).input_ids, tokenizer(summary).input_ids
    assert len(ids) > 512
    assert len(wanted) > 142
    text_format, end = Format(tokenizer, layout=TASKS[mode].layout), tokenizer.eos_token_id
    record = Record(article, (summary,), "")
    for training, most in ((True, n_target), (False, n_evaluated)):
        (example,) = TableToTextDataset([record], text_format, training=training)
        assert example["input_ids"] == [*ids[:512], end, *wanted[:most], end]
    assert text_format.encode_prompts([article]) == [[*ids[:512], end]]


def test_what_does_not_fit_is_cut_or_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    story = Record("a", ("b c " * 200,), "here")
    (example,) = TableToTextDataset(
        [story], Format(tokenizer, layout=TASKS["writingPrompts"].layout), max_tokens=50
    )
    assert len(example["input_ids"]) == 50
    text = Record("b c " * 2000, ("positive",), "here")
    text_format = Format(tokenizer, layout=TASKS["classify-sentiment"].layout)
    (example,) = TableToTextDataset([text], text_format, max_tokens=1000)
    (prompt,) = text_format.encode_prompts([text.source])
    assert len(prompt) == 901
    label = tokenizer(f" positive{E}").input_ids
    assert example["input_ids"] == prompt + label
    with pytest.raises(UserError, match=r"here: .* but 50 fit"):
        TableToTextDataset([text], text_format, max_tokens=50)


# Whole runs.


def launch(base: Path, folder: Path, mode: str, *more: str) -> Path:
    files = [f"--{split}_file={write(folder, mode, split)}" for split in ("train", "eval", "test")]
    train_e2e.main(
        ["--mode", mode, *files, "--model_name_or_path", str(base), "--use_cpu"]
        + ["--output_dir", str(folder / "m"), "--results_dir", str(folder), "--preseqlen", "2"]
        + ["--report_to", "none", "--mid_dim", "8", "--bsz", "2", "--max_steps", "2", *more]
    )
    return folder / TASKS[mode].results


@pytest.mark.parametrize(
    ("mode", "suffix", "count"),
    [
        ("writingPrompts", "nucleus", 10),
        ("sentiment", "nucleus", 10),
        ("topic", "nucleus", 10),
        ("classify-sentiment", "greedy", 2),
        ("classify-topic", "greedy", 2),
        ("xsum", "beam", 2),
        ("cnndm", "beam", 2),
    ],
)
def test_train_and_decode(
    tiny_folder: Path, tmp_path: Path, mode: str, suffix: str, count: int
) -> None:
    """Every task with a prefix: prompts are those of training, and what can be scored is."""
    results = launch(tiny_folder, tmp_path, mode)
    outputs = (results / f"m_test_{suffix}").read_text("utf-8").split("\n")[:-1]
    assert len(outputs) == count
    assert all(outputs)
    records = read_records(mode, write(tmp_path, mode), training=False)
    gold = (results / "m_test_gold").read_text("utf-8").split("\n")[:-1]
    targets = [r.targets[0].replace("\n", " ") for r in records]
    if suffix == "nucleus":
        assert gold == [line for target in targets for line in (target, "")]
    else:
        assert gold == targets
    if suffix == "beam":
        assert not (results / "m_test_src").exists()
    else:
        prompts = (results / "m_test_src").read_text("utf-8").split("\n")[:-1]
        ends = [STRINGS[mode].split(E)[0].format(s=r.source) + E for r in records]
        assert prompts == [end.replace("\n", " ") for end in ends]
    scores = results / f"m_test_{suffix}_eval.json"
    wanted = {"greedy": "accuracy", "beam": "ROUGE-1"}.get(suffix)
    if wanted is None:
        assert not scores.exists()
    else:
        (row,) = json.loads(scores.read_text("utf-8")).values()
        assert row["values"][wanted] >= 0


def test_a_baseline_decodes_another_task(tiny_folder: Path, tmp_path: Path) -> None:
    more = ("--tuning_mode", "adaptertune", "--adapter_bottleneck", "2")
    results = launch(tiny_folder, tmp_path, "classify-topic", *more)
    assert len((results / "m_test_greedy").read_text("utf-8").split("\n")[:-1]) == 2


def test_classes_are_learnt(tiny_folder: Path, tmp_path: Path) -> None:
    """Two texts and two labels, by heart: all of the pipeline has to agree for accuracy 1."""
    more = ("--tuning_mode", "finetune", "--max_steps", "40", "--learning_rate", "0.01")
    results = launch(tiny_folder, tmp_path, "classify-sentiment", *more)
    scores = json.loads((results / "m_test_greedy_eval.json").read_text("utf-8"))
    assert scores["classify-sentiment"]["values"] == {"accuracy": 1.0}


def test_accuracy_and_rouge_by_hand() -> None:
    records = [Record(str(i), (label,), "") for i, label in enumerate(["pos", "neg ", "neg", "x"])]
    scores = score_outputs("classify-sentiment", records, ["pos", "neg", "pos", "x"])
    assert scores["classify-sentiment"]["accuracy"] == 0.75
    records = [Record("a", ("the cat sat",), ""), Record("b", ("one two",), "")]
    scores = score_outputs("xsum", records, ["the cat", "one two"])
    # Precision 1, recall 2/3: F 0.8; and 1.
    assert scores["ROUGE"]["ROUGE-1"] == pytest.approx(100 * (0.8 + 1) / 2)


# Sampling.


def draw(top_p: float, n: int) -> tuple[Sequence[int], torch.Tensor]:
    """First tokens drawn, and the model's distribution of them (behind a prefix)."""
    model = enable_prefix(tiny_model("gpt2"))
    torch.manual_seed(3)
    prefix = KeyValues([torch.randn(2, 1, 4, 2, 8) for _ in range(3)])
    prompt = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model(prompt, prefix=prefix).logits[0, -1]
        ids = model.generate(
            prompt,
            prefix=prefix,
            do_sample=True,
            top_p=top_p,
            top_k=0,
            max_new_tokens=1,
            num_return_sequences=n,
            eos_token_id=1,
            pad_token_id=1,
        )
    return ids[:, 3].tolist(), logits.softmax(-1)


def test_sampling_stays_in_the_nucleus_of_the_model_with_its_prefix() -> None:
    drawn, probabilities = draw(0.8, 500)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    nucleus = set(order[before < 0.8].tolist())
    assert 1 < len(nucleus) < 40
    assert set(drawn) <= nucleus
    mass = sum(probabilities[i] for i in nucleus)
    for token in nucleus:
        expected = probabilities[token].item() / mass.item()
        assert drawn.count(token) / 500 == pytest.approx(expected, abs=0.09)


def test_samples_depend_on_seed_and_prompt_alone(
    tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    from harness.models import load_causal_lm

    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    prompts = tokenizer([f" positive{E}", f" negative{E}", f" other{E}"]).input_ids
    search = Search(n_sample=3, max_new_tokens=6, seed=1)
    what = (model, tokenizer, no_prefix(model), prompts, search)
    texts = dict(decode_samples(*what))
    assert sorted(texts) == list(range(9))
    assert len(set(texts.values())) > 5
    # What a stopped run has still to do: nothing of the first prompt, the rest of the second.
    assert dict(decode_samples(*what, skip=[0, 1, 2, 4])) == {i: texts[i] for i in range(3, 9)}
    other = sample(*what[:3], prompts[0], Search(n_sample=3, max_new_tokens=6, seed=2), 0)
    assert other != [texts[i] for i in range(3)]
    assert output_text(tokenizer, prompts[0], []) == "Error"


def test_the_search_is_a_choice(tiny_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "topic")
    base = ["--model_name_or_path", str(tiny_folder), "--data_file", str(path), "--no_cuda"]
    base += ["--gen_dir", str(tmp_path), "--length", "3", "--task_mode", "topic", "--no_score"]
    for flags, suffix, count in (
        ("--num_return_sequences 2", "nucleus", 4),
        ("--search beam", "beam", 2),
        ("--num_beams 2", "beam", 2),
        ("--search greedy", "greedy", 2),
        ("--num_beams 1", "greedy", 2),
    ):
        run_generation.main([*base, *flags.split()])
        path = tmp_path / f"tiny-gpt2_valid_{suffix}"
        assert len(path.read_text("utf-8").split("\n")[:-1]) == count
        path.unlink()
    for flags, message in (
        ("--search nucleus --num_beams 3", "--num_beams 3: --search nucleus has no beams"),
        ("--top_p 0", "--top_p 0"),
        ("--search beam --top_p 0.5", "--top_p 0.5: only with --search nucleus, not with beam"),
        ("--search greedy --num_return_sequences 2", "--num_return_sequences 2: only with"),
        ("--search greedy --length_penalty 2", "--length_penalty 2.0: only with --search beam"),
        ("--num_return_sequences 0", "--num_return_sequences 0"),
    ):
        with pytest.raises(UserError, match=message):
            run_generation.main([*base, *flags.split()])


def test_a_task_without_a_test_file_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="writingPrompts has no test file: name --data_file"):
        gen.main(["writingPrompts", "yes", "test", str(tiny_folder), "no"])
