"""The baselines: what they train, adapters by hand, and the way from training to texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, ROOT, tiny_model
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from gpt2 import gen, train_e2e, trainer_prefix, training
from gpt2.launch_flags import read
from gpt2.train_e2e import run_name
from gpt2.train_request import parse
from gpt2.tuning import TUNING
from gpt2.tuning.adapter_layers import Adapter, attach_adapters, load_adapters
from gpt2.tuning.finetune import TopLayers
from gpt2.tuning.folders import describe, load_into
from harness.models import load_causal_lm
from harness.report import n_parameters
from prefix_tuning.errors import UserError

DATA = ROOT / "data" / "restaurants"
MODES = {
    "finetune": (),
    "finetune-top": ("--top_layers", "11"),
    "adaptertune": ("--adapter_bottleneck", "3"),
    "bothtune": (),
    "lora": ("--lora_r", "2"),
}


def medium() -> GPT2LMHeadModel:
    """GPT-2 medium's shape with the [PAD] row, without memory for it."""
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(n_layer=24, n_head=16, n_embd=1024, vocab_size=50_258))


@pytest.mark.parametrize(
    ("mode", "flags", "count"),
    [
        ("prefixtune", {}, 0),
        ("finetune", {}, 354_824_192),
        ("bothtune", {}, 354_824_192),
        ("finetune-top", {"top_layers": 0}, 51_466_240),
        ("finetune-top", {"top_layers": 1}, 64_062_464),
        ("finetune-top", {"top_layers": 2}, 76_658_688),
        ("finetune-top", {"top_layers": 11}, 12_598_272),
        ("finetune-top", {"top_layers": 22}, 25_194_496),
        ("finetune-top", {"train_top": 2}, 25_194_496),
        ("finetune-top", {"train_top": 2, "train_embs": "yes"}, 76_658_688),
        ("finetune-top", {"train_top": 0}, 2_048),
        ("adaptertune", {"adapter_design": 1, "adapter_bottleneck": 100}, 4_991_328),
        ("adaptertune", {"adapter_design": 1, "adapter_bottleneck": 6}, 368_784),
        ("adaptertune", {"adapter_design": 1, "adapter_bottleneck": 224}, 11_089_152),
        ("adaptertune", {"adapter_design": 2, "adapter_bottleneck": 100}, 9_884_352),
        # Rank r on W [1024, 3072] in 24 layers.
        ("lora", {"lora_r": 4}, 24 * 4 * (1024 + 3072)),
    ],
    ids=str,
)
def test_trained_parameters_of_gpt2_medium(mode: str, flags: dict, count: int) -> None:
    """The numbers of the original's code; 25.19 M, 0.37 M and 11.09 M are in LoRA's tables too."""
    model = TUNING[mode](**flags).prepare(medium())
    assert n_parameters(model, trainable_only=True) == count


def test_an_adapter_by_hand() -> None:
    torch.manual_seed(0)
    for layer_norm in (True, False):
        adapter, x = Adapter(6, 2, layer_norm), torch.randn(3, 6)
        assert adapter.project_down.weight.std() < 0.1
        assert adapter.project_up.bias.abs().max() == 0
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.normal_()
        inner = x
        if layer_norm:
            mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
            inner = (x - mean) / (var + 1e-5).sqrt() * adapter.ln.weight + adapter.ln.bias
        inner = inner @ adapter.project_down.weight.T + adapter.project_down.bias
        inner = torch.where(inner > 0, inner, 0)
        expected = x + inner @ adapter.project_up.weight.T + adapter.project_up.bias
        assert torch.allclose(adapter(x), expected, atol=1e-5)


def test_initial_weights_of_adapters() -> None:
    torch.manual_seed(0)
    adapter = Adapter(512, 64, layer_norm=True)
    for linear in (adapter.project_down, adapter.project_up):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
    assert adapter.ln.weight.eq(1).all()
    assert not adapter.ln.bias.any()


def block_by_hand(block: nn.Module, x: torch.Tensor, design: int) -> torch.Tensor:
    """The parts of a block called by ``forward``, past the hooks on them."""
    attention = block.attn.forward(block.ln_1(x), attention_mask=None)[0]
    if design == 2:
        x = x + block.adapter_block(attention)
        return x + block.adapter_block2(block.mlp.forward(block.ln_2(x)))
    x = x + attention
    return block.adapter_block(x + block.mlp.forward(block.ln_2(x)))


