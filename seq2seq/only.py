"""Which flags of ``finetune.py`` and of its launcher are read only beside others.

Those of a prefix's size stand on the original's command lines whatever is trained.
"""

from __future__ import annotations

from typing import Any

from harness.only import Only


def _has(option: str, args: Any) -> bool:
    """Whether the prefix, if there is one, has an option; that of a checkpoint is compared."""
    if args.tuning_mode != "prefixtune" or args.prefixModel_name_or_path or args.prefix_bank:
        return True
    if args.parametrization in (None, "mlp"):
        return True
    from prefix_tuning.choice import own_options  # torch: not for --help

    return option in own_options(args.parametrization)


_MLP = "with a --parametrization that has an MLP"
_PREFIX = Only("with --tuning_mode prefixtune", lambda args: args.tuning_mode == "prefixtune")
_MODEL = Only("with --tuning_mode finetune", lambda args: args.tuning_mode == "finetune")
_PREDICTS = Only("with --do_predict", lambda args: args.do_predict)
ONLY = {
    **dict.fromkeys(("parametrization", "prefix_sites", "use_lowdata_token"), _PREFIX),
    "prefix_options": Only(
        "for a new prefix: --tuning_mode prefixtune without --prefixModel_name_or_path",
        lambda args: args.tuning_mode == "prefixtune" and not args.prefixModel_name_or_path,
    ),
    "mid_dim": Only(_MLP, lambda args: _has("mid_dim", args), idle=(512,)),
    "use_deep": Only(_MLP, lambda args: _has("deep", args), idle=("no",)),
    **dict.fromkeys(("predict_splits", "n_test", "overwrite_results"), _PREDICTS),
    "decode_batch_size": _PREDICTS,
}
"""Flags of ``finetune.py``."""
LAUNCHED = {
    "dir_name": Only("without --output_dir", lambda args: not args.output_dir),
    "lowdata_token": Only("with --notes lowdata_SEED_SIZE", lambda args: args.low_data),
    "prefix_model_path": _PREFIX,
    "finetune_model_path": _MODEL,
}
"""Flags of ``train_bart.py``."""
