"""A GPU beside the CPU: the same logits, gradients, steps, texts and training runs."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, BertConfig

from experiments.toy_data import write_data
from experiments.toy_models import tiny_bart, tiny_gpt2
from gpt2 import gen, train_e2e
from gpt2.train_control import PrefixTuning
from harness.graphs import RECORDED, STAYS_EAGER, CudaRecorder, GraphedStep, Record
from prefix_tuning.attention import enable_prefix, run
from prefix_tuning.beam_search import beam_search
from prefix_tuning.objectives import IGNORE, target_positions
from prefix_tuning.parametrizations import MLPPrefix
from ptuning_v2.model.heads import TaskType
from ptuning_v2.model.prefix_encoder import PrefixEncoder
from ptuning_v2.model.prompted_encoder import PromptedEncoder
from scripts.verify.checks import Check, Difference, LeftOut
from scripts.verify.libraries import batch_of, model_of
from scripts.verify.loop import quiet

SINGLE, HALF = 1e-4, 1e-1
"""Bounds of fp32 and of bf16, relative to the largest value."""
STEPS = 100
P = 5
_SITES = {"bart": ("self", "encoder", "encoder_decoder")}
_BERT = BertConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
)


def _model(family: str) -> Any:
    torch.manual_seed(0)
    if family == "bart":
        return tiny_bart(vocab_size=50, width=32).eval()
    return AutoModel.from_config(_BERT).eval() if family == "bert" else model_of(family)


def _far(name: str, found: Tensor, expected: Tensor, bound: float) -> Difference:
    """The largest difference, relative to the largest value."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return Difference(name, float((found - expected).abs().max() / expected.abs().max()), bound)


def _run(family: str, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The output on real tokens, and the gradient of the prefix."""
    model = enable_prefix(_model(family).requires_grad_(False).to(device, dtype))
    torch.manual_seed(1)
    prefix = MLPPrefix(model.config, P, mid_dim=16, sites=_SITES.get(family, ("self",))).to(device)
    inputs = {name: tensor.to(device) for name, tensor in batch_of().items()}
    real = inputs["attention_mask"].bool()
    if family == "bart":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    output = run(model, prefix.prompt(model), inputs)[0][real].float()
    weights = torch.linspace(-1, 1, output.numel(), device=device).view_as(output)
    (output * weights).mean().backward()
    grads = [p.grad.flatten() for p in prefix.parameters() if p.grad is not None]
    return output, torch.cat(grads)


def passes(family: str, device: str) -> Iterator[Difference]:
    """Forward and backward in both precisions, beside the CPU's in fp32."""
    expected = _run(family, "cpu", torch.float32)
    for dtype, bound in ((torch.float32, SINGLE), (torch.bfloat16, HALF)):
        found = _run(family, device, dtype)
        for what, ours, theirs in zip(("output", "gradient"), found, expected, strict=True):
            yield _far(f"{what}, {str(dtype).removeprefix('torch.')}", ours, theirs, bound)


def _gpt2(device: str) -> tuple[nn.Module, Callable[[dict[str, Tensor]], Tensor]]:
    model = enable_prefix(_model("gpt2").requires_grad_(False).to(device))
    torch.manual_seed(1)
    prefix = PrefixTuning(model.config, preseqlen=P, mid_dim=16, objective_mode=0).to(device)
    return prefix, lambda batch: prefix(**batch, gpt2_model=model, targets_only=True).loss


def _bert(device: str) -> tuple[nn.Module, Callable[[dict[str, Tensor]], Tensor]]:
    base = _model("bert")
    torch.manual_seed(1)
    prompts = PrefixEncoder(base.config, P, 0.0, True, hidden_size=16)
    model = PromptedEncoder(base, TaskType.SEQUENCE_CLASSIFICATION, 2, prompts).to(device).eval()
    return model, lambda batch: model(**batch).loss


def _batches(family: str, device: str) -> Iterator[dict[str, Tensor]]:
    """Random batches of three widths."""
    generator = torch.Generator().manual_seed(2)
    for i in range(STEPS):
        ids = torch.randint(3, 50, (4, (8, 16, 24)[i % 3]), generator=generator)
        batch = {"input_ids": ids}
        if family == "bert":
            batch |= {"attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
        else:
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < 4, IGNORE)
            batch |= {"labels": labels, "targets": target_positions(labels, 64)}
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def _trained(family: str, device: str, record: Record | None) -> tuple[Tensor, Tensor]:
    """Losses and weights of eager or recorded steps."""
    module, compute = (_bert if family == "bert" else _gpt2)(device)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    step = GraphedStep(compute, trained, record) if record else None
    losses = []
    for batch in _batches(family, device):
        if step is None:
            loss = compute(batch)
            loss.backward()
        elif (loss := step(batch)) is None:  # type: ignore[assignment]
            raise RuntimeError("a step could not be recorded")
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses), torch.cat([p.detach().flatten() for p in trained])


