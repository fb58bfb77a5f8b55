"""What a correction may put into the stream; each keeps its numbers as buffers, in float32."""

from __future__ import annotations

import torch
from torch import nn


class Channels(nn.Module):
    """stream * scale + shift, channel by channel; a scale of one number scales all of them."""

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", None if shift is None else shift.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        scaled = stream * self.scale
        return scaled if self.shift is None else scaled + self.shift


class Shift(nn.Module):
    """stream + shift."""

    def __init__(self, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return stream + self.shift


class Residual(nn.Module):
    """stream + f(stream) @ matrix + shift; f the identity or a norm, the matrix is square."""

    def __init__(
        self,
        matrix: torch.Tensor,
        shift: torch.Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("shift", None if shift is None else shift.float())
        self.norm = norm

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        read = stream if self.norm is None else self.norm(stream).float()
        mapped = stream + read @ self.matrix
        return mapped if self.shift is None else mapped + self.shift
