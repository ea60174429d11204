"""Does importance in closed form rank choices as fine-tuning each of them does, and how much sooner?

Every merge and every dropped block of ResNet-20 has a row by the papers' estimator ``finetune`` and one by ``fit``: the
same block, replaced by a convolution of the same geometry, solved instead of trained. Printed are Kendall's tau (tau-b)
of the two losses after the change, of the one-shot ``product`` with ``finetune`` for comparison, and the seconds that
the rows took. Fine-tuning all of them takes hours on one core, so the pairs are drawn with a fixed seed (--pairs 0
takes all). All tables are kept: the benchmark resumes, and run with more pairs it measures only those that are new.

    python benchmarks/importance.py --pairs 40
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.importance.estimate import Estimation, Estimator, measure, table_key
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.training.load import load_task
from trt_layermerge.training.task import Task

EXAMPLE = Path("examples/fashion_mnist")
GOAL_TAU, GOAL_RATIO = 0.7, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=40, help="how many pairs of rows to compare; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs that are drawn")
    parser.add_argument("--output", type=Path, default=Path("runs/importance"), help="folder of the tables")
    given = parser.parse_args()
    network = load_network(f"{EXAMPLE}/model.py:resnet20", EXAMPLE / "resnet20.safetensors")
    task = load_task(EXAMPLE / "task.py")
    pairs = matched(choices_of(network))
    random.Random(given.seed).shuffle(pairs)  # so that more pairs are these and others
    drawn = pairs[: given.pairs or None]
    papers, ours = [paper for paper, _ in drawn], [own for _, own in drawn]
    tables = {
        Estimator.FIT: filled(network, task, given.output, Estimator.FIT, ours),
        Estimator.PRODUCT: filled(network, task, given.output, Estimator.PRODUCT, papers),
        Estimator.FINETUNE: filled(network, task, given.output, Estimator.FINETUNE, papers),
    }
    report(tables, papers, ours, len(pairs))


def matched(choices: Sequence[Choice]) -> list[tuple[Choice, Choice]]:
    """Choices of the papers with the one of ours that has the same latency: the same geometry, fitted."""
    fits = {(choice.block, choice.geometry): choice for choice in choices if choice.kind is Kind.FIT}
    pairs = [(one, fits.get((one.block, one.geometry))) for one in choices if one.kind is Kind.MERGE]
    same = [(one, one) for one in choices if one.kind is Kind.IDENTITY]
    return [(paper, own) for paper, own in pairs if own is not None] + same


def filled(network: Network, task: Task, folder: Path, how: Estimator, choices: Sequence[Choice]) -> ImportanceTable:
    """The table of an estimator, with rows of some choices at least."""
    folder.mkdir(parents=True, exist_ok=True)
    estimation = Estimation(how)
    table = ImportanceTable.open(folder / f"{how}.jsonl", table_key(network, task, estimation))

    def progress(done: int, total: int, label: str) -> None:
        print(f"\r{how}: {done} of {total}  {label:<40}", end="", file=sys.stderr, flush=True)

    measure(network, choices, task, table, estimation, progress)
    print(file=sys.stderr)
    return table


def report(
    tables: dict[Estimator, ImportanceTable], papers: Sequence[Choice], ours: Sequence[Choice], pairs: int
) -> None:
    losses, accuracies, seconds = {}, {}, {}
    for how, table in tables.items():
        rows = [table.get(choice.key) for choice in (ours if how is Estimator.FIT else papers)]
        found = [row for row in rows if row is not None]
        losses[how] = np.array([row.loss_after for row in found])
        accuracies[how] = np.array([row.accuracy_after for row in found])
        seconds[how] = sum(row.seconds for row in found)
    trained = Estimator.FINETUNE
    print(f"ResNet-20 on Fashion-MNIST, {len(papers)} of {pairs} pairs of rows\n")
    print(f"{'estimator':<10} {'seconds':>9} {'times less':>11} {'tau, loss':>10} {'tau, accuracy':>14}")
    for how in tables:
        by_loss, by_accuracy = tau(losses[how], losses[trained]), tau(accuracies[how], accuracies[trained])
        ratio = seconds[trained] / seconds[how]
        print(f"{how:<10} {seconds[how]:>9.1f} {ratio:>10.1f}x {by_loss:>10.3f} {by_accuracy:>14.3f}")
    reached = tau(losses[Estimator.FIT], losses[trained]), seconds[trained] / seconds[Estimator.FIT]
    verdict = "reached" if reached[0] >= GOAL_TAU and reached[1] >= GOAL_RATIO else "missed"
    print(f"\ngoal: tau of fit >= {GOAL_TAU} in {GOAL_RATIO} times less time: {verdict}")


def tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b: the share of pairs in the same order less that in the opposite one, ties allowed for."""
    above = np.triu_indices(len(a), 1)
    da, db = np.sign(a[:, None] - a)[above], np.sign(b[:, None] - b)[above]
    return float((da * db).sum() / np.sqrt((da != 0).sum() * (db != 0).sum()))


if __name__ == "__main__":
    main()