def graphs(family: str, device: str) -> Iterator[Difference]:
    """Recorded steps beside eager ones of the same device."""
    record: Record = CudaRecorder() if device == "cuda" else lambda step: step
    ways = (_trained(family, device, how) for how in (record, None))
    for what, found, expected in zip(("losses", "weights"), *ways, strict=True):
        yield _far(f"{what}, {STEPS} steps", found, expected, 1e-6)


def searches(device: str) -> Iterator[Difference]:
    """The search of 2020, with prompts of different lengths."""
    prompts = torch.tensor([[9, 8, 41], [2, 4, 20], [33, 33, 6]])  # one is padded on the left
    mask = (prompts != 2).long()

    def texts(where: str, n_beam: int) -> list[list[list[int]]]:
        model = enable_prefix(_model("gpt2").to(where))
        torch.manual_seed(1)
        prefix = MLPPrefix(model.config, P, mid_dim=16).to(where).eval().prompt(model)
        rows, masks = prompts.to(where), mask.to(where)
        found = beam_search(
            model, prefix, rows, masks, eos_token_id=1, num_beams=n_beam, max_new_tokens=12
        )
        return [hypotheses.tokens for hypotheses in found]

    with torch.no_grad():
        for n_beam in (1, 5):
            pairs = zip(texts(device, n_beam), texts("cpu", n_beam), strict=True)
            yield Difference(f"texts that differ, {n_beam} beams", sum(a != b for a, b in pairs), 0)


def runs(device: str) -> Iterator[Difference]:
    """The launcher with and without recorded steps, and what both decode, beside the CPU's."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as name, quiet(), contextlib.redirect_stdout(said):
        folder = Path(name)
        tiny_gpt2(folder / "base")
        write_data("data2text", folder / "data")
        weights, outputs = {}, {}
        for way in ("cpu", "no", "auto"):
            on_cpu = ["--use_cpu"] if "cpu" in (way, device) else []
            graphs_flag = "auto" if way == "auto" else "no"
            train_e2e.main(_command(folder, way) + ["--cuda_graphs", graphs_flag, *on_cpu])
            weights[way] = load_file(folder / way / "model.safetensors")
            results = folder / f"texts_{way}"
            decode = ["data2text", "yes", "test", str(folder / "cpu"), "no", "--no_score"]
            decode += ["--limit", "8", "--length", "12", "--results_dir", str(results)]
            decode += ["--data_file", str(folder / "data/src1_test.txt")]
            gen.main(decode + ["--no_cuda"] * bool(on_cpu))
            (written,) = results.rglob("*_test_beam")
            outputs[way] = written.read_text(encoding="utf-8").splitlines()
    if device == "cuda":  # else "auto" would be a second eager run
        recorded = RECORDED in said.getvalue() and STAYS_EAGER not in said.getvalue()
        yield Difference("runs whose steps stayed eager", int(not recorded), 0)
    for way, of, bound in (("auto", "no", 1e-5), ("no", "cpu", 1e-2)):
        found, expected = (torch.cat([t.flatten() for t in weights[w].values()]) for w in (way, of))
        yield _far(f"weights, --cuda_graphs {way} beside {of}", found, expected, bound)
    differing = sum(a != b for a, b in zip(outputs["no"], outputs["cpu"], strict=True))
    yield Difference("decoded texts that differ", differing, 0)


def _command(folder: Path, name: str) -> list[str]:
    data = folder / "data"
    return [
        *("--model_name_or_path", str(folder / "base"), "--output_dir", str(folder / name)),
        *("--train_file", str(data / "src1_train.txt")),
        *("--eval_file", str(data / "src1_valid.txt")),
        *("--max_steps", str(STEPS), "--eval_steps", str(STEPS // 2), "--bsz", "4"),
        *("--preseqlen", "3", "--mid_dim", "8", "--learning_rate", "0.001"),
        *("--report_to", "none", "--generate", "no"),
    ]


def checks(device: str = "cuda") -> list[Check]:
    """The checks of a GPU, or of what stands for it in a test."""

    def guarded(run: Callable[[], Iterator[Difference]]) -> Callable[[], Iterator[Difference]]:
        def check() -> Iterator[Difference]:
            if device == "cuda" and not torch.cuda.is_available():
                raise LeftOut("torch sees no GPU here")
            yield from run()

        return check

    families = ("gpt2", "llama", "bart", "bert")
    rows = [
        *((f"gpu_{f}", "the CPU", partial(passes, f, device)) for f in families),
        *((f"gpu_graphs_{f}", "eager steps", partial(graphs, f, device)) for f in ("gpt2", "bert")),
        ("gpu_search", "the CPU", partial(searches, device)),
        ("gpu_runs", "the CPU, eager steps", partial(runs, device)),
    ]
    return [Check(name, against, guarded(run)) for name, against, run in rows]
