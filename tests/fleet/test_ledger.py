"""Whatever happens to workers, in whatever turn: each item is settled once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.fleet.ledger import MOST_LOSSES, Ledger


@given(st.integers(0, 40), st.integers(1, 8), st.integers(1, 5), st.data())
def test_each_item_is_measured_or_given_up_once(items: int, group: int, workers: int, data: st.DataObject) -> None:
    ledger, had, settled, losses = Ledger(items, group), {}, [], [0] * items
    while not ledger.settled:
        worker = data.draw(st.integers(0, workers - 1))
        if worker not in had:
            before = ledger.waiting
            taken = ledger.take(worker, workers)
            assert len(taken) <= group and ledger.waiting == before - len(taken)
            assert bool(taken) == bool(before) and taken == sorted(taken)
            assert not any(losses[number] for number in taken) or len(taken) == 1, "what was lost comes alone"
            if taken:
                had[worker] = taken
        elif data.draw(st.booleans()):
            ledger.done(worker)
            settled += had.pop(worker)
        else:
            lost = had.pop(worker)
            for number in lost:
                losses[number] += 1
            again, given_up = ledger.lost(worker)
            assert sorted([*again, *given_up]) == lost
            assert given_up == [number for number in lost if losses[number] == MOST_LOSSES]
            settled += given_up
    assert sorted(settled) == list(range(items)) and not had


@given(st.integers(1, 200), st.integers(1, 8))
def test_one_worker_gets_them_as_it_would_alone(items: int, group: int) -> None:
    ledger, turns = Ledger(items, group), []
    while taken := ledger.take("only", 1):
        turns.append(taken)
        ledger.done("only")
    assert turns == [list(range(begin, min(begin + group, items))) for begin in range(0, items, group)]


@given(st.integers(1, 300), st.integers(2, 10))
def test_several_workers_end_together(items: int, workers: int) -> None:
    """Items that take equally long: nobody waits longer than for one item, but for what a group is shorter."""
    ledger, busy_until, group = Ledger(items, 8), [0] * workers, 8
    while ledger.waiting:
        worker = min(range(workers), key=busy_until.__getitem__)
        busy_until[worker] += len(ledger.take(worker, workers))
        ledger.done(worker)
    assert max(busy_until) - min(busy_until) <= max(1, min(group, -(-items // (2 * workers))))


def test_a_worker_that_had_nothing_loses_nothing() -> None:
    ledger = Ledger(3, 8)
    assert ledger.lost("idle") == ([], []) and ledger.take("other", 1) == [0, 1, 2]
