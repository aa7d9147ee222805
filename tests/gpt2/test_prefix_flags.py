"""Whole runs with every variant and every start on a tiny model, and flags that make no sense."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    BPE,
    ROOT,
    case_of,
    load_vectors,
    part,
    tiny_model,
    vector_cases,
)
from low_rank import LowRankPrefix
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Tokenizer, TrainingArguments

from gpt2 import gen, train_e2e, training
from gpt2.data import collate, collate_infix
from gpt2.decoding import Search, decode, decode_batch, decode_samples
from gpt2.train_control import PrefixEmbTuning, PrefixTuning
from gpt2.train_request import parse
from gpt2.trainer_prefix import TableToTextTrainer, Trainer_Prefix
from harness.models import load_causal_lm, load_tokenizer
from prefix_tuning import checkpoint
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError
from prefix_tuning.initialization import activations
from prefix_tuning.parametrizations import (
    PARAMETRIZATIONS,
    EmbeddingPrefix,
    FlatPrefix,
    InfixPrefix,
    MLPPrefix,
)
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape
from scripts.verify import gpt2_numbers

DATA = ROOT / "data" / "restaurants"


def run(base: Path, output: Path, flags: str, **paths: str) -> Path:
    """Train two steps and decode two texts."""
    data = output.parent / "data.txt"
    lines = (DATA / "src1_train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    data.write_text("".join(lines[:6]), encoding="utf-8")
    arguments = [f"--model_name_or_path={base}", f"--output_dir={output}", f"--train_file={data}"]
    arguments += [f"--eval_file={data}", f"--test_file={data}", f"--results_dir={output.parent}"]
    arguments += [f"--{name}={value}" for name, value in paths.items()]
    common = "--bsz 3 --max_steps 2 --learning_rate 0.01 --use_cpu --report_to none"
    if not any(name in flags for name in ("init_shallow", "parametrize_emb Emb", "low_rank")):
        common += " --mid_dim 8"
    train_e2e.main(
        [*arguments, *common.split(), *"--generate no --score no".split(), *flags.split()]
    )
    return output


def decoded(checkpoint_folder: Path, results: Path) -> str:
    data = str(results.parent / "data.txt")
    gen.main(
        ["data2text", "yes", "test", str(checkpoint_folder), "no", "--length", "6", "--no_score"]
        + ["--data_file", data, "--results_dir", str(results), "--no_cuda"]
    )
    return (results / f"e2e_results_conv2/{checkpoint_folder.name}_test_beam").read_text("utf-8")


@pytest.mark.parametrize(
    ("flags", "kind", "trained"),
    [
        ("--preseqlen 3 --deep yes", MLPPrefix, "control_trans.4.weight"),
        ("--preseqlen 3 --init_shallow yes --init_shallow_word no", FlatPrefix, "control_trans"),
        (
            "--preseqlen 3 --prefix_mode embedding --use_dropout yes --gradient_checkpointing",
            EmbeddingPrefix,
            "control_trans.2.weight",
        ),
        (
            "--preseqlen 3 --prefix_mode embedding --parametrize_emb Emb",
            EmbeddingPrefix,
            "wte.weight",
        ),
        ("--preseqlen 3 --format_mode infix --dropout 0.1", InfixPrefix, "wte2.weight"),
        ("--preseqlen 3 --parametrization infix --deep no", InfixPrefix, "wte2.weight"),
        ("--preseqlen 3 --format_mode infix --deep yes", InfixPrefix, "control_trans.4.weight"),
        ("--preseqlen 3 --format_mode infix --tuning_mode bothtune", InfixPrefix, "wte2.weight"),
        ("--preseqlen 3 --init zero --tuning_mode bothtune", MLPPrefix, "wte.weight"),
    ],
)
def test_every_variant_trains_exports_and_decodes(
    tiny_folder: Path,
    tmp_path: Path,
    flags: str,
    kind: type[Prefix],
    trained: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run(tiny_folder, tmp_path / "m", flags)
    assert f"gpt2/gen.py {folder} --prompt" in capsys.readouterr().out
    prefix, meta = checkpoint.load(folder)
    assert type(prefix) is kind
    assert trained in prefix.state_dict()
    texts = decoded(folder, tmp_path / "a")
    assert texts.count("\n") == len({line.split("||")[0] for line in _lines(tmp_path)})
    if kind is InfixPrefix or "bothtune" in flags:
        assert not (folder / "export").exists()
        gen.main([str(folder), "--prompt", _lines(tmp_path)[0].split("||")[0], "--length", "6"])
        assert capsys.readouterr().out.splitlines()[-1] in texts
        return
    assert meta["options"]["length"] == 3
    assert decoded(folder / "export", tmp_path / "b") == texts


def _lines(folder: Path) -> list[str]:
    return (folder / "data.txt").read_text(encoding="utf-8").splitlines()


def test_an_interrupted_infix_goes_on_to_the_same_weights(
    tiny_folder: Path, tmp_path: Path
) -> None:
    flags = "--preseqlen 3 --format_mode infix --save_steps 1 --save_total_limit 5"
    whole = run(tiny_folder, tmp_path / "m", flags)
    expected = load_file(whole / "model.safetensors")
    (whole / "log_history.json").unlink()
    (whole / "checkpoint-2/trainer_state.json").unlink()
    run(tiny_folder, whole, flags)
    for name, value in load_file(whole / "model.safetensors").items():
        assert torch.equal(value, expected[name]), name


def test_a_parametrisation_of_ones_own_is_a_class_and_a_row(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARAMETRIZATIONS, "low_rank", LowRankPrefix)
    flags = "--preseqlen 3 --parametrization low_rank --prefix_options rank=2,scale=0.5"
    folder = run(tiny_folder, tmp_path / "m", flags)
    prefix, meta = checkpoint.load(folder)
    assert type(prefix) is LowRankPrefix
    assert (meta["options"]["rank"], meta["options"]["scale"]) == (2, 0.5)
    assert torch.equal(prefix.slots(), 0.5 * prefix.left @ prefix.right)
    assert decoded(folder, tmp_path / "a") == decoded(folder / "export", tmp_path / "b")


def test_options_of_another_parametrisation_are_refused(tmp_path: Path) -> None:
    for flags, message in (
        (
            "--prefix_options rank=2",
            "rank: not of the parametrisation mlp; its options are mid_dim",
        ),
        ("--parametrization flat --prefix_options rank=2", "flat; it has no options"),
        ("--prefix_options mid_dim=wide", "mid_dim=wide: write a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "base", tmp_path / "m", flags)


# What a prefix starts from.


def start_table(folder: Path) -> Tensor:
    """Slots ``[P, 2LHd]`` of an export."""
    table = load_file(folder / "export/prefix.safetensors")["past_key_values"]
    return table.permute(3, 0, 1, 2, 4).flatten(1)


def words_table(base: Path, text: str) -> Tensor:
    model = enable_prefix(load_causal_lm(str(base)))
    ids = load_tokenizer(str(base))(text, return_tensors="pt").input_ids
    return activations(model, ids)["self"]


NO_STEP = " --learning_rate 1e-30 --max_steps 1"


def test_init_shallow_word_replaces_preseqlen(tiny_folder: Path, tmp_path: Path) -> None:
    flags = "--preseqlen 50 --init_shallow yes --init_shallow_word cheap" + NO_STEP
    found = start_table(run(tiny_folder, tmp_path / "m", flags))
    assert torch.allclose(found, words_table(tiny_folder, " cheap"), atol=1e-5)


@pytest.mark.parametrize("length", [None, 2, 9])
def test_a_text_decides_the_length_unless_preseqlen_does(
    tiny_folder: Path, tmp_path: Path, length: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("\ufeffDescribe it.\n", encoding="utf-8")  # with its mark
    flags = "--init text --init_shallow yes" + NO_STEP
    flags += f" --preseqlen {length}" if length else ""
    folder = run(tiny_folder, tmp_path / "m", flags, init_file=str(tmp_path / "text.txt"))
    table = words_table(tiny_folder, " Describe it.")
    n_slot = length or len(table)
    expected = table.repeat(9, 1)[:n_slot]
    assert torch.allclose(start_table(folder), expected, atol=1e-5)
    assert f"{n_slot} slots starts from a text of {len(table)} tokens" in capsys.readouterr().out


def test_an_mlp_is_fitted_once_and_never_at_load(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {"init_text": "Describe it."}
    fitted = run(tiny_folder, tmp_path / "m", "--init text --save_steps 1" + NO_STEP, **text)
    random = run(tiny_folder, tmp_path / "r", f"--preseqlen {len(start_table(fitted))}" + NO_STEP)
    target = words_table(tiny_folder, " Describe it.")
    near, far = ((start_table(f) - target).square().mean() for f in (fitted, random))
    assert near < 0.9 * far
    monkeypatch.setattr("prefix_tuning.prefix.fit", pytest.fail)
    checkpoint.load(fitted)
    PrefixTuning.from_pretrained(fitted, load_causal_lm(str(tiny_folder)).config)
    (fitted / "log_history.json").unlink()
    run(tiny_folder, fitted, "--init text --save_steps 1" + NO_STEP, **text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("summarize", [35743]),
        ("table-to-text:", [3084, 12, 1462, 12, 5239, 25]),
        (" keep\n", [1394]),
    ],
)
def test_words_are_encoded_as_in_the_original(text: str, ids: list[int], tmp_path: Path) -> None:
    """GPT-2's own tokens, with a space in front."""
    if not (BPE / "merges.txt").is_file():
        pytest.skip("GPT-2's vocabulary is not here: scripts/test.sh fetches it")
    base = ["--train_data_file", "x", "--output_dir", str(tmp_path), "--optim_prefix", "yes"]
    base += ["--tuning_mode", "prefixtune", "--init", "text", "--init_text", text]
    assert parse(base).tuning.word_ids(GPT2Tokenizer.from_pretrained(BPE)) == ids


