"""What of the commands on the pages does not run on a machine like this one, and why; and what makes others quick.

Keys are the beginning of a page's path or words of a line. ``test_running.py`` sees that each is still needed.
"""

from __future__ import annotations

GPU = "needs an NVIDIA GPU with TensorRT; tests/cli/test_tensorrt.py runs its like on a double"

NOT_HERE = {
    "CONTRIBUTING.md": "is the test suite itself, or hours of it",
    "docs/results": "trains and times networks for hours",
    "docs/tutorial.md": "is run whole by tests/docs/test_tutorial.py",
    "--runtime tensorrt ": GPU,
    "compare profiles/nvidia-geforce-rtx-2080-ti/": "compares what such a GPU measured",
    "make test-gpu": "needs an NVIDIA GPU",
    "pip install": "fetches packages; tests/supply installs what is locked",
    "ray start": "is for several machines; tests/fleet starts workers of its own",
    "make compare": "measures the examples twice: half an hour; tests/regression compares small tables",
    "benchmarks": "takes from half an hour to days, and no figure of it is for a busy machine",
    "--task denoise-cifar10:/data/cifar10": "needs CIFAR-10, weights and days of a GPU",
    "--task imagefolder:/data/imagenet": "needs ImageNet, weights and days of a GPU",
    "reproduce.py resnet34 --small": "takes minutes; make papers-small runs it",
}
"""Why lines are not run."""

STANDS_FOR = "models.py:resnet --weights resnet.safetensors --task task.py"
"""What three dots mean on every page: a network and data of the reader's own."""

_SMALL = "--calibration 64 --held-out 64 --fit-samples 64 --epochs 1 --accept-worse"
_SURE = "--runtime estimate:rtx-2080-ti"
QUICKER = {
    "--config examples/fashion_mnist/demo.toml": f"{_SMALL} --max-layers 2 --lr 0.001 --budget 0.97",
    "compress models.py:resnet": f"--epochs 1 {_SURE}",
    "--task images:photos": f"{_SMALL} {_SURE}",
    "--estimator gates": "--budget 0.9 --output engines/gates",
}
"""What is added behind these words: jobs are to be tried, not to be good. Estimates meet budgets on busy machines."""

BEFORE = {
    "compare baseline/manifest.json": "cp -r engines/mine baseline",
}
"""What a reader has done before, elsewhere."""
