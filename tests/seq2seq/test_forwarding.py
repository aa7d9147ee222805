"""What flags do inside a run, which looks right without them: randomness, precision, clipping."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import BatchSampler, DistributedSampler
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
)

from prefix_tuning.errors import UserError
from seq2seq import arguments, finetune, loading, predict
from seq2seq.data import read_split
from seq2seq.decoding import generate
from seq2seq.files import Record
from seq2seq.lightning_base import PrefixTransformer
from seq2seq.modules import MODULES
from seq2seq.optimization import make_optimizer
from seq2seq.samplers import DistributedSortishSampler
from seq2seq.search import Search


def flags(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    """Two epochs of two steps."""
    given = f"--do_train --model_name_or_path {base} --data_dir {data} --output_dir {output} "
    given += "--preseqlen 2 --mid_dim 8 --learning_rate 0.01 --train_batch_size 4 --n_train 8 "
    given += "--n_val 2 --num_train_epochs 2 --num_workers 0 --accelerator cpu --eval_beams 1 "
    given += "--eval_min_gen_length 2 --eval_max_gen_length 8 --max_target_length 12 "
    given += "--max_source_length 24 --logger_name none --seed 7 --bf16 --max_grad_norm 0.001"
    return [*given.split(), *more]


@pytest.fixture(scope="module")
def watched(bart_folder: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What was seen of a run at every step."""
    seen = SimpleNamespace(states=[], dtypes=set(), norms=[], start=None)
    seen.flags = flags(bart_folder, pairs, tmp_path_factory.mktemp("run") / "m")
    step, logits = finetune.SummarizationModule.training_step, PrefixTransformer.logits

    def watch_step(self: Any, batch: Any, index: int) -> Any:
        seen.states.append(torch.get_rng_state().numpy().tobytes())
        seen.start = seen.start or {k: v.clone() for k, v in self.model.state_dict().items()}
        return step(self, batch, index)

    def watch_logits(self: Any, *args: Any) -> Any:
        found = logits(self, *args)
        seen.dtypes.add(found.dtype)
        return found

    def watch_gradients(optimizer: Any, *_: Any) -> None:
        gradients = [p.grad.norm() for g in optimizer.param_groups for p in g["params"]]
        seen.norms.append(torch.stack(gradients).norm().item())

    hook = register_optimizer_step_post_hook(watch_gradients)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune.SummarizationModule, "training_step", watch_step)
        patch.setattr(PrefixTransformer, "logits", watch_logits)
        finetune.main(seen.flags)
    hook.remove()
    return seen


def test_every_batch_of_every_epoch_has_random_numbers_of_its_own(watched: Any) -> None:
    assert len(watched.states) == len(set(watched.states)) == 4


def test_random_numbers_follow_from_seed_epoch_batch_and_process() -> None:
    seeds = set()
    for seed, epoch, batch, rank in product(range(2), repeat=4):
        given = SimpleNamespace(args=SimpleNamespace(seed=seed), current_epoch=epoch)
        module: Any = SimpleNamespace(**vars(given), global_rank=rank)
        PrefixTransformer.on_train_batch_start(module, None, batch)
        seeds.add(torch.initial_seed())
    assert len(seeds) == 2**4


def test_the_seed_decides_where_training_starts(watched: Any, pairs: Path) -> None:
    args = arguments.parse(watched.flags)
    records = {split: read_split(pairs, split, True) for split in ("train", "val")}
    torch.manual_seed(7)
    expected = MODULES["summarization", "prefixtune"].load(args, records).model.state_dict()
    for name, value in expected.items():
        assert torch.equal(value, watched.start[name]), name


def test_mixed_precision_and_clipping(watched: Any) -> None:
    assert watched.dtypes == {torch.bfloat16}
    assert watched.norms == [pytest.approx(0.001, rel=1e-3)] * 4


def test_further_flags_reach_the_model(watched: Any, pairs: Path, tmp_path: Path) -> None:
    records = {split: read_split(pairs, split, True) for split in ("train", "val")}
    trained = Path(watched.flags[watched.flags.index("--output_dir") + 1], "checkpoint-curr_best")
    more = ["--gradient_checkpointing", "--prefix_dropout", "0.25", "--cache_dir", str(tmp_path)]
    more += ["--prefixModel_name_or_path", str(trained)]
    args, seen = arguments.parse([*watched.flags, *more]), []

    def load(*names: Any, **options: Any) -> Any:
        seen.append(options["cache_dir"])
        return original(*names, **options)

    original = loading.load_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", load)
        module = MODULES["summarization", "prefixtune"].load(args, records)
    assert seen == [str(tmp_path)]
    assert module.seq2seq_model.is_gradient_checkpointing
    assert module.model.dropout.p == 0.25