def test_zero(tiny_folder: Path, tmp_path: Path) -> None:
    folder = run(tiny_folder, tmp_path / "m", "--preseqlen 2 --init zero" + NO_STEP)
    assert start_table(folder).abs().max() < 1e-20


@pytest.mark.parametrize("name", vector_cases("gpt2_lowdata_init_"))
def test_words_of_the_originals_configuration(name: str) -> None:
    """The constructor fits, with the numbers of the original's start, only if it has the model."""
    case, tensors = load_vectors(f"gpt2_lowdata_init_{name}")
    model = gpt2_numbers.model_of(case_of(f"gpt2_lowdata_init_{name}"))
    config = model.config
    config.lowdata, config.lowdata_token = True, [tensors["in.word_ids"].tolist()]
    config.mid_dim = case["config"]["mid_dim"]
    prefix = PrefixTuning(config, preseqlen=50)
    assert prefix.length == case["prefix_length"]
    torch.manual_seed(3)
    before = PrefixTuning(config).slots()
    torch.manual_seed(3)
    after = PrefixTuning(config, model).slots()
    target = activations(model, tensors["in.word_ids"][None])["self"]
    assert (after - target).square().mean() < 0.9 * (before - target).square().mean()


@pytest.mark.parametrize("name", vector_cases("gpt2_shallow_words"))
def test_shallow_words_of_the_originals_configuration(name: str) -> None:
    case, tensors = load_vectors(f"gpt2_shallow_words{name}")
    model = gpt2_numbers.model_of(case_of(f"gpt2_shallow_words{name}"))
    config = model.config
    config.init_shallow, config.init_shallow_word = "yes", [case["config"]["word_ids"]]
    config.prefix_dropout = 0.5
    prefix = PrefixTuning(config, model)
    assert prefix.dropout.p == 0.0
    expected = prefix.from_original(part(tensors, "prefix."))["control_trans"]
    limit = case["reproduction"]["recommended_tolerance"]["word_init"]
    assert torch.allclose(prefix.control_trans, expected, atol=limit, rtol=0)


