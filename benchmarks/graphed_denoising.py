"""Long training and sampling of the denoising U-Net, which ``diffusion.py`` has no days for.

The network is small, and on a GPU a step of it is mostly waiting for kernels to start; there it is one CUDA graph, on a
CPU it is run as it is written. A training that was stopped goes on from what was last written of it. What is minimised
is what ``trt_layermerge.training.denoising`` does, or the same against what a teacher says of the noisy image: the mean
of all noises that it may hold, where the one that was drawn is that and chance.

    python benchmarks/graphed_denoising.py train NAME --out FOLDER [--model FILE:FUNCTION] [--weights FILE]
        [--plan PLAN] [--start FILE] [--teacher FILE] [--range FIRST END] [--seconds S] [--steps N]
    python benchmarks/graphed_denoising.py sample NAME --out FOLDER --sampler ddim:50 [--model ...] [--weights ...]
        [--plan PLAN] [--trained FILE [FILE ...]] [--seed N] [--samples N]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frechet import EXAMPLE, features_of
from gpu_noise import normal
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.files import replacing, write_json
from trt_layermerge.importance.evaluator import first
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.device import device_named, move
from trt_layermerge.network.network import load_network
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.load_task import load_task

CALIBRATION = 256
"""Samples that fits are solved on: but a start, for what is trained for so long."""
AT_ONCE = 2000
"""Samples that follow from one seed."""
IN_CACHE = 64
"""Samples that a CPU evaluates together, whose activations it need not fetch from memory."""
EVERY_SECONDS = 15.0
"""Between two times that the weights are written."""


def built(
    model: str,
    weights: Path | None,
    plan: Path | None,
    device: torch.device,
    trained: Path | None = None,
    drawn: tuple[int, int] | None = None,
) -> nn.Module:
    """A network in evaluation mode, with a plan executed for these time steps if there is one, and weights since."""
    network = load_network(model, weights)
    module: nn.Module = network.module
    if plan is not None:
        by_key = {choice.key: choice for choice in choices_of(network, Limits(max_kernel=7))}
        choices = [by_key[item["key"]] for item in json.loads(plan.read_bytes())["items"]]
        data = [inputs for inputs, _ in first(denoising(drawn).calibration_batches(), 32 if trained else CALIBRATION)]
        module = execute_on(device, network, choices, data).merged
    if trained is not None:
        module.load_state_dict(load_file(trained))
    move(module, device)
    return module.eval()


def denoising(drawn: tuple[int, int] | None = None) -> Denoising:
    """The example's task, on a part of the time steps."""
    task = load_task(Path(f"{EXAMPLE / 'denoise.py'}:task"))
    assert isinstance(task, Denoising)
    return replace(task, drawn=drawn)


def training_images(task: Denoising, device: torch.device) -> Tensor:
    """All that are trained on, ``[n, 1, 28, 28]``: not those that are held out."""
    return torch.cat([images for images, _ in task.images.training_batches(seed=0, epoch=0)]).to(device)


