"""Which of Trainer's flags a run's numbers depend on: all but those listed here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from harness.only import Only, unread
from harness.trainer_flags import ONLY

FREE = {
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
    *("do_train", "do_eval", "do_predict", "per_device_eval_batch_size", "eval_accumulation_steps"),
    *("report_to", "run_name", "project", "disable_tqdm", "debug", "label_names"),
    *("use_cpu", "local_rank", "distributed_state", "deepspeed_plugin", "skip_memory_metrics"),
    *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "restore_callback_states_from_checkpoint"),
    *("include_num_input_tokens_seen", "include_tokens_per_second", "torch_empty_cache_steps"),
}
"""What is shown, stored, evaluated or predicted, and how fast."""
_FREE_BEGINNINGS = ("log", "save_", "hub_", "push_", "ddp_", "trackio_", "_")


def settings_of(
    arguments: Any, ours: Collection[str] = (), only: Mapping[str, Only] = ONLY
) -> dict[str, Any]:
    """The flags of a dataclass that must not change when a run goes on, as JSON values.

    Args:
        ours: flags that may change, besides those of Trainer.
        only: where flags are read; what nothing reads may change, too.
    """
    free = {*FREE, *ours, *unread(only, arguments)}
    names = [field.name for field in fields(arguments)]
    names.sort(key=lambda name: name.startswith("eval_"))  # differences of training are named first
    found = {name: getattr(arguments, name) for name in names}
    return {
        name: value if isinstance(value, int | float | None) else str(value)
        for name, value in found.items()
        if name not in free and not name.startswith(_FREE_BEGINNINGS)
    }