# The class.


@pytest.mark.parametrize(
    ("arguments", "attributes", "kind"),
    [
        ({}, {}, MLPPrefix),
        ({"deep_param": True}, {}, MLPPrefix),
        ({"use_infix": True}, {}, InfixPrefix),
        ({}, {"use_infix": True}, InfixPrefix),
        ({}, {"init_shallow": "yes", "init_shallow_word": None}, FlatPrefix),
    ],
)
def test_the_constructor_chooses_as_the_original_does(
    tmp_path: Path, arguments: dict[str, Any], attributes: dict[str, Any], kind: type[Prefix]
) -> None:
    model = enable_prefix(tiny_model("gpt2"))
    for name, value in attributes.items():
        setattr(model.config, name, value)
    prefix = PrefixTuning(model.config, preseqlen=4, mid_dim=8, **arguments)
    assert isinstance(prefix, PrefixTuning)
    assert isinstance(prefix, kind)
    meta = checkpoint.metadata(prefix, model, "tiny")
    checkpoint.save(tmp_path, prefix, model.config.to_dict(), meta)
    model.config._objective_mode = 3
    loaded = PrefixTuning.from_pretrained(tmp_path, model.config)
    assert loaded.objective_mode == 3
    assert loaded.options() == prefix.options()
    for name, value in prefix.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_constructors_refuse_what_excludes_itself() -> None:
    config = tiny_model("gpt2").config
    with pytest.raises(UserError, match="nothing to train"):
        PrefixTuning(config, optim_prefix=False)
    with pytest.raises(UserError, match="embedding-only"):
        PrefixEmbTuning(config, use_infix=True)
    config.init_shallow = "yes"
    with pytest.raises(UserError, match="init_shallow"):
        PrefixTuning(config, deep_param=True)


