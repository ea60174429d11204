from __future__ import annotations

from tests.planning.methods.measured import ALL, values
from trt_layermerge.planning.methods.joint import Joint


def test_it_takes_all_and_values_the_change_of_the_loss() -> None:
    problem = Joint().problem([1], ALL, fixed_ns=-3, original_ns=10)
    assert values(problem) == {"keep": 0.0, "merge": -0.25, "fit": 0.25, "gone": -2.0, "fixed": -2.0}
    assert (problem.lengths, problem.fixed_ns, problem.original_ns, problem.method) == ((1,), -3, 10, "joint")