@pytest.mark.parametrize("design", [1, 2])
def test_where_adapters_stand(design: int) -> None:
    model = tiny_model("gpt2")
    attach_adapters(model, design, bottleneck=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adapter_block" in name:
                parameter.normal_()
    block, x = model.transformer.h[1], torch.randn(2, 5, 32)
    with torch.no_grad():
        assert torch.allclose(block(x), block_by_hand(block, x, design), atol=1e-4)
    names = {name.partition("h.1.")[2] for name in model.state_dict() if "h.1.adapter" in name}
    parts = [f"{p}.{w}" for p in ("project_down", "project_up") for w in ("weight", "bias")]
    if design == 1:
        assert names == {f"adapter_block.{p}" for p in [*parts, "ln.weight", "ln.bias"]}
    else:
        assert names == {f"{b}.{p}" for b in ("adapter_block", "adapter_block2") for p in parts}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("design", [1, 2])
def test_other_families_have_adapters_too(family: str, design: int) -> None:
    stock, model = tiny_model(family), tiny_model(family)
    if (family, design) == ("opt", 2):
        with pytest.raises(UserError, match="OPTForCausalLM have no attention and mlp"):
            attach_adapters(model, design, 4)
        return
    attach_adapters(model, design, 4)
    ids = torch.arange(3, 9)[None]
    close = stock(ids).logits - model(ids).logits
    assert 0 < close.abs().max() < 0.5


TOPS = {
    "gpt2": ("transformer.ln_f.", "transformer.h.2."),
    "llama": ("model.norm.", "model.layers.2."),
    "gpt_neox": ("gpt_neox.final_layer_norm.", "gpt_neox.layers.2."),
    "opt": ("model.decoder.final_layer_norm.", "model.decoder.layers.2."),
}


@pytest.mark.parametrize("family", TOPS)
def test_the_top_of_other_families(family: str) -> None:
    """The last norm and the last block, wherever they are; the loss reaches both."""
    model = TopLayers(train_top=1).prepare(tiny_model(family))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        name for name, _ in model.named_parameters() if name.startswith(TOPS[family])
    }
    ids = torch.arange(3, 9)[None]
    model(ids, labels=ids).loss.backward()
    for start in TOPS[family]:
        moved = [p for n, p in model.named_parameters() if n.startswith(start) and p.grad.any()]
        assert moved, start


def test_what_has_no_last_norm_is_refused() -> None:
    model = tiny_model("llama")
    del model.model.norm
    with pytest.raises(UserError, match="LlamaForCausalLM has no last norm"):
        TopLayers(train_top=1).prepare(model)


def test_an_architecture_that_peft_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(type(model.config), "model_type", "unheard of")
    with pytest.raises(UserError, match="peft does not know LlamaForCausalLM"):
        TUNING["lora"]().prepare(model)


# From training to texts.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("train", 24), ("valid", 6), ("test", 9)):
        lines = (DATA / f"src1_{split}.txt").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"src1_{split}.txt").write_text("".join(lines[:n]), encoding="utf-8")
    return folder


def command(base: Path, files: Path, output: Path, mode: str, *more: str) -> list[str]:
    return [
        *("--model_name_or_path", str(base), "--output_dir", str(output), "--bsz", "4"),
        *("--train_file", str(files / "src1_train.txt"), "--preseqlen", "3", "--mid_dim", "8"),
        *("--eval_file", str(files / "src1_valid.txt"), "--learning_rate", "0.01"),
        *("--test_file", str(files / "src1_test.txt"), "--max_steps", "6", "--use_cpu"),
        *("--results_dir", str(output.parent), "--report_to", "none", "--score", "no"),
        *("--tuning_mode", mode, *MODES[mode], *more),
    ]


