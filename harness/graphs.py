"""Training steps as CUDA graphs: forward, loss and backward of every shape, recorded once.

A step of a small batch is bound by the host, which launches a thousand kernels; a graph launches
them at once. Whoever trains knows nothing of this file: :func:`use` puts it in place of a
trainer's ``forward_backward``. Clipping, optimiser and schedule follow as they are, on the
gradients that the graph has left. It has not been run on a GPU yet; ``benchmarks/gpu.sh`` compares
it with eager steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shapes = tuple[tuple[str, torch.Size, torch.dtype], ...]
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Makes of a computation on tensors that stay where they are what repeats it."""
RECORDED, STAYS_EAGER = "a step of each width is recorded", "no CUDA graph for"
"""What a run says of its steps."""
MOST_SHAPES = 64
"""How many are recorded; further ones are computed eagerly."""


class GraphedStep:
    """Loss and gradients of a batch, recorded at the first batch of its shapes and replayed.

    Args:
        compute: inputs -> loss, a scalar, without looking at what a tensor holds.
        parameters: what gets gradients, in ``grad``; any gradient there is replaced.
        record: :class:`CudaRecorder`, or what stands for it in a test.
    """

    def __init__(
        self,
        compute: Callable[[dict[str, Tensor]], Tensor],
        parameters: Sequence[nn.Parameter],
        record: Record,
    ) -> None:
        self._compute = compute
        self._parameters = parameters
        self._record = record
        self._grads = [torch.zeros_like(parameter) for parameter in parameters]
        self._loss = torch.zeros((), device=parameters[0].device)
        self._recorded: dict[Shapes, tuple[dict[str, Tensor], Callable[[], None]] | None] = {}

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """The loss; None where this shape cannot be recorded, with nothing changed."""
        key = tuple((name, tensor.shape, tensor.dtype) for name, tensor in sorted(inputs.items()))
        if key not in self._recorded:
            self._recorded[key] = self._try(key, inputs)
        recorded = self._recorded[key]
        if recorded is None:
            return None
        static, replay = recorded
        for name, tensor in inputs.items():
            static[name].copy_(tensor, non_blocking=True)
        replay()
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad
        return self._loss.clone()

    def _try(
        self, key: Shapes, inputs: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Callable[[], None]] | None:
        if len(self._recorded) >= MOST_SHAPES:
            return None
        static = {name: tensor.clone() for name, tensor in inputs.items()}

        def step() -> None:
            loss = self._compute(static)
            grads = torch.autograd.grad(loss, self._parameters, allow_unused=True)
            self._loss.copy_(loss.detach())
            for kept, grad in zip(self._grads, grads, strict=True):
                kept.zero_() if grad is None else kept.copy_(grad)

        try:
            return static, self._record(step)
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {[*shape]}" for name, shape, _ in key)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"{STAYS_EAGER} {shapes}: steps of this shape stay eager ({reason})")
            return None


class CudaRecorder:
    """Records into CUDA graphs that share their memory, as only one of them runs at a time.

    Nothing is read from that memory after a replay: results are copied to tensors outside it.
    """

    def __init__(self, warm_up: int = 2) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._warm_up = warm_up

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run ``step`` as often as lazy kernels and plans need, then record it.

        Raises:
            RuntimeError: it waits for the GPU, or does something else that a graph cannot hold.
        """
        random_state = torch.cuda.get_rng_state()  # a run without graphs draws nothing here
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self._warm_up):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.set_rng_state(random_state)
        graph = torch.cuda.CUDAGraph()
        # Threads of a data loader may pin memory meanwhile: "global" would take that for a fault.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph.replay


def obstacle(trainer: Any) -> str | None:
    """Why a trainer or its arguments exclude graphs; None where they do not."""
    args = trainer.args
    if not trainer.graphable:
        return "this tuning mode has none"
    if args.device.type != "cuda":
        return "there is no GPU"
    if args.world_size > 1 or args.n_gpu > 1:
        return "several GPUs train together"
    if args.gradient_accumulation_steps > 1:
        return "gradients are accumulated over batches"
    if args.fp16 or args.bf16:
        return "--fp16 and --bf16 keep casts between kernels (--dtype bfloat16 does not)"
    return "--torch_compile records by itself" if args.torch_compile else None


def use_if_asked(trainer: Any, asked: str) -> None:
    """Do as ``--cuda_graphs`` says, and print what that is."""
    if asked == "auto":
        reason = use(trainer)
        print(f"CUDA graphs: {reason or RECORDED}", flush=True)


def use(trainer: Any, record: Record | None = None) -> str | None:
    """Let a trainer replay its steps.

    Args:
        trainer: a :class:`harness.loop.SafeTrainer`.
        record: instead of a :class:`CudaRecorder`.

    Returns:
        None, or why its steps stay eager.
    """
    reason = obstacle(trainer) if record is None else None
    if reason:
        return reason
    eager = trainer.forward_backward
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    graphed: list[GraphedStep] = []

    def forward_backward(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        if not graphed:  # the first step, when everything has been moved where it stays
            compute = functools.partial(trainer.compute_loss, model)
            graphed.append(GraphedStep(compute, parameters, record or CudaRecorder()))
        loss = graphed[0](trainer._prepare_inputs(inputs))
        return eager(model, inputs, num_items_in_batch) if loss is None else loss

    trainer.forward_backward = forward_backward
    return None
