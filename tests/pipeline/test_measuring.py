from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from trt_layermerge.errors import TableError
from trt_layermerge.latency.profile import timing_fields
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.measuring import baseline_stage
from trt_layermerge.pipeline.session import open_session


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"format": "trt_layermerge.baseline"}', '"' + "x" * 9, "[" * 100_000, "\x00"],
)
def test_a_damaged_baseline_is_named_and_left_alone(done: Job, recorder: Any, content: str) -> None:
    done.baseline_file.write_text(content)
    with pytest.raises(TableError, match=r"baseline\.json is damaged"):
        baseline_stage(open_session(done), recorder)
    assert done.baseline_file.read_text() == content


@pytest.mark.parametrize("value", ["fast", True, -1, 1.5])
def test_a_baseline_that_is_no_latency_is_refused(done: Job, recorder: Any, value: object) -> None:
    fields = json.loads(done.baseline_file.read_bytes())
    done.baseline_file.write_text(json.dumps(fields | {"median_ns": value}))
    with pytest.raises(TableError, match="median"):
        baseline_stage(open_session(done), recorder)


def test_the_baseline_of_something_else_is_measured_anew(done: Job, recorder: Any) -> None:
    before = baseline_stage(open_session(done), recorder)
    assert recorder.stages == []
    baseline_stage(open_session(replace(done, batch=1)), recorder)
    assert recorder.stages == ["baseline"] and json.loads(done.baseline_file.read_bytes())["batch"] == 1
    assert timing_fields(before).keys() < json.loads(done.baseline_file.read_bytes()).keys()


@pytest.mark.parametrize("change", [{"version": 2, "median_ns": {}}, {"inputs": {"input": [1, 16, 16]}}])
def test_a_baseline_of_another_program_or_image_size_is_measured_anew(
    done: Job, recorder: Any, change: dict[str, Any]
) -> None:
    """The weights of a network without linear layers are the same whatever the size of its images."""
    before = json.loads(done.baseline_file.read_bytes())
    done.baseline_file.write_text(json.dumps(before | change))
    baseline_stage(open_session(done), recorder)
    after = json.loads(done.baseline_file.read_bytes())
    assert recorder.stages == ["baseline"]
    assert (after["version"], after["inputs"]) == (1, {"input": [1, 8, 8]}) == (before["version"], before["inputs"])