# Infix: batches, evaluation and decoding.


@pytest.mark.parametrize("mode", [0, 1])
def test_the_loss_that_chooses_an_infix_depends_on_no_batch(
    tiny_folder: Path, tmp_path: Path, mode: int
) -> None:
    """Texts one by one have no padding, and a mean over tokens is computed by hand from them."""
    model = enable_prefix(load_causal_lm(str(tiny_folder))).requires_grad_(False)
    model.config._objective_mode = mode
    torch.manual_seed(5)
    prefix = PrefixTuning(model.config, preseqlen=3, mid_dim=8, use_infix=True)
    with torch.no_grad():  # positions have to matter
        model.transformer.wpe.weight.mul_(100)
    texts = [([7] * n + [1], [9, 8, 5, 1][-n:]) for n in (1, 2, 4, 3)]
    examples = [{"input_ids": s + t, "labels": [-100] * len(s) + t} for s, t in texts]
    found = {}
    for size in (1, 2, 4):
        args = TrainingArguments(
            str(tmp_path / "m"), per_device_eval_batch_size=size, report_to=[], use_cpu=True
        )
        trainer = Trainer_Prefix(
            model=prefix,
            model_gpt2=model,
            args=args,
            eval_dataset=examples,
            data_collator=partial(collate_infix, pad_id=0),
            save=lambda folder: folder.mkdir(exist_ok=True),
        )
        found[size] = trainer.evaluate()
    losses = []
    for example in examples:
        batch = collate_infix([example], pad_id=0)
        losses.append(prefix.eval()(**batch, gpt2_model=model).loss.mean().item())
    weights = [len(t) if mode == 0 else 1 for _, t in texts]
    wanted = sum(a * b for a, b in zip(losses, weights, strict=True)) / sum(weights)
    assert [found[size]["eval_loss"] for size in found] == pytest.approx([wanted] * 3, rel=1e-5)
    padded = [found[size]["eval_padded_loss"] for size in found]
    assert padded[0] == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert padded[2] != pytest.approx(padded[0], rel=1e-3)


