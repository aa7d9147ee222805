"""Trainer whose processes train and evaluate together what one does with the same global batch."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import EvalLoopOutput

from prefix_tuning.errors import UserError

# Of a process on the CPU, transformers before 5.23 asks torch for the state on a device "cpu:0".
torch.serialization.register_package(
    11, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
)


def shard(model: PreTrainedModel, args: TrainingArguments) -> None:
    """Give each process a part of every layer of a frozen model (FSDP).

    A layer is gathered while it computes, so all processes have to run the model alike. What the
    layers stand between, embeddings among it, stays whole.

    Raises:
        UserError: the model's layers are not of a kind that is known.
    """
    from torch.distributed.device_mesh import init_device_mesh  # not in every build of torch
    from torch.distributed.fsdp import fully_shard

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"--shard_model yes: the layers of {type(model).__name__} are not known")
    mesh = init_device_mesh(args.device.type, (args.world_size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


class SharingTrainer(Trainer):
    """Trainer that counts every row once, however many processes share the rows.

    accelerate fills an epoch's last batches by repeating rows, so that all processes have as many.
    They are left out of training, and of the loss of an evaluation; Trainer itself leaves them out
    of predictions.
    """

    is_filling = False
    """Whether this process has but repeated rows in this batch, one of which it goes through."""
    own_share: Tensor | float = 1.0
    """What the last loss was multiplied by."""
    whole: tuple[float, float] | None = None
    """While an evaluation may choose the best, what :meth:`count` has added up."""
    name_of_batches = "batch_loss"
    """The mean over batches, which depends on them, where :meth:`count` gives another loss."""

    def own_rows(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch without rows that another process has too; at least one row."""
        state, n_process = self.accelerator.gradient_state, self.args.world_size
        self.is_filling = False
        if n_process == 1 or not state.end_of_dataloader:
            return batch
        loader: Any = state.active_dataloader
        size = len(batch["input_ids"])
        n_last = len(loader.dataset) % (size * n_process)
        n_own = n_last - self.args.process_index * size
        if not n_last or n_own >= size:
            return batch
        self.is_filling = n_own <= 0
        return self.first_rows(batch, max(1, n_own))

    def first_rows(self, batch: dict[str, Any], n_row: int) -> dict[str, Any]:
        """A batch, whose tensors are ``[B, ...]``, of its first rows."""
        return {name: value[:n_row] for name, value in batch.items()}

    def share(self, count: Tensor) -> Tensor:
        """What makes the mean over processes of their means that over the batch of all.

        Args:
            count: what the loss of this process is a mean over, a scalar.
        """
        mine = count.float().reshape(1) * (not self.is_filling)
        share: Tensor = mine[0] / self.accelerator.gather(mine).mean()
        self.own_share = share
        return share

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """One step on the rows that are this process's own."""
        self.is_filling = False
        # Trainer reads all batches of a step before the first of them is trained on.
        if self.accelerator.sync_gradients and not self.args.dataloader_drop_last:
            inputs = self.own_rows(inputs)
        return super().training_step(model, inputs, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """The loss of this process's own rows; logits and labels of all, for equal shapes."""
        own = self.own_rows(inputs)
        found = super().prediction_step(model, own, prediction_loss_only, ignore_keys)
        if own is inputs or prediction_loss_only:
            return found
        counted, self.whole = self.whole, None
        outputs = super().prediction_step(model, inputs, False, ignore_keys)[1:]
        self.whole = counted
        return found[0], *outputs

    def count(self, total: Tensor, weight: Tensor | int) -> None:
        """Add a batch to the loss of an evaluation, as what it is a mean over is not its rows."""
        if self.whole is not None and not self.is_filling:
            self.whole = self.whole[0] + float(total), self.whole[1] + float(weight)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loop, whose ``eval_loss`` does not depend on the batches where losses are counted."""
        self.whole = (0.0, 0.0) if metric_key_prefix == "eval" else None
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        (total, weight), self.whole = self.whole or (0.0, 0.0), None
        if self.args.world_size > 1:
            both = torch.tensor([total, weight], device=self.args.device)
            total, weight = self.accelerator.reduce(both).tolist()
        if weight:
            metrics = cast(dict[str, float], output.metrics)
            metrics[f"eval_{self.name_of_batches}"] = metrics["eval_loss"]
            metrics["eval_loss"] = total / weight
        return output
