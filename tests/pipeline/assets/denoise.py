"""Which noise is in the image? 64 smooth images to train on, 32 held out, 32 to test; 100 time steps."""

import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.task import Classification


def images(count, seed):
    coarse = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(F.interpolate(coarse, scale_factor=4.0).tanh(), torch.zeros(count))


def smooth():
    return Classification("smooth", images(96, 0), images(32, 1), batch_size=16, held_out=32, calibration=32)


class Continuous(Denoising):
    """For networks whose time steps are real numbers."""

    def _noisy(self, images, seed):
        (noisy, times), noise = super()._noisy(images, seed)
        return (noisy, times.float()), noise


def task():
    return Denoising(smooth(), timesteps=100)


def continuous():
    return Continuous(smooth(), timesteps=100)
