"""The class people know from the original: a prefix for GPT-2, called together with GPT-2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from prefix_tuning.attention import run
from prefix_tuning.choice import ChosenPrefix
from prefix_tuning.errors import UserError
from prefix_tuning.initialization import activations
from prefix_tuning.objectives import objective, scatter_nll, target_nll, target_positions
from prefix_tuning.saving import load_headless

END_OF_TEXT = 50256
"""GPT-2's ``<|endoftext|>``, which objective mode 4 does not count."""


class PrefixTuning(ChosenPrefix):
    """A prefix of any parametrisation with the original's constructor and ``forward``.

    Args:
        config: the base model's. Like the original, ``mid_dim``, ``prefix_dropout``,
            ``_objective_mode``, ``use_infix``, ``parametrize_emb``, and ``lowdata`` and
            ``init_shallow`` with their words (``lowdata_token``, ``init_shallow_word``:
            ``[[id, ...]]``) are taken from it if they are there.
        model_gpt2: the frozen model after ``enable_prefix``, from which a prefix starts that is to
            start from words. Without it the words only decide ``P``.
        optim_prefix: True; without a prefix there is nothing to train.
        preseqlen: prefix length ``P``; words replace it by their number.
        use_infix: the prefix stands between source and target.
        deep_param: one more hidden layer in the MLP.
        mid_dim: hidden width of the MLP, if not in ``config`` (512).
        prefix_dropout: dropout on the generated keys and values, if not in ``config`` (0.0).
        objective_mode: how token losses are added up (:func:`prefix_tuning.objectives.objective`),
            if not in ``config`` (1).
        end_id: the end token's id.
        parametrization: a name in :data:`prefix_tuning.parametrizations.PARAMETRIZATIONS`, instead
            of what the other arguments say.
        prefix_options: that parametrisation's own options, such as the rank of a low-rank one.
        parametrize_emb: of an embedding-only prefix, ``MLP`` or ``Emb``, if not in ``config``
            (MLP).
    """

    def __init__(
        self,
        config: PretrainedConfig,
        model_gpt2: PreTrainedModel | None = None,
        optim_prefix: bool = True,
        preseqlen: int = 5,
        use_infix: bool = False,
        deep_param: bool = False,
        mid_dim: int | None = None,
        prefix_dropout: float | None = None,
        objective_mode: int | None = None,
        end_id: int = END_OF_TEXT,
        parametrization: str | None = None,
        parametrize_emb: str | None = None,
        prefix_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not optim_prefix:
            raise UserError("PrefixTuning without optim_prefix would have nothing to train")
        shallow = getattr(config, "init_shallow", "no") == "yes"
        infix = use_infix or getattr(config, "use_infix", False)
        if shallow and (infix or deep_param):
            raise UserError("init_shallow excludes deep_param and use_infix: it has no MLP")
        name = parametrization or ("flat" if shallow else "infix" if infix else "mlp")

        def choose(value: Any, key: str, default: Any) -> Any:
            return getattr(config, key, default) if value is None else value

        words = _words(config) if name in ("flat", "mlp") else None
        shared = {
            "length": len(words) if words else preseqlen,
            "mid_dim": choose(mid_dim, "mid_dim", 512),
            "dropout": choose(prefix_dropout, "prefix_dropout", 0.0),
            "deep": deep_param,
            "mlp": choose(parametrize_emb, "parametrize_emb", "MLP") == "MLP",
        }
        if shallow and words:  # as in the original
            shared["dropout"] = 0.0
        self.choose(name, config, shared, prefix_options or {})
        self.objective_mode: int = choose(objective_mode, "_objective_mode", 1)
        self.end_id = end_id
        if words and model_gpt2 is not None:
            ids = torch.tensor([words], device=model_gpt2.device)
            self.start({k: v.cpu() for k, v in activations(model_gpt2, ids).items()})

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: PretrainedConfig) -> PrefixTuning:
        """Load a checkpoint of ours or of the original, or an export; nothing is fitted again.

        Raises:
            UserError: the folder holds no prefix.
        """
        model = cls.of(load_headless(folder)[0])
        model.objective_mode = getattr(config, "_objective_mode", 1)
        model.end_id = END_OF_TEXT
        return model

    def get_prompt(
        self,
        bsz: int = 1,
        gpt2: PreTrainedModel | None = None,
        src: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The prefix as ``past_key_values``: ``L`` tensors ``[2, bsz, H, P, d]``.

        Args:
            gpt2: the frozen model, which infix and embedding-only prefixes need.
            src: ``[bsz, S]``, the source in front of an infix, whose slots come first then.
            attn_mask: ``[bsz, S]``, 0 where ``src`` is padding.
        """
        layers = self.prompt(gpt2, bsz, src, attn_mask).sites["self"]
        # [2, 1 or bsz, H, P, d] -> [2, bsz, H, P, d]
        return tuple(pair.expand(-1, bsz, -1, -1, -1) for pair in layers)

    def get_cache(self, *args: Any, **kwargs: Any) -> DynamicCache:
        """:meth:`get_prompt` as a cache, for whoever wants transformers' own way in.

        A forward pass appends to a cache: make a new one for every call.
        """
        return DynamicCache([(pair[0], pair[1]) for pair in self.get_prompt(*args, **kwargs)])

    def forward(
        self,
        input_ids: Tensor,
        gpt2_model: PreTrainedModel,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        src: Tensor | None = None,
        src_attn: Tensor | None = None,
        targets_only: bool = False,
        targets: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> CausalLMOutputWithPast:
        """Run the frozen model behind the prefix.

        Args:
            input_ids: ``[B, T]`` int64; behind an infix the target alone, from the separator on.
            gpt2_model: the frozen model, after ``enable_prefix``.
            labels: ``[B, T]`` int64, -100 where there is no loss.
            attention_mask: ``[B, T]``; not needed for padding on the right.
            src: ``[B, S]``, the source in front of an infix; other prefixes ignore it.
            src_attn: ``[B, S]``, 0 where ``src`` is padding.
            targets_only: skip the logits and compute only what the loss needs.
            targets: int64 ``[N]``, where the loss is
                (:func:`prefix_tuning.objectives.target_positions`, which is used without them).
            smoothing: of the labels, as :func:`prefix_tuning.objectives.scatter_nll`.

        Returns:
            ``loss`` as the objective mode returns it (a scalar for mode 0, else ``[B]``) and
            ``logits [B, T, V]``.
        """
        prefix = self.prompt(gpt2_model, input_ids.shape[0], src, src_attn)
        logits = None
        if targets_only and labels is not None:
            nll = target_nll(
                gpt2_model, prefix, input_ids, labels, attention_mask, targets, smoothing
            )
        else:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
            logits = run(gpt2_model, prefix, inputs).logits
            if labels is None:
                return CausalLMOutputWithPast(logits=logits)
            at = target_positions(labels) if targets is None else targets
            of_targets = logits.flatten(0, 1).index_select(0, at)  # [B, T, V] -> [N, V]
            nll = scatter_nll(of_targets, labels, at, smoothing)
        loss = objective(self.objective_mode, nll, labels, input_ids, self.end_id)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


class PrefixEmbTuning(PrefixTuning):
    """The embedding-only ablation; ``config.parametrize_emb`` is ``MLP`` (default) or ``Emb``."""

    def __init__(self, *args: Any, use_infix: bool = False, **kwargs: Any) -> None:
        if use_infix:
            raise UserError("PrefixEmbTuning: an embedding-only prefix cannot be an infix")
        super().__init__(*args, **{**kwargs, "parametrization": "embedding"})


def _words(config: PretrainedConfig) -> list[int] | None:
    """The token ids that a configuration of the original has a prefix start from."""
    words = None
    if getattr(config, "lowdata", False):
        words = getattr(config, "lowdata_token", None)
    elif getattr(config, "init_shallow", "no") == "yes":
        words = getattr(config, "init_shallow_word", None)
    return [*words[0]] if words else None


def add_pad_row(model: PreTrainedModel, pad_id: int, seed: int) -> None:
    """Give a model the original's row for ``[PAD]``: N(0, 0.02), frozen, part of the softmax.

    The prefix has to learn to push its logit down, which shows in the first hundreds of steps;
    decoding never sees the row. transformers would fill it with the mean of the other rows.
    """
    words: Any = model.get_input_embeddings()
    if pad_id >= words.num_embeddings:
        model.resize_token_embeddings(pad_id + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(model.config.get_text_config().hidden_size, generator=generator) * 0.02
    words, head = cast(Any, model.get_input_embeddings()), cast(Any, model.get_output_embeddings())
    with torch.no_grad():
        words.weight[pad_id] = row.to(model.device, model.dtype)
        head.weight[pad_id] = row.to(model.device, model.dtype)
