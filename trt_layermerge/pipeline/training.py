"""From a plan to a trained network: merged and then trained, or, decoupled, trained and then merged.

Where a launcher has started several processes, the first one does the whole job, and the others share its training.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save
from torch import fx

from trt_layermerge.errors import TableError
from trt_layermerge.files import sha256, write_bytes
from trt_layermerge.importance.evaluator import first
from trt_layermerge.log import record
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_network
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.sequential import Compression, execute_on
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import ChosenPlan, chosen
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.progress import Reporter
from trt_layermerge.training.decoupling import decouple, settled
from trt_layermerge.training.loop import TrainingResult, fine_tune
from trt_layermerge.training.process_group import Alone, ProcessGroup, group
from trt_layermerge.training.task import Unlabelled
from trt_layermerge.training.unlabelled.inner_states import Observed, observe_blocks

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Executed:
    """A plan executed.

    Attributes:
        compression: What was merged and fitted.
        proof: That the merged network computes what its unmerged form does.
        trained: The merged network, trained; batch norms that training was given are in it still.
        training: How that went; ``None`` where nothing was trained.
        untrained: The merged network as training began; ``None`` where there was none, or it came before the merges.
    """

    compression: Compression
    proof: Proof
    trained: fx.GraphModule
    training: TrainingResult | None
    untrained: fx.GraphModule | None = field(default=None, repr=False)


def execute_and_train(session: Session, plan: ChosenPlan, inputs: Values, reporter: Reporter) -> Executed:
    """Execute a plan and train, in the order that the recipe asks for.

    Args:
        session: The job; its plan file is written.
        plan: What to execute.
        inputs: Real ones, to compare networks on.
        reporter: Told of the stages.
    """
    members = _members(session)
    members.wait()  # for those who need the plan
    if _decouples(session.job):
        decoupled = decouple(session.network, plan.choices)
        training = _fine_tune(session, decoupled, plan, members, reporter)
        reporter.stage("merge")
        network = settled(session.network, decoupled)
        compression = execute_on(members.device(session.computes_on), network, plan.choices, (), reporter.progress)
        proof = prove_network(decoupled, compression.merged, inputs, compression.proofs)
        return Executed(compression, proof, compression.merged, training)
    compression = _execute(session, plan, members, reporter)
    proof = prove_network(compression.linearised, compression.merged, inputs, compression.proofs)
    model = _trainable(session, compression, plan, members)
    untrained = None if session.job.recipe is None else copy.deepcopy(model)
    training = _fine_tune(session, model, plan, members, reporter)
    return Executed(compression, proof, model, training, untrained)


def leads(session: Session) -> bool:
    """Whether this process is the one that does the job: the first, or the only one."""
    return group(session.computes_on).rank == 0


def share_training(session: Session) -> None:
    """What the other processes do: wait for the plan, and train with the first one."""
    job, members = session.job, _members(session)
    if job.recipe is None:
        return
    members.wait()
    plan = chosen(session, read_plan(job.plan_file).plan)
    if _decouples(job):
        model = decouple(session.network, plan.choices)
    else:
        model = _trainable(session, _execute(session, plan, members, Reporter()), plan, members)
    _fine_tune(session, model, plan, members, Reporter())


def _members(session: Session) -> ProcessGroup:
    return Alone() if session.job.recipe is None else group(session.computes_on)


def _decouples(job: Job) -> bool:
    return job.recipe is not None and job.recipe.decouple > 0


def _execute(session: Session, plan: ChosenPlan, members: ProcessGroup, reporter: Reporter) -> Compression:
    reporter.stage("merge")
    device = members.device(session.computes_on)
    data, job = _calibration(session), session.job
    return execute_on(
        device, session.network, plan.choices, data, reporter.progress, job.strength, plan.kept, job.memory
    )


def _calibration(session: Session) -> list[Values]:
    return [inputs for inputs, _ in first(session.require_task().calibration_batches(), session.job.fit_samples)]


def _trainable(session: Session, compression: Compression, plan: ChosenPlan, members: ProcessGroup) -> fx.GraphModule:
    """The merged network; if it will be trained, with the batch norms that merges and fits have folded away."""
    if session.job.recipe is not None:
        with placed(compression.merged, members.device(session.computes_on)):
            restore_norms(compression.merged, session.network, plan.choices, _calibration(session))
    return compression.merged


def _fine_tune(
    session: Session, model: fx.GraphModule, plan: ChosenPlan, members: ProcessGroup, reporter: Reporter
) -> TrainingResult | None:
    """Train a model in place, if the job does."""
    job = session.job
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
    task, network = session.training_task(), session.network
    # The teacher has its norms folded, which computes the same in less time.
    if isinstance(task, Unlabelled):
        seen = observe_blocks(network, model, plan.choices)
    else:
        seen = Observed(model, fold_norms(network.module))
    result = fine_tune(
        seen.student,  # whose weights are the model's
        task,
        job.recipe,
        checkpoint=job.output / f"{name}.checkpoint.safetensors",
        teacher=seen.teacher,
        progress=reporter.progress,
        group=members,
    )
    about = {"steps": result.steps, "resumed_at": result.resumed_at, "lr": result.lr, "backoffs": result.backoffs}
    message = "trained %d steps from step %d on, peak learning rate %g"
    record(_LOG.info, "training", message, result.steps, result.resumed_at, result.lr, **about)
    return result


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
            hint="remove it, and the checkpoint of the same name, to train again",
        ) from error
