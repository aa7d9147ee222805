"""The proof that a model reads its prefix: what every attention asked for during one pass."""

from __future__ import annotations

from transformers import PreTrainedModel

from prefix_tuning.doors import not_through_the_interface
from prefix_tuning.errors import UserError
from prefix_tuning.key_values import Attended, Attention, Front
from prefix_tuning.shape import PrefixShape


class Probe(Front):
    """Notes which attentions ask for a prefix and the shape of their keys; gives one zero slot."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, int], tuple[int, int]] = {}
        """(site, layer) -> key/value heads and their size."""

    def compute(self, attention: Attention) -> Attended:
        n_row, n_head, _, size = attention.key.shape
        self.seen[attention.site, attention.layer] = (n_head, size)
        slot = attention.key.new_zeros(n_row, n_head, 1, size)
        return attention.run_behind((slot, slot))

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model whose layers did not all ask for the prefix that its configuration says.

        Raises:
            UserError: layers did not ask, or have keys of another shape.
        """
        name, shape = type(model).__name__, PrefixShape.from_config(model.config)
        wanted = {("self", layer) for layer in range(shape.n_layer)}
        if model.config.is_encoder_decoder:
            wanted |= {("encoder_decoder", layer) for layer in range(shape.n_layer)}
            n_encoder_layer = model.config.num_hidden_layers
            wanted |= {("encoder", layer) for layer in range(n_encoder_layer)}
            if n_encoder_layer > shape.n_layer:
                raise UserError(
                    f"{name} cannot carry a prefix: it has {n_encoder_layer} encoder "
                    f"layers, more than the {shape.n_layer} decoder layers whose shape a prefix has"
                )
        missing = sorted(wanted - self.seen.keys())
        if missing:
            layers = ", ".join(f"{site} {layer}" for site, layer in missing)
            raise not_through_the_interface(type(model), f"layers {layers}")
        wrong = {i: s for i, s in self.seen.items() if s != (shape.n_head, shape.head_dim)}
        if wrong:
            layers = ", ".join(f"{site} {layer}" for site, layer in sorted(wrong))
            raise UserError(
                f"{name} cannot carry a prefix: layers {layers} have other "
                f"key/value heads than the {shape.n_head} of size {shape.head_dim} in its config"
            )