@pytest.fixture(scope="module")
def runs(tiny_folder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of every mode, with the texts of its test file."""
    folder = tmp_path_factory.mktemp("runs")
    for mode in MODES:
        train_e2e.main(command(tiny_folder, files, folder / mode, mode, "--eval_steps", "2"))
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_and_decodes(runs: Path, mode: str) -> None:
    history = json.loads((runs / mode / "log_history.json").read_text("utf-8"))
    losses = [log["eval_loss"] for log in history if "eval_loss" in log]
    assert losses[-1] < losses[0]
    outputs = (runs / "e2e_results_conv2" / f"{mode}_test_beam").read_text("utf-8")
    assert len(outputs.split("\n")[:-1]) == 3


def base_state(tiny_folder: Path) -> dict[str, torch.Tensor]:
    return GPT2LMHeadModel.from_pretrained(tiny_folder).state_dict()


def changed(folder: Path, tiny_folder: Path) -> set[str]:
    """Names of the parameters of a tuned model that differ from the base model's."""
    tuned = load_causal_lm(str(folder)).state_dict()
    return {n for n, v in base_state(tiny_folder).items() if not torch.equal(tuned[n][: len(v)], v)}


def test_only_what_is_trained_changes(runs: Path, tiny_folder: Path) -> None:
    assert changed(runs / "finetune", tiny_folder) == base_state(tiny_folder).keys()
    top = {n for n in base_state(tiny_folder) if ".h.1." in n or ".ln_f." in n}
    assert changed(runs / "finetune-top", tiny_folder) == top
    assert changed(runs / "bothtune" / "gpt2", tiny_folder) == base_state(tiny_folder).keys()
    for mode, word in (("adaptertune", "adapter_block"), ("lora", "lora_")):
        (path,) = (runs / mode).glob("*.safetensors")
        assert all(word in name for name in load_file(path))


@pytest.mark.parametrize("mode", ["adaptertune", "lora"])
def test_what_stands_beside_the_model_leaves_it_alone(
    tiny_folder: Path, files: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def load(*args: object) -> GPT2LMHeadModel:
        held.append(load_causal_lm(*args))
        return held[-1]

    monkeypatch.setattr(training, "load_causal_lm", load)
    train_e2e.main(command(tiny_folder, files, tmp_path / mode, mode, "--generate", "no"))
    state = {n.replace(".base_layer", ""): v for n, v in held[0].state_dict().items()}
    for name, value in base_state(tiny_folder).items():
        assert torch.equal(state[name][: len(value)], value), name


@pytest.mark.parametrize("mode", ["adaptertune", "lora"])
def test_loaded_into_the_base_model_it_is_what_was_trained(
    runs: Path, tiny_folder: Path, mode: str
) -> None:
    """Against the weights in the file, put to use by hand."""
    model = load_into(load_causal_lm(str(tiny_folder)), describe(runs / mode))
    ids = torch.arange(5, 15)[None]
    hand = load_causal_lm(str(tiny_folder))
    (path,) = (runs / mode).glob("*.safetensors")
    state = load_file(path)
    if mode == "lora":
        for i, block in enumerate(hand.transformer.h):
            key = f"base_model.model.transformer.h.{i}.attn.c_attn.lora_"
            update = state[f"{key}B.weight"] @ state[f"{key}A.weight"] * 32 / 2
            assert update.abs().max() > 0
            block.attn.c_attn.weight.data += update.T
    else:
        for i, block in enumerate(hand.transformer.h):
            parts = {k.partition(f"h.{i}.adapter_block.")[2]: v for k, v in state.items()}
            adapter = Adapter(32, 3, layer_norm=True)
            adapter.load_state_dict({k: v for k, v in parts.items() if k})
            block.register_forward_hook(lambda _m, _a, x, adapter=adapter: adapter(x))
    assert torch.allclose(model(ids).logits, hand(ids).logits, atol=1e-4)
    assert not torch.allclose(model(ids).logits, load_causal_lm(str(tiny_folder))(ids).logits)


@pytest.mark.parametrize("mode", MODES)
def test_decoding_again_gives_the_same_texts(
    runs: Path, files: Path, tmp_path: Path, mode: str
) -> None:
    arguments = ["data2text", "yes", "test", str(runs / mode), "no", "--no_score"]
    arguments += ["--data_file", str(files / "src1_test.txt"), "--results_dir", str(tmp_path)]
    gen.main(arguments)
    name = f"e2e_results_conv2/{mode}_test_beam"
    assert (tmp_path / name).read_text("utf-8") == (runs / name).read_text("utf-8")


@pytest.mark.parametrize("mode", MODES)
def test_resumed_is_uninterrupted(
    tiny_folder: Path,
    files: Path,
    runs: Path,
    tmp_path: Path,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ("--generate", "no", "--save_steps", "2", "--eval_steps", "2")
    again = command(tiny_folder, files, tmp_path / mode, mode, *more)
    original = trainer_prefix.TableToTextTrainer.training_step

    def stop_in_step_4(self: object, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    trainer = trainer_prefix.TableToTextTrainer
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", stop_in_step_4)
        with pytest.raises(KeyboardInterrupt):
            train_e2e.main(again)
    train_e2e.main(again)
    paths = [p.relative_to(runs / mode) for p in (runs / mode).rglob("*.safetensors")]
    paths = [p for p in paths if "checkpoint" not in str(p)]
    assert len(paths) == (2 if mode == "bothtune" else 1)
    for path in paths:
        before, after = load_file(runs / mode / path), load_file(tmp_path / mode / path)
        for name, value in before.items():
            assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("mode", ["adaptertune", "lora", "bothtune"])
def test_another_base_model_is_refused(
    runs: Path, files: Path, tiny_folder: Path, tmp_path: Path, mode: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    model = GPT2LMHeadModel.from_pretrained(tiny_folder)
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight += 0.1
    model.save_pretrained(other)
    arguments = ["data2text", "yes", "test", str(runs / mode), "no", "--no_score"]
    arguments += ["--data_file", str(files / "src1_test.txt"), "--results_dir", str(tmp_path)]
    with pytest.raises(UserError, match="whose weights differ"):
        gen.main([*arguments, "--model_name_or_path", str(other)])


@pytest.mark.parametrize("design", [1, 2])
def test_adapters_of_the_original(
    tokenizer: PreTrainedTokenizerFast, tiny_folder: Path, files: Path, tmp_path: Path, design: int
) -> None:
    """Its folder holds the whole model, adapters and all, in one pytorch_model.bin."""
    model = GPT2LMHeadModel.from_pretrained(tiny_folder)
    model.resize_token_embeddings(301)
    attach_adapters(model, design, bottleneck=5)
    folder = tmp_path / "data2textadaptertune_x"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config = {**model.config.to_dict(), "_my_arg_tune_mode": "adaptertune"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save_pretrained(folder)
    loaded = load_into(load_causal_lm(str(folder)), describe(folder))
    ids = torch.arange(5, 15)[None]
    assert torch.allclose(loaded(ids).logits, model.eval()(ids).logits, atol=1e-6)
    arguments = ["data2text", "yes", "test", str(folder), "no", "--no_score", "--length", "4"]
    arguments += ["--data_file", str(files / "src1_test.txt"), "--results_dir", str(tmp_path)]
    gen.main(arguments)
    assert (tmp_path / "e2e_results_conv2" / f"{folder.name}_test_beam").is_file()


def test_damaged_and_wrong_adapters(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "adaptertune", tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_into(load_causal_lm(str(tiny_folder)), describe(tmp_path / "a"))
    state = load_file(runs / "adaptertune" / "model.safetensors")
    with pytest.raises(UserError, match="here holds no adapters"):
        load_adapters(load_causal_lm(str(tiny_folder)), {}, "here")
    with pytest.raises(UserError, match=r"here: transformer\.h\.2\.adapter_block"):
        load_adapters(tiny_model("gpt2"), state, "here")


def test_dropout_is_on_while_a_baseline_trains(
    tiny_folder: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    original = GPT2LMHeadModel.forward

    def spy(self: GPT2LMHeadModel, *args: object, **kwargs: object) -> object:
        drop = self.transformer.drop
        seen.add((torch.is_grad_enabled(), drop.training and drop.p == 0.1))
        return original(self, *args, **kwargs)

    spy.__signature__ = __import__("inspect").signature(original)
    monkeypatch.setattr(GPT2LMHeadModel, "forward", spy)
    train_e2e.main(command(tiny_folder, files, tmp_path / "m", "adaptertune", "--generate", "no"))
    assert seen == {(True, True), (False, False)}


def test_the_loss_is_the_mean_of_the_target_tokens(
    tiny_folder: Path, files: Path, tmp_path: Path
) -> None:
    """The evaluation loss of an untrained model, token by token."""
    more = ("--generate", "no", "--learning_rate", "1e-30", "--bsz", "6", "--pad_row", "no")
    train_e2e.main(command(tiny_folder, files, tmp_path / "m", "finetune", *more))
    (line,) = (tmp_path / "m" / "eval_results_lm.txt").read_text("utf-8").splitlines()
    model = load_causal_lm(str(tiny_folder))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    nll = []
    for text in (files / "src1_valid.txt").read_text("utf-8").splitlines():
        source, target = text.split("||")
        prompt = tokenizer(f" {source} <|endoftext|>").input_ids
        ids = torch.tensor([prompt + tokenizer(f" {target} <|endoftext|>").input_ids])
        log_probs = model(ids).logits[0].log_softmax(-1)
        nll += [-log_probs[t - 1, ids[0, t]].item() for t in range(len(prompt), ids.shape[1])]
    assert float(line.split(" = ")[1]) == pytest.approx(sum(nll) / len(nll), rel=1e-4)


def test_residual_dropout_of_a_teacher(tiny_folder: Path, files: Path, tmp_path: Path) -> None:
    more = ("--generate", "no", "--teacher_dropout", "0.3")
    train_e2e.main(command(tiny_folder, files, tmp_path / "m", "finetune", *more))
    assert load_causal_lm(str(tmp_path / "m")).config.resid_pdrop == 0.3


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("adaptertune", "_m=512_a=1_b=100_o=1_o=1"),
        ("adaptertune --notes x --adapter_bottleneck 6", "_m=512_x_a=1_b=6_o=1_o=1"),
        ("finetune-top --top_layers 22", "_m=512_l=22_o=1_o=1"),
        ("finetune-top --train_top 3 --train_embs yes", "_m=512_l=top3+embs_o=1_o=1"),
        ("bothtune", "_m=512_o=1_o=1"),
        ("lora", "_m=512_r=4_alpha=32_o=1_o=1"),
        ("lora --lora_dropout 0.1", "_m=512_r=4_alpha=32_ld=0.1_o=1_o=1"),
    ],
)
def test_run_names(flags: str, name: str) -> None:
    args = read(["--tuning_mode", *flags.split()])[0]
    assert run_name(args).endswith(name)


def test_defaults_are_those_of_the_originals_launcher(tmp_path: Path) -> None:
    for mode, wanted in (
        ("adaptertune", {"adapter_design": 1, "adapter_bottleneck": 100}),
        ("finetune-top", {"top_layers": 1}),
    ):
        args = read(["--tuning_mode", mode])[0]
        tuning = parse(train_e2e.command_of(args, tmp_path / "r")).tuning
        assert wanted.items() <= vars(tuning).items()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("finetune-top --top_layers 3", "--top_layers 3"),
        ("finetune-top --train_top -1", "--train_top -1"),
        ("finetune --train_top 1", "--train_top 1"),
        ("finetune-top --train_embs yes", "--train_embs yes"),
        ("adaptertune --adapter_design 3", "--adapter_design 3"),
        ("adaptertune --adapter_bottleneck 0", "--adapter_bottleneck 0"),
        ("lora --lora_r 0", "--lora_r 0"),
        ("lora --lora_dropout 1", "--lora_dropout 1.0"),
        ("bothtune --optim_prefix no", "--optim_prefix no"),
        ("bothtune --format_mode nopeek", "never see the source"),
        ("adaptertune --teacher_dropout 0.2", "--teacher_dropout"),
        ("finetune --teacher_dropout 1", "--teacher_dropout 1.0"),
        ("nonsense", "--tuning_mode nonsense"),
    ],
)
def test_nonsense_is_refused_before_anything_is_loaded(
    tmp_path: Path, flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "load_causal_lm", pytest.fail)
    with pytest.raises(UserError) as caught:
        train_e2e.main(["--tuning_mode", *flags.split()])
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_lora_without_peft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2.tuning.lora.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install peft"):
        train_e2e.main(["--tuning_mode", "lora"])
