from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.errors import TableError
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import latency_ns, worthwhile
from trt_layermerge.pipeline.session import open_session


def test_what_pays_is_faster_than_keeping(done: Job) -> None:
    session = open_session(done)
    kept = {c.block.end: latency_ns(session, c) for c in session.choices if c.kind is Kind.KEEP}
    paying = worthwhile(session)
    assert {c.block.end for c in paying if c.kind is Kind.KEEP} == kept.keys() == {1, 2, 3, 4}
    for choice in session.choices:
        latency, keeping = (
            latency_ns(session, choice),
            [kept[i + 1] for i in range(choice.block.start, choice.block.end)],
        )
        assert latency is not None and None not in keeping
        assert (choice in paying) == (choice.kind is Kind.KEEP or latency < sum(filter(None, keeping)))


def test_without_latencies_nothing_can_pay(tmp_path: Path, quick_job: Any) -> None:
    with pytest.raises(TableError, match=r"no latency for layer 0:0-1") as caught:
        worthwhile(open_session(quick_job(tmp_path)))
    assert "trt-layermerge profile" in str(caught.value)
