"""Train the ResNet-20 whose weights lie beside this file: ``python examples/fashion_mnist/train.py``.

Under an hour on one CPU core. Interrupt it as you like: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from model import resnet20
from safetensors.torch import save_file
from task import task

from trt_layermerge.errors import LayerMergeError
from trt_layermerge.files import replacing
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.loop import Recipe, fine_tune

WEIGHTS = Path(__file__).with_name("resnet20.safetensors")


def arguments() -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 suits newer processors")
    parser.add_argument("--threads", type=int, default=1, help="processor cores to use")
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    """Train, print the accuracies and write the weights."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, data = resnet20(), task()

    def progress(done: int, total: int, label: str) -> None:
        print(f"\rstep {done} of {total}, {label}", end="", flush=True)
        if done and done % data.steps_per_epoch == 0:
            print(f", held-out accuracy {evaluate(model, data.held_out_batches(), data).accuracy:.2%}")

    recipe = Recipe(
        epochs=args.epochs, lr=0.2, weight_decay=5e-4, warmup=0.15, seed=args.seed, precision=args.precision
    )
    fine_tune(model, data, recipe, checkpoint=args.out.with_suffix(".checkpoint"), progress=progress)
    print(f"test accuracy {evaluate(model, data.test_batches(), data).accuracy:.2%}")
    with replacing(args.out) as neighbour:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, neighbour)


def main() -> None:
    """Run, and tell errors and interruptions in words."""
    try:
        train(arguments())
    except LayerMergeError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("\nstopped; the same command goes on from here") from None


if __name__ == "__main__":
    main()
