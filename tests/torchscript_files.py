"""Small networks in TorchScript files."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Colours(nn.Module):
    """The mean of each colour, by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean(dim=(2, 3))


class TwoOutputs(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean(dim=(2, 3)), images.amax(dim=(2, 3))


class Tokens(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2)


def save_scripted(network: nn.Module, path: Path) -> Path:
    """Writes a network as TorchScript, which torch calls deprecated and many have."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.script(network.eval()).save(path)
    return path
