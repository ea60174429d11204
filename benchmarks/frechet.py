"""How far images are from others: the Frechet distance in the features of the example's ResNet-20.

It is that of two normal distributions with the means and covariances of the 64 features before the classifier (Heusel
et al., arXiv 1706.08500, equation 6, there with an Inception network's). So it is no FID, and compares with nothing but
itself; ``inception_distance`` is one, for who has that network's weights: ``pip install torch-fidelity``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trt_layermerge.network.device import CPU
from trt_layermerge.network.source import load_source

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"
sys.path.insert(0, str(EXAMPLE))
Features = NDArray[np.float64]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and covariance."""
Images = NDArray[np.float32]


def features_of(images: Images, device: torch.device = CPU) -> Features:
    """``[n, 64]`` of images ``[n, 1, 28, 28]`` in -1..1, computed there; what is outside is cut off."""
    from task import MEAN, STD

    network = load_source(f"{EXAMPLE / 'model.py'}:resnet20", EXAMPLE / "resnet20.safetensors").module
    network.classifier = torch.nn.Identity()
    network.to(device)
    given = (torch.from_numpy(images).clamp(-1, 1) / 2 + 0.5 - MEAN) / STD
    with torch.inference_mode():
        return torch.cat([network(part.to(device)).cpu() for part in given.split(128)]).double().numpy()


def moments(features: Features) -> Moments:
    """Mean ``[features]`` and covariance ``[features, features]`` of features ``[n, features]``."""
    return features.mean(0), np.cov(features, rowvar=False)


def frechet_distance(ours: Moments, others: Moments) -> float:
    """``|m - n|^2 + tr(C + D - 2 (C D)^(1/2))`` of two normal distributions."""
    (mean, covariance), (other_mean, other) = ours, others
    # The roots of C D are those of D^(1/2) C D^(1/2), which is symmetric and has none below 0 but by rounding.
    values, vectors = np.linalg.eigh(other)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    crossed = np.sqrt(np.linalg.eigvalsh(root @ covariance @ root).clip(0)).sum()
    return float(np.square(mean - other_mean).sum() + np.trace(covariance) + np.trace(other) - 2 * crossed)


def distance_ratio(ours: Features, base: Features, real: Moments, draws: int = 200) -> tuple[float, float, float]:
    """Distance of ours over that of the base, from the same seeds, with a 95 % interval: images are drawn in pairs."""
    generator = np.random.default_rng(0)

    def ratio(drawn: NDArray[np.int64]) -> float:
        return frechet_distance(moments(ours[drawn]), real) / frechet_distance(moments(base[drawn]), real)

    found = [ratio(generator.integers(len(ours), size=len(ours))) for _ in range(draws)]
    low, high = np.quantile(found, [0.025, 0.975])
    return ratio(np.arange(len(ours))), float(low), float(high)


def inception_distance(images: Images, real: Images, weights: Path) -> float:
    """The FID, by torch-fidelity, in three equal colours; weights are those of its InceptionV3."""
    from torch_fidelity import calculate_metrics

    class Coloured(torch.utils.data.Dataset):
        def __init__(self, images: Images) -> None:
            self.pixels = ((torch.from_numpy(images).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.pixels[index].expand(3, -1, -1)

    found = calculate_metrics(
        input1=Coloured(images), input2=Coloured(real), fid=True, cuda=torch.cuda.is_available(),
        feature_extractor_weights_path=str(weights), verbose=False,
    )  # fmt: skip
    return float(found["frechet_inception_distance"])
