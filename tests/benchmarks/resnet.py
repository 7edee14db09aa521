"""ResNet-50 with GroupNorm in place of BatchNorm, in plain torch layers: 25.6 million parameters.

He et al. 2016, in the form that strides at the 3x3 convolution; 32 groups (Wu and He 2018).
"""

from __future__ import annotations

import torch
from torch import nn

GROUPS, BLOCKS, WIDTHS, WIDENING = 32, (3, 4, 6, 3), (64, 128, 256, 512), 4


def _convolved(entering: int, leaving: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(entering, leaving, size, stride, padding=size // 2, bias=False),
        nn.GroupNorm(GROUPS, leaving),
    )


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut.

    Args:
        entering: channels of its input.
        width: of the inner convolutions; the output has four times as many channels.
        stride: of the 3x3 convolution and the shortcut.
    """

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = WIDENING * width
        self.first = _convolved(entering, width)
        self.second = _convolved(width, width, 3, stride)
        self.third = _convolved(width, leaving)
        same = stride == 1 and entering == leaving
        self.shortcut = nn.Identity() if same else _convolved(entering, leaving, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, entering, H, W) to (B, 4 width, H / stride, W / stride)."""
        inner = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(self.third(inner) + self.shortcut(x))


def resnet50(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network, with initial values from torch's generator.

    Args:
        input_shape: (3, H, W) of one image.
        classes: number of logits; with 1000 it has 25,557,032 parameters.
    """
    layers: list[nn.Module] = [_convolved(input_shape[0], 64, 7, 2), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, padding=1))
    entering = 64
    for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(entering, width, stride))
            entering = WIDENING * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(entering, classes)]
    return nn.Sequential(*layers)