@pytest.mark.parametrize("mode", [None, 0, 1, 2, 3, 4])
def test_the_loss_that_chooses_depends_on_no_batch(
    tiny_folder: Path, tmp_path: Path, mode: int | None
) -> None:
    """Tokens count alike, but for mode 1, which adds up those of a text; None is fine-tuning."""
    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    prefix = PrefixTuning(model.config, preseqlen=3, mid_dim=8, objective_mode=mode or 0).eval()
    texts = [([7] * n + [1], [9, 8, 5, 1][-n:]) for n in (1, 2, 4, 3)]
    examples = [{"input_ids": s + t, "labels": [-100] * len(s) + t} for s, t in texts]
    found, sums = [], []
    for size in (1, 2, 4):
        args = TrainingArguments(
            str(tmp_path / "m"), per_device_eval_batch_size=size, report_to=[], use_cpu=True
        )
        given = {
            "args": args,
            "eval_dataset": examples,
            "data_collator": partial(collate, pad_id=0),
            "save": lambda folder: folder.mkdir(exist_ok=True),
        }
        if mode is None:
            trainer: Any = TableToTextTrainer(model=model, **given)
        else:
            trainer = Trainer_Prefix(model=prefix, model_gpt2=model.requires_grad_(False), **given)
        found.append(trainer.evaluate())
    for _, target in texts:
        batch = collate([examples[len(sums)]], pad_id=0)
        front = {} if mode is None else {"prefix": prefix.prompt(model)}
        logits = model(batch["input_ids"], **front).logits[0, -1 - len(target) : -1]
        sums.append(cross_entropy(logits, torch.tensor(target), reduction="sum").item())
    wanted = sum(sums) / (4 if mode == 1 else sum(len(target) for _, target in texts))
    assert [metrics["eval_loss"] for metrics in found] == pytest.approx([wanted] * 3, rel=1e-5)
    by_batches = [metrics.get("eval_batch_loss") for metrics in found]
    assert by_batches == [None] * 3 if mode == 1 else len({*by_batches}) == 3


def test_collate_infix() -> None:
    """By hand: the prompt's last token begins the target's side."""
    examples = [
        {"input_ids": [5, 6, 7, 1, 8, 1], "labels": [-100, -100, -100, -100, 8, 1]},
        {"input_ids": [9, 1, 8, 8, 8, 1], "labels": [-100, -100, 8, 8, 8, 1]},
    ]
    batch = {name: value.tolist() for name, value in collate_infix(examples, pad_id=0).items()}
    assert batch == {
        "input_ids": [[1, 8, 1, 0, 0], [1, 8, 8, 8, 1]],
        "labels": [[-100, 8, 1, -100, -100], [-100, 8, 8, 8, 1]],
        "src": [[5, 6, 7], [9, 0, 0]],
        "src_attn": [[True, True, True], [True, False, False]],
    }


@pytest.mark.parametrize("implementation", ["paper", "transformers"])
def test_behind_an_infix_batches_decode_to_the_texts_of_one_by_one(
    tiny_folder: Path, implementation: str
) -> None:
    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    tokenizer = load_tokenizer(str(tiny_folder))
    torch.manual_seed(5)
    prefix = InfixPrefix(PrefixShape.from_config(model.config), 3, mid_dim=8).eval()
    sources = ["a", "name", "b", "name : x", "c", "name : y"]
    prompts = tokenizer([f" {source} <|endoftext|>" for source in sources]).input_ids
    search = Search(num_beams=3, max_new_tokens=8, implementation=implementation)
    found = dict(decode(model, tokenizer, prefix, prompts, search, batch_size=4))
    for i, ids in enumerate(prompts):
        assert decode_batch(model, tokenizer, prefix, [ids], search) == [found[i]]
    assert len(set(found.values())) > 3


def test_samples_are_drawn_behind_the_infix(tiny_folder: Path) -> None:
    """From a nucleus of one token: what step after step is the most probable behind it."""
    model = enable_prefix(load_causal_lm(str(tiny_folder)))
    tokenizer = load_tokenizer(str(tiny_folder))
    torch.manual_seed(5)
    prefix = InfixPrefix(PrefixShape.from_config(model.config), 3, mid_dim=8).eval()
    prompts = tokenizer([" a <|endoftext|>", " name : x <|endoftext|>"]).input_ids
    search = Search(n_sample=2, top_p=1e-6, max_new_tokens=5)
    texts = dict(decode_samples(model, tokenizer, prefix, prompts, search))
    for i, ids in enumerate(prompts):
        found = ids[-1:]
        while len(found) < 6 and (len(found) == 1 or found[-1] != tokenizer.eos_token_id):
            behind = prefix.prompt(model, 1, torch.tensor([ids[:-1]]))
            logits = model(torch.tensor([found]), prefix=behind).logits
            found.append(logits[0, -1].argmax().item())
        expected = tokenizer.decode(found[1:], skip_special_tokens=True).strip() or "Error"
        assert (texts[2 * i], texts[2 * i + 1]) == (expected, expected)
    assert texts[0] != texts[2]