@pytest.mark.parametrize(("max_steps", "steps"), [(-1, 24 / (4 * 2) / 2 * 5), (9, 9)])
def test_processes_and_accumulation_shorten_the_schedule(max_steps: int, steps: float) -> None:
    args = SimpleNamespace(
        max_steps=max_steps,
        max_tokens_per_batch=None,
        train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=5,
    )
    trainer = SimpleNamespace(world_size=2)
    module: Any = SimpleNamespace(args=args, trainer=trainer, datasets={"train": range(24)})
    assert PrefixTransformer.total_steps(module) == steps


@pytest.mark.parametrize("sortish", [False, True])
@pytest.mark.parametrize(("n_row", "n_process"), [(5, 2), (6, 2), (7, 3), (2, 3)])
def test_of_what_fills_up_processes_each_row_counts_once(
    sortish: bool, n_row: int, n_process: int
) -> None:
    counted = []
    for rank in range(n_process):
        sampler: Any = DistributedSampler(range(n_row), n_process, rank, shuffle=False)
        if sortish:
            lengths = [3 * i % 7 for i in range(n_row)]
            sampler = DistributedSortishSampler(lengths, 2, n_process, rank)
        args = SimpleNamespace(sortish_sampler=sortish, train_batch_size=2)
        module: Any = SimpleNamespace(args=args, global_rank=rank, datasets={"train": range(n_row)})
        module.trainer = SimpleNamespace(world_size=n_process)
        for number, batch in enumerate(BatchSampler(sampler, 2, drop_last=False)):
            ids = torch.tensor(batch)
            repeated = finetune.SummarizationModule._repetitions(module, ids, number)
            counted += ids[~repeated].tolist()
    assert sorted(counted) == [*range(n_row)]


@pytest.mark.parametrize(("is_sum", "wanted"), [(True, 2 * 6.0), (False, 2 * 6.0 * 0.25)])
def test_the_loss_of_several_processes_is_that_of_all_their_tokens(
    is_sum: bool, wanted: float
) -> None:
    """Of two: Lightning halves the sum of both, and of means each has its share of the tokens."""
    together = SimpleNamespace(has_diverged=True, share=lambda n_token, loss: n_token / 12)
    module: Any = SimpleNamespace(is_sum=is_sum, together=together, global_rank=0)
    module.trainer = SimpleNamespace(world_size=2, global_step=4)
    module.tokenizer, module.args = SimpleNamespace(pad_token_id=1), SimpleNamespace(fp16=True)
    module._repetitions = lambda ids, number: torch.tensor([False, True])
    module.step = lambda batch: torch.tensor(6.0)
    module.log = module.log_dict = lambda *_: None
    rows = torch.tensor([[5, 6, 2, 1], [5, 7, 8, 2]])
    batch = {"input_ids": rows, "labels": rows, "ids": torch.tensor([0, 1])}
    found = finetune.SummarizationModule.training_step(module, batch, 0)
    assert found["loss"] == wanted
    module.args = SimpleNamespace(fp16=False, output_dir="")  # where no scaler skips the step
    with pytest.raises(UserError, match="the training loss of step 5"):
        finetune.SummarizationModule.training_step(module, batch, 0)


def test_biases_and_layer_norms_have_no_weight_decay(watched: Any) -> None:
    args = arguments.parse([*watched.flags, "--weight_decay", "0.1"])
    names = ("a.weight", "a.bias", "b.LayerNorm.weight")
    groups = make_optimizer(args, [(n, torch.nn.Parameter(torch.ones(1))) for n in names])
    found = [(len(group["params"]), group["weight_decay"]) for group in groups.param_groups]
    assert found == [(1, 0.1), (2, 0.0)]


def test_a_given_nought_is_not_a_flag_left_out(watched: Any) -> None:
    more = ("--eval_min_gen_length", "0", "--no_repeat_ngram_size", "0", "--length_penalty", "0")
    search = arguments.search(arguments.parse([*watched.flags, *more]))
    assert (search.min_length, search.no_repeat_ngram_size, search.length_penalty) == (0, 0, 0)


