"""A parametrisation that the project does not have, with options of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefix_tuning.prefix import Prefix, parameter_name
from prefix_tuning.shape import PrefixShape


class LowRankPrefix(Prefix):
    """``scale * left @ right``, with ``left [P, rank]`` and ``right [rank, 2LHd]`` at each site."""

    parametrization = "low_rank"

    def __init__(
        self,
        shape: PrefixShape,
        length: int,
        rank: int,
        dropout: float = 0.0,
        sites: Sequence[str] = ("self",),
        scale: float = 1.0,
        ones: bool = False,
    ) -> None:
        super().__init__(shape, length, dropout, sites)
        if rank < 1:
            raise ValueError(f"rank {rank}: must be at least 1")
        self.rank, self.scale = rank, scale
        for site in self.sites:
            left = torch.ones(length, rank) if ones else torch.randn(length, rank)
            right = torch.randn(rank, self.shape.features)
            self.register_parameter(parameter_name("left", site), nn.Parameter(left))
            self.register_parameter(parameter_name("right", site), nn.Parameter(right))

    def options(self) -> dict[str, Any]:
        more = {"rank": self.rank, "scale": self.scale, "sites": [*self.sites]}
        return {**super().options(), **more}

    def slots(self, site: str = "self") -> Tensor:
        left = self.get_parameter(parameter_name("left", site))
        return self.scale * left @ self.get_parameter(parameter_name("right", site))
