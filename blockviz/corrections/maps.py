"""What a correction may put into the stream; each keeps its numbers as buffers, in float32."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


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


class Gated(nn.Module):
    """stream + (silu(f(stream) @ gate) * (f(stream) @ up)) @ down; f divides by the size of the
    stream at each position, as the norms of blocks do."""

    def __init__(self, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        for name, matrix in (("gate", gate), ("up", up), ("down", down)):
            self.register_buffer(name, matrix.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        read = stream * (stream.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
        inner = functional.silu(read @ self.gate) * (read @ self.up)
        return stream + inner @ self.down


# All of them: what a fitted correction is read back from a file as.
MAPS: tuple[type[nn.Module], ...] = (Channels, Shift, Residual, Gated)