# Names and mistakes.


@pytest.mark.parametrize(
    ("flags", "folder", "name"),
    [
        ("--format_mode infix", "ablation_e2e_infix_models", "_y_10_act_inf_.*_m=512_o=1_o=1$"),
        ("--prefix_mode embedding", "ablation_e2e_emb_models", "_emb_cat_.*_m=512_MLP_o=1_o=1$"),
        ("--prefix_mode embedding --notes x", "ablation_e2e_emb_models", "_x_p=MLP_o=1_o=1$"),
        ("--init_shallow yes", "save_e2e_models_convcheck", "_m=512_s=yes_w=summarize_o=1_o=1$"),
        ("--deep yes --init zero", "save_e2e_models_convcheck", "_m=512_deep=yes_init=zero_o=1"),
        ("--init text --init_text x", "save_e2e_models_convcheck", "prefixtune_y_0_act"),
    ],
)
def test_names_of_runs(
    flags: str, folder: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_e2e.main([*flags.split(), "--submit", "print"])
    output = next(
        word.partition("=")[2] for word in capsys.readouterr().out.split() if "--output_dir" in word
    )
    assert Path(output).parent.name == folder
    assert re.search(name, Path(output).name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--format_mode infix --prefix_mode embedding",
            "--prefix_mode embedding and --format_mode",
        ),
        ("--init_shallow yes --deep yes", "--init_shallow yes and --deep yes exclude"),
        ("--init_shallow yes --format_mode infix", "exclude each other"),
        (
            "--dtype float16 --bf16 --use_cpu",
            "--dtype float16: not with the other precision of --bf16",
        ),
        ("--prefix_mode embedding --deep yes", "exclude each other"),
        ("--prefix_mode words", "--prefix_mode words: use one of activation, embedding"),
        ("--format_mode nopeek", "never see the source"),
        ("--format_mode peak", "use one of cat, peek"),
        ("--parametrize_emb GRU", "--parametrize_emb GRU: use one of MLP, Emb"),
        ("--parametrization gru", "--parametrization gru: use one of mlp, flat"),
        ("--parametrization flat --deep yes", "--parametrization flat and --deep yes"),
        ("--init ones", "--init ones: use one of random, zero, text"),
        ("--init zero --format_mode infix", "of the variant infix can only start random"),
        ("--init text --init_text a --prefix_mode embedding", "can only start random"),
        ("--init text", "either --init_text or --init_file"),
        ("--init text --init_text a --init_file b", "either --init_text or --init_file"),
        ("--init text --init_file nowhere", "--init_file nowhere: there is no such file"),
        ("--init_text a", "--init_text: only with --init text"),
        ("--init_shallow yes --dropout 0.1", "--prefix_dropout 0.1"),
        ("--init zero --preseqlen 0", "--preseqlen 0: a prefix needs at least one slot"),
        ("--init text --init_text a --preseqlen -1", "--preseqlen -1"),
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


def test_mistakes_that_only_the_direct_command_can_make(tmp_path: Path) -> None:
    base = ["--train_data_file", "x", "--output_dir", str(tmp_path), "--optim_prefix", "yes"]
    base += ["--tuning_mode", "prefixtune", "--preseqlen", "3"]
    with pytest.raises(UserError, match="--init zero and --init_shallow_word exclude"):
        parse([*base, "--init", "zero", "--init_shallow", "yes", "--init_shallow_word", "a"])
    with pytest.raises(UserError, match="only with --init_shallow yes"):
        parse([*base, "--init_shallow_word", "a"])


def test_an_empty_text(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    base = ["--train_data_file", "x", "--output_dir", str(tmp_path), "--optim_prefix", "yes"]
    base += ["--tuning_mode", "prefixtune", "--init", "text", "--init_file"]
    for name, message in (("empty", "is empty"), ("binary", "binary.txt, line 1: not UTF-8")):
        args = parse([*base, str(tmp_path / f"{name}.txt")]).tuning
        with pytest.raises(UserError, match=message):
            args.word_ids(tokenizer)
