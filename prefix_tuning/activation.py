"""GPT-2's activation as one kernel.

transformers writes the tanh approximation of GELU (Hendrycks & Gimpel 2016) out as eight
elementwise kernels that keep four tensors for backward; PyTorch has it as one kernel that keeps its
input. The two differ by rounding alone. A frozen model is little but matrix products and this.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from prefix_tuning.guard import is_watched


def fuse_activations(model: PreTrainedModel) -> PreTrainedModel:
    """Put ``nn.GELU`` where ``model`` has transformers' ``NewGELUActivation``.

    Modules of the model are replaced, none is changed: whoever holds the activation itself, say to
    build another model with it, keeps it as it was. Subclasses of it, and modules with hooks, stay.
    Weights, configuration and what is saved are the same.

    Returns:
        the same model.
    """
    for parent in model.modules():
        for name, child in list(parent.named_children()):
            if type(child) is NewGELUActivation and not is_watched(child):
                setattr(parent, name, nn.GELU("tanh").train(child.training))
    return model
