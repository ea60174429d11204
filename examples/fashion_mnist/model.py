"""ResNet-20 for 28x28 grey images, as in section 4.2 of He et al., arXiv 1512.03385, with projection shortcuts."""

from __future__ import annotations

from torch import Tensor, nn

INPUT_SHAPE = (1, 28, 28)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """6n+2 layers: a stem, three stages of n blocks with 16, 32 and 64 channels, a linear classifier."""

    def __init__(self, n: int, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        widths = (16, 16, 32, 64)
        self.stages = nn.Sequential(
            *(
                BasicBlock(widths[s] if b == 0 else widths[s + 1], widths[s + 1], 2 if s > 0 and b == 0 else 1)
                for s in range(3)
                for b in range(n)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[batch, classes]`` of images ``[batch, in_channels, height, width]``."""
        y = self.relu(self.bn(self.stem(x)))
        y = self.pool(self.stages(y))
        return self.classifier(y.flatten(1))


def resnet20() -> ResNet:
    """ResNet-20: 0.27 M parameters, 31 M multiply-accumulates for one image."""
    return ResNet(3)


def resnet56() -> ResNet:
    """ResNet-56: the same with nine blocks a stage."""
    return ResNet(9)