class GraphedTraining:
    """Adam with a moving average of the weights, a step being one CUDA graph; on a CPU it is run as it is written.

    Args:
        model: On the device.
        teacher: Likewise, or none.
        task: Whose noise it learns.
        args: ``batch``, ``lr``, ``average``, ``device``.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module | None, task: Denoising, args: argparse.Namespace) -> None:
        self.model, self.teacher, self.batch, self.device = model, teacher, args.batch, args.device
        self.images, self.signal = training_images(task, self.device), task.signal.to(self.device)
        self.heaviest = args.heaviest
        self.drawn = task.drawn or (0, task.timesteps)
        self.trained = [one for one in model.parameters() if one.requires_grad]
        self.averages = [one.detach().clone() for one in self.trained]
        self.decay, self.most = torch.zeros((), device=self.device), args.average
        self.rate, self.total = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.peak, graphed = args.lr, self.device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            self.trained, lr=self.rate if graphed else 0.0, capturable=graphed, fused=graphed
        )
        self.step: Callable[[], None] = self._step
        self._capture() if graphed else self._step()  # at a rate of 0, so that nothing is learned yet
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.total.zero_()

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()
        self.step = self.graph.replay

    def _step(self) -> None:
        which = torch.randint(len(self.images), (self.batch,), device=self.device)
        times = torch.randint(*self.drawn, (self.batch,), device=self.device)
        images, noise = self.images[which], torch.randn(self.batch, *self.images.shape[1:], device=self.device)
        left = self.signal[times].view(-1, 1, 1, 1)
        noisy = left.sqrt() * images + (1 - left).sqrt() * noise
        if self.teacher is not None:
            with torch.no_grad():
                noise = self.teacher(noisy, times)
        self.optimizer.zero_grad(set_to_none=True)
        missed = functional.mse_loss(self.model(noisy, times), noise, reduction="none")
        loss = (missed * ((1 - left) / left).clamp(1, self.heaviest)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trained, 1.0, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            self.total += loss.detach()
            torch._foreach_mul_(self.averages, self.decay)
            torch._foreach_add_(self.averages, torch._foreach_mul(self.trained, 1 - self.decay))

    def go(self, number: int, share: float) -> None:
        """One step, the ``number``-th; ``share`` of all is done."""
        rate = self.peak * min(1.0, (number + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        self.rate.fill_(rate)
        self.decay.fill_(min(self.most, (1 + number) / (10 + number)))
        if self.device.type != "cuda":
            self.optimizer.param_groups[0]["lr"] = rate
        self.step()

    def averaged(self) -> dict[str, Tensor]:
        """The state dict with the averages in place of the weights."""
        names = {id(one): name for name, one in self.model.named_parameters()}
        found = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        pairs = zip(self.trained, self.averages, strict=True)
        return found | {names[id(one)]: value.cpu().contiguous() for one, value in pairs}

    def kept(self) -> list[Tensor]:
        """All that a later step begins with, where it is in memory: a graph knows no other place."""
        moments = [value for one in self.trained for value in self.optimizer.state[one].values()]
        return [*self.model.state_dict().values(), *self.averages, *moments]

    @torch.no_grad()
    def go_on(self, kept: Sequence[Tensor]) -> None:
        """From what another run kept."""
        for ours, value in zip(self.kept(), kept, strict=True):
            ours.copy_(value)


def train(args: argparse.Namespace) -> None:
    """Train until the steps or the seconds are over; weights and what is known are written as it goes."""
    began, drawn = time.monotonic(), None if args.range is None else tuple(args.range)
    task = denoising(drawn)
    torch.manual_seed(args.torch_seed)
    checkpoint = args.out / f"{args.name}.checkpoint"
    start = args.out / f"{args.name}.safetensors" if checkpoint.exists() else args.start
    model = built(args.model, args.weights, args.plan, args.device, start, drawn)
    teacher = None if args.teacher is None else built(args.model, args.teacher, None, args.device)
    for one in () if teacher is None else teacher.parameters():
        one.requires_grad_(False)
    run = GraphedTraining(model, teacher, task, args)
    print(f"{args.name}: ready after {time.monotonic() - began:.1f} s", flush=True)
    begin = written = time.monotonic()
    known: list[dict[str, float]] = []
    number = at = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint)
        run.go_on(kept["tensors"])
        number = at = kept["number"]
        known = kept["known"]
        torch.set_rng_state(kept["random"])
        begin, began = (clock - known[-1]["seconds"] for clock in (begin, began))
    while number < args.steps:
        elapsed = time.monotonic() - began
        share = max(number / args.steps, elapsed / args.seconds if args.cooled else 0.0)
        if elapsed >= args.seconds:
            break
        run.go(number, share if args.cooled else 0.0)
        number += 1
        if number % 25 == 0 and args.device.type == "cuda":
            torch.cuda.synchronize()  # or a thousand steps would wait in line, and the clock would know nothing
        if number % 50 == 0 and time.monotonic() - written > EVERY_SECONDS:
            loss = float(run.total) / (number - at)
            known.append({"steps": number, "seconds": time.monotonic() - begin, "loss": loss})
            run.total.zero_()
            _write(args, run, known)
            with replacing(checkpoint) as neighbour:
                state = {"tensors": run.kept(), "number": number, "known": known, "random": torch.get_rng_state()}
                torch.save(state, neighbour)
            written, at = time.monotonic(), number
    known.append({"steps": number, "seconds": time.monotonic() - begin, "loss": float(run.total) / max(1, number - at)})
    _write(args, run, known)
    model.load_state_dict(load_file(args.out / f"{args.name}.safetensors"))
    held = {name: evaluate(model, Denoising(task.images, drawn=part).held_out_batches(), task).loss
            for name, part in {"all": None, "late": (0, 500), "early": (500, 1000)}.items()}  # fmt: skip
    write_json(args.out / f"{args.name}.json", {"progress": known, "held_out_mse": held, "settings": _settings(args)})
    print(f"{args.name}: {number} steps, held out {held}", flush=True)
    sampled(args, [model])


def _write(args: argparse.Namespace, run: GraphedTraining, known: Sequence[Any]) -> None:
    with replacing(args.out / f"{args.name}.safetensors") as neighbour:
        weights = run.averaged()
        save_file({name: value.half() for name, value in weights.items()} if args.half else weights, neighbour)
    write_json(args.out / f"{args.name}.json", {"progress": known, "settings": _settings(args)})


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if args.device.type == "cuda" else "CPU"
    plain = {key: value for key, value in vars(args).items() if isinstance(value, int | float | str | list | None)}
    return plain | {"device": gpu, "torch": torch.__version__}


def made(models: Sequence[nn.Module], sampler: str, count: int, seed: int, device: torch.device) -> Tensor:
    """Images ``[count, 1, 28, 28]`` from noise; the models share the time steps, the last has the noisiest."""
    from diffusers import DDIMScheduler, DDPMScheduler

    kind, _, steps = sampler.partition(":")
    generator = torch.Generator(device).manual_seed(seed)
    scheduler = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[kind](num_train_timesteps=1000)
    scheduler.set_timesteps(int(steps))
    if device.type == "cuda":
        images = torch.randn(count, 1, 28, 28, generator=generator, device=device)
    else:  # the same numbers
        images = torch.from_numpy(normal(count * 28 * 28, seed)).view(count, 1, 28, 28)
    for now in scheduler.timesteps.tolist():
        model = models[now * len(models) // 1000]
        parts = images.split(count if device.type == "cuda" else IN_CACHE)
        noise = torch.cat([model(part, torch.full((len(part),), now, device=device)) for part in parts])
        images = scheduler.step(noise, now, images, generator=generator).prev_sample
    return images


def sample(args: argparse.Namespace) -> None:
    """Make the networks, and sample."""
    plans, weights = args.plan or [None], args.trained or [None]
    models = [built(args.model, args.weights, plan, args.device, one) for plan, one in zip(plans, weights, strict=True)]
    sampled(args, models)


def asked(args: argparse.Namespace, told: str) -> tuple[str, int, int]:
    """What ``kind:steps`` or ``kind:steps:seed:samples`` asks for: the first two, and seed and number of samples."""
    kind, steps, *others = told.split(":")
    seed, count = map(int, others) if others else (args.seed, args.samples)
    return f"{kind}:{steps}", seed, count


@torch.inference_mode()
def sampled(args: argparse.Namespace, models: Sequence[nn.Module]) -> None:
    """Write the features of images from each sampler, and the first of the images themselves."""
    for told in args.sampler:
        began, parts = time.monotonic(), []
        sampler, seed, count = asked(args, told)
        target = args.out / f"{args.name}-{sampler.replace(':', '-')}-seed{seed}.npz"
        if target.exists():
            continue
        for part, begin in enumerate(range(0, count, args.at_once)):
            some = min(args.at_once, count - begin)
            parts.append(made(models, sampler, some, seed * 1000 + part, args.device).cpu())
        images = torch.cat(parts).numpy()
        spent = time.monotonic() - began
        features = features_of(images, args.device).astype(np.float16)
        with replacing(target) as neighbour, neighbour.open("wb") as out:
            np.savez_compressed(out, features=features, images=_bytes(images[: args.kept]))
        print(f"{args.name}: {len(images)} images by {sampler} in {spent:.1f} s", flush=True)


def _bytes(images: Any) -> Any:
    return ((images.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What may be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "sample"])
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=f"{EXAMPLE / 'unet.py'}:unet")
    parser.add_argument("--device", type=device_named, default="auto")
    parser.add_argument("--weights", type=Path, help="of the original")
    parser.add_argument("--plan", type=Path, nargs="*")
    parser.add_argument("--start", type=Path, help="weights to begin from, of the network with the plan executed")
    parser.add_argument("--teacher", type=Path, help="weights of the original that is learned from")
    parser.add_argument(
        "--heaviest", type=float, default=1.0, help="weigh what is missed by noise over signal, from 1 up to this"
    )
    parser.add_argument("--range", type=int, nargs=2)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--cooled", action="store_true", help="the learning rate falls to 0")
    parser.add_argument("--half", action="store_true", help="write the weights in half precision")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--average", type=float, default=0.9995)
    parser.add_argument("--torch-seed", type=int, default=0)
    parser.add_argument("--sampler", nargs="*", default=[], help="kind:steps, or kind:steps:seed:samples")
    parser.add_argument("--trained", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--kept", type=int, default=64, help="images that are written as such")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Train, or sample."""
    args = arguments(given)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "train":
        args.plan = args.plan[0] if args.plan else None
        train(args)
    else:
        sample(args)


if __name__ == "__main__":
    main()
