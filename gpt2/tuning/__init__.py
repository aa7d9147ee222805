"""The tuning modes: what each trains, how that is kept, and how it is loaded again.

Beside prefix-tuning there are the paper's baselines (fine-tuning all or the top layers, adapters),
prefix and model trained together, and LoRA. They minimise the mean loss of the target tokens, with
the model's dropout on. A run folder of theirs says in ``tuned.json`` what it is:

==========================  ==============================================================
tuning mode                 what the folder holds
==========================  ==============================================================
finetune, finetune-top      the whole model and its tokenizer
adaptertune                 ``model.safetensors`` with the adapters alone
lora                        peft's ``adapter_model.safetensors``, ``adapter_config.json``
bothtune                    a prefix, and the model that belongs to it in ``gpt2/``
==========================  ==============================================================

Adapters and LoRA remember their base model and refuse another one. A new mode is a file here and a
row of :data:`TUNING`; its flags are its fields.
"""

from __future__ import annotations

from gpt2.tuning.adapters import Adapters
from gpt2.tuning.base import TuningMode
from gpt2.tuning.both import BothTune
from gpt2.tuning.finetune import FineTune, TopLayers
from gpt2.tuning.lora import Lora
from gpt2.tuning.prefix import PrefixTune

TUNING: dict[str, type[TuningMode]] = {
    mode.name: mode for mode in (PrefixTune, FineTune, TopLayers, Adapters, BothTune, Lora)
}
"""``--tuning_mode`` -> what it does."""
