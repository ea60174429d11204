"""From a plan to a trained network: merged and then trained, or, decoupled, trained and then merged.

Where a launcher has started several processes, the first one does the whole job, and the others share its training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save
from torch import fx

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.errors import TableError
from trt_layermerge.files import sha256, write_bytes
from trt_layermerge.importance.judge import first
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_network
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.sequential import Compression, carry_out_on
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.pipeline.job import Job, Reporter
from trt_layermerge.pipeline.loading import Loaded
from trt_layermerge.pipeline.solving import chosen
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.training.decoupling import decouple, settled
from trt_layermerge.training.loop import TrainingResult, fine_tune
from trt_layermerge.training.team import Alone, Team, team


@dataclass(frozen=True)
class Carried:
    """A plan carried out.

    Attributes:
        compression: What was merged and fitted.
        proof: That the merged network computes what its unmerged form does.
        trained: The merged network, trained; batch norms that training was given are in it still.
        training: How that went; ``None`` where nothing was trained.
    """

    compression: Compression
    proof: Proof
    trained: fx.GraphModule
    training: TrainingResult | None


def carry_out_and_train(loaded: Loaded, choices: Sequence[Choice], inputs: Values, reporter: Reporter) -> Carried:
    """Carry out a plan and train, in the order that the recipe asks for.

    Args:
        loaded: The job; its plan file is written.
        choices: The plan's.
        inputs: Real ones, to compare networks on.
        reporter: Told of the stages.
    """
    members = _members(loaded)
    members.wait()  # for those who need the plan
    if _decouples(loaded.job):
        decoupled = decouple(loaded.network, choices)
        training = _fine_tune(loaded, decoupled, members, reporter)
        reporter.stage("merge")
        network = settled(loaded.network, decoupled)
        compression = carry_out_on(members.device(loaded.computes_on), network, choices, (), reporter.progress)
        proof = prove_network(decoupled, compression.merged, inputs, compression.proofs)
        return Carried(compression, proof, compression.merged, training)
    compression = _carry_out(loaded, choices, members, reporter)
    proof = prove_network(compression.linearised, compression.merged, inputs, compression.proofs)
    model = _trainable(loaded, compression, choices, members)
    training = _fine_tune(loaded, model, members, reporter)
    return Carried(compression, proof, model, training)


def leads(loaded: Loaded) -> bool:
    """Whether this process is the one that does the job: the first, or the only one."""
    return team(loaded.computes_on).rank == 0


def share_training(loaded: Loaded) -> None:
    """What the other processes do: wait for the plan, and train with the first one."""
    job, members = loaded.job, _members(loaded)
    if job.recipe is None:
        return
    members.wait()
    choices = chosen(loaded, read_plan(job.plan_file).plan)
    if _decouples(job):
        model = decouple(loaded.network, choices)
    else:
        model = _trainable(loaded, _carry_out(loaded, choices, members, _Silent()), choices, members)
    _fine_tune(loaded, model, members, _Silent())


def _members(loaded: Loaded) -> Team:
    return Alone() if loaded.job.recipe is None else team(loaded.computes_on)


def _decouples(job: Job) -> bool:
    return job.recipe is not None and job.recipe.decouple > 0


class _Silent:
    """A reporter that tells nothing: the first process tells for all."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def progress(self, done: int, total: int, label: str) -> None:
        """Nothing."""


def _carry_out(loaded: Loaded, choices: Sequence[Choice], members: Team, reporter: Reporter) -> Compression:
    reporter.stage("merge")
    device = members.device(loaded.computes_on)
    return carry_out_on(device, loaded.network, choices, _calibration(loaded), reporter.progress, loaded.job.strength)


def _calibration(loaded: Loaded) -> list[Values]:
    return [inputs for inputs, _ in first(loaded.require_task().calibration_batches(), loaded.job.fit_samples)]


def _trainable(loaded: Loaded, compression: Compression, choices: Sequence[Choice], members: Team) -> fx.GraphModule:
    """The merged network; if it will be trained, with the batch norms that merges and fits have folded away."""
    if loaded.job.recipe is not None:
        with placed(compression.merged, members.device(loaded.computes_on)):
            restore_norms(compression.merged, loaded.network, choices, _calibration(loaded))
    return compression.merged


def _fine_tune(loaded: Loaded, model: fx.GraphModule, members: Team, reporter: Reporter) -> TrainingResult | None:
    """Train a model in place, if the job does."""
    job = loaded.job
    if job.recipe is None:
        return None
    reporter.stage("fine-tune")
    name = job.training_name(sha256(job.plan_file))
    start = job.output / f"{name}.start.safetensors"
    if members.rank == 0:
        _start_from_the_same(model, start)
    members.wait()
    if members.rank > 0:
        _start_from_the_same(model, start)
    return fine_tune(
        model,
        loaded.training_task(),
        job.recipe,
        checkpoint=job.output / f"{name}.checkpoint.safetensors",
        teacher=fold_norms(loaded.network.module),  # which computes the same in less time
        progress=reporter.progress,
        team=members,
    )


def _start_from_the_same(model: fx.GraphModule, path: Path) -> None:
    """Keep the weights that training starts from, or take those that an interrupted run started from.

    A fit that is solved again may differ in its last bits, and training goes on only from the very same start.
    """
    if not path.exists():
        write_bytes(path, save({name: value.contiguous() for name, value in model.state_dict().items()}))
        return
    try:
        model.load_state_dict(load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise TableError(
            f"{path} is damaged: {str(error).splitlines()[0]}",
            hint="remove it, and the checkpoint of the same name, to train anew",
        ) from error
