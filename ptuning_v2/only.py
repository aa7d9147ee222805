"""Which flags of ``run.py`` are read only beside others."""

from __future__ import annotations

from pathlib import Path

from harness.only import Only

_PROMPTED = Only(
    "with --prefix or --prompt", lambda args: args.prefix or args.prompt or args.prefix_checkpoint
)
_PREFIXED = Only("with --prefix", lambda args: args.prefix or args.prefix_checkpoint)
_QA = Only("with --task_name qa", lambda args: args.task_name == "qa")
ONLY = {
    "prefix_projection": Only(
        "with --parametrization ptuning_v2", lambda args: args.parametrization == "ptuning_v2"
    ),
    **dict.fromkeys(("parametrization", "prefix_options", "shift_positions"), _PREFIXED),
    **dict.fromkeys(("pre_seq_len", "convolve_padding"), _PROMPTED),
    "hidden_dropout_prob": _PREFIXED,
    "prefix_hidden_size": Only(
        "with --prefix_projection",
        lambda args: args.prefix_projection or args.prefix_checkpoint,
    ),
    "template_id": Only(
        "with --dataset_name wsc or wic", lambda args: args.dataset_name in ("wsc", "wic")
    ),
    **dict.fromkeys(("n_best_size", "max_answer_length", "null_score_diff_threshold"), _QA),
    "predict_split": Only("with --do_predict", lambda args: args.do_predict),
    "train_size": Only("with --do_train", lambda args: args.do_train),
    "model_revision": Only(
        "with a model of the hub", lambda args: not Path(args.model_name_or_path).is_dir()
    ),
}
"""Flags that are read only beside others."""
