from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.report.charts import Mark, frontier_chart
from trt_layermerge.report.evidence import FrontierPoint


@settings(max_examples=20, deadline=None)
@given(latencies=st.lists(st.integers(-10_000_000, 10_000_000), min_size=1, max_size=12, unique=True))
def test_the_frontier_shows_what_takes_any_time(latencies: list[int]) -> None:
    """Differences of measured latencies may predict none, or less; that is no reason to leave a job without report."""
    points = [FrontierPoint(latency, float(number)) for number, latency in enumerate(sorted(latencies))]
    places = tuple((one.latency_ns / 1e6, one.objective) for one in points)
    marks = [Mark("other budgets", places, "fit", tuple(str(one.latency_ns) for one in points))]
    page = frontier_chart(points, marks, 1.0)
    assert [f'data-tip="{one.latency_ns}"' in page for one in points] == [one.latency_ns > 0 for one in points]
    assert page.count("data-tip") == 2 * sum(latency > 0 for latency in latencies)