SIZES = {
    **{"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 9},
    **{"encoder_attention_heads": 1, "decoder_attention_heads": 1},
    **{"encoder_ffn_dim": 8, "decoder_ffn_dim": 8},
}


def test_logits_that_are_no_numbers_end_a_search() -> None:
    model = BartForConditionalGeneration(BartConfig(**SIZES)).eval()
    own = model.generation_config
    model.final_logits_bias[0, 4] = float("nan")
    ids = torch.tensor([[0, 5, 2]])
    for beams in (1, 2):
        with pytest.raises(UserError, match=r"the logits of .* rows are"):
            generate(model, None, ids, torch.ones_like(ids), Search(beams, 1.0, 0, 6))
        assert model.generation_config is own  # which a fine-tuned model is saved with


@pytest.mark.parametrize(("kind", "second"), [("mbart", 7), ("bart", 4)])
def test_the_target_language_of_mbart_comes_first_and_no_token_of_bart(
    kind: str, second: int
) -> None:
    model: Any = {
        "mbart": lambda: MBartForConditionalGeneration(MBartConfig(**SIZES)),
        "bart": lambda: BartForConditionalGeneration(BartConfig(**SIZES)),
    }[kind]()
    model.generation_config.forced_bos_token_id = 7
    model.final_logits_bias[0, 4] = 100.0  # what the model itself would say
    ids = torch.tensor([[0, 5, 2]])
    for beams in (1, 2):
        search = Search(beams, 1.0, 0, 6, no_repeat_ngram_size=0)
        found = generate(model.eval(), None, ids, torch.ones_like(ids), search)
        assert found[0, 1] == second


@pytest.fixture(scope="module")
def decoder(bart_folder: Path, pairs: Path) -> predict.Decoder:
    given = f"--do_predict --tuning_mode finetune --model_name_or_path {bart_folder} "
    given += f"--data_dir {pairs} --accelerator cpu --eval_beams 1 --max_source_length 24"
    return predict.Decoder.load(arguments.parse(given.split()))


@pytest.mark.parametrize(
    ("flag", "precision"), [(None, None), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_decoding_computes_as_its_flags_say(
    flag: str | None,
    precision: torch.dtype | None,
    decoder: predict.Decoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def spy(model: Any, prefix: Any, ids: Any, mask: Any, search: Any) -> Any:
        enabled = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if enabled else None)
        return generate(model, prefix, ids, mask, search)

    monkeypatch.setattr(predict, "generate", spy)
    if flag is not None:
        monkeypatch.setattr(decoder.args, flag, True)
    found = [*decoder(decoder.dataset([Record("a place", None, "line 1")]), [])]
    assert [index for index, _ in found] == [0]
    assert seen == [precision]


def test_decoding_goes_by_the_task_of_the_checkpoint(
    decoder: predict.Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words in front and its languages, unless flags name others."""
    monkeypatch.setattr(
        decoder, "task", {"source_prefix": "say: ", "src_lang": "en_XX", "tgt_lang": "ro_RO"}
    )
    for name in ("src_lang", "tgt_lang"):
        monkeypatch.setattr(decoder.tokenizer, name, "", raising=False)
    dataset = decoder.dataset([Record("a place", None, "line 1")])
    assert dataset[0]["src_texts"] == "say: a place"
    languages: Any = decoder.tokenizer
    assert (languages.src_lang, languages.tgt_lang) == ("en_XX", "ro_RO")
    monkeypatch.setattr(decoder.args, "source_prefix", "")
    monkeypatch.setattr(decoder.args, "src_lang", "de_DE")
    dataset = decoder.dataset([Record("a place", None, "line 1")])
    assert dataset[0]["src_texts"] == "a place"
    assert (languages.src_lang, languages.tgt_lang) == ("de_DE", "ro_RO")


CHANGES = {
    **{"src_lang": "en_XX", "tgt_lang": "ro_RO", "bf16": True, "fp16": True},
    **{"tokenizer_name": "t", "model_name_or_path": "m"},
}


def test_a_decode_is_identified_by_all_that_decides_its_texts(
    decoder: predict.Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [Record("a place", "a pub", "line 1"), Record("tea", "rain", "line 2")]

    def identity(records: list[Record] = records) -> Any:
        found = predict._identity(decoder.args, decoder, decoder.dataset(records), records)
        return found.settings(), found.owner()

    first = identity()
    assert identity() == first
    for name, value in CHANGES.items():
        with monkeypatch.context() as patch:
            patch.setattr(decoder.tokenizer, name, "", raising=False)
            patch.setattr(decoder.args, name, value)
            assert identity()[0] != first[0], name
    for name, other in (
        ("max_source_length", 5),
        ("search", replace(decoder.search, max_length=40)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(decoder, name, other)
            assert identity()[0] != first[0], name
    assert identity(records[::-1])[0] != first[0]
    referred = [replace(record, target="other") for record in records]
    assert identity(referred)[0] == first[0]
    assert identity(referred)[1] != first[1]
