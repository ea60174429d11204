"""Is the image bright or dark? 256 images to train on, 64 held out, 64 to test."""

import torch
from torch.utils.data import TensorDataset

from trt_layermerge.training.task import Classification


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.randn(count, 1, 8, 8, generator=generator) + (2 * labels - 1).view(-1, 1, 1, 1), labels)


def task():
    return Classification("bright or dark", images(320, 0), images(64, 1), batch_size=16, held_out=64, calibration=64)
