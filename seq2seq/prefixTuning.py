"""The class people know from the original: three prefixes for BART, called together with BART."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from prefix_tuning import checkpoint
from prefix_tuning.attention import run
from prefix_tuning.choice import ChosenPrefix, check_independent
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.objectives import target_logits
from prefix_tuning.saving import load_headless


class PrefixTuning(ChosenPrefix):
    """Prefixes of any parametrisation for encoder self-, decoder self- and cross-attention.

    Args:
        config: the base model's. Like the original, ``preseqlen``, ``mid_dim``,
            ``prefix_dropout`` and ``use_deep`` are taken from it if they are there (5, 512, 0.0,
            no otherwise).
        model: the frozen model; the prefix does not need it.
        preseqlen, mid_dim, prefix_dropout, use_deep: instead of those in ``config``.
        sites: the attentions that have a prefix (``encoder``, ``self``, ``encoder_decoder``).
        parametrization: a name in :data:`prefix_tuning.parametrizations.PARAMETRIZATIONS`.
        prefix_options: that parametrisation's own options.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        model: PreTrainedModel | None = None,
        preseqlen: int | None = None,
        mid_dim: int | None = None,
        prefix_dropout: float | None = None,
        use_deep: bool | None = None,
        sites: Sequence[str] = SITES,
        parametrization: str = "mlp",
        prefix_options: Mapping[str, Any] | None = None,
    ) -> None:
        def given(value: Any, name: str, default: Any) -> Any:
            return getattr(config, name, default) if value is None else value

        check_independent(parametrization, "BART")
        shared = {
            "length": given(preseqlen, "preseqlen", 5),
            "mid_dim": given(mid_dim, "mid_dim", 512),
            "dropout": given(prefix_dropout, "prefix_dropout", 0.0),
            "deep": given(use_deep, "use_deep", False) in ("yes", True),
            "sites": tuple(sites),
        }
        self.choose(parametrization, config, shared, prefix_options or {})

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: PretrainedConfig) -> PrefixTuning:
        """Load a checkpoint of ours or of the original (``checkpointepoch=N.ckpt``).

        Raises:
            UserError: the folder holds no prefix, or keys and values alone.
        """
        if checkpoint.is_export(Path(folder)):
            raise UserError(f"{folder} is an export, without the MLP that training needs")
        return cls.of(load_headless(folder)[0])

    def get_prompt(self, bsz: int = 1, sample_size: int = 1) -> list[dict[str, dict[str, Tensor]]]:
        """The prefixes in the original's form: one dictionary per layer.

        Args:
            bsz: rows of the batch.
            sample_size: beams per row; the encoder, which runs once a row, has ``bsz`` rows.

        Returns:
            per layer a dictionary with a key for each site, each with ``prev_key`` and
            ``prev_value [rows, H, P, d]`` and ``prev_key_padding_mask``, bool ``[rows, P]`` that
            says that nothing is padding.
        """
        layers: list[dict[str, dict[str, Tensor]]] = [{} for _ in range(self.shape.n_layer)]
        for site in self.sites:
            rows = bsz if site == "encoder" else bsz * sample_size
            for layer, pair in zip(layers, self.key_values(rows, site), strict=True):
                pair = pair.expand(-1, rows, -1, -1, -1)  # [2, 1, ...] -> [2, rows, H, P, d]
                padding = torch.zeros(rows, self.length, dtype=torch.bool, device=pair.device)
                layer[site] = {
                    "prev_key": pair[0],
                    "prev_value": pair[1],
                    "prev_key_padding_mask": padding,
                }
        return layers

    def forward(
        self,
        input_ids: Tensor,
        gpt2_model: PreTrainedModel,
        is_target: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Run the frozen model behind the prefixes.

        Args:
            input_ids: ``[B, S]`` int64 source tokens.
            gpt2_model: the frozen BART, after ``enable_prefix``; the original's name for it.
            is_target: bool ``[B, T]``, where logits are wanted: then they are ``[N, V]``, and the
                only thing that is computed.
            kwargs: of BART's ``forward``: ``attention_mask``, ``decoder_input_ids``, ...
        """
        prefix = self.prompt(gpt2_model, input_ids.shape[0])
        inputs = {"input_ids": input_ids, **kwargs}
        if is_target is None:
            return run(gpt2_model, prefix, inputs)
        return Seq2SeqLMOutput(logits=target_logits(gpt2_model, prefix, inputs, is_target))
