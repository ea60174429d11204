from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.report.evidence import Evidence
from trt_layermerge.report.summary import NAMED, FigureRow, summarise


def row(manifest: Manifest, name: str) -> FigureRow | None:
    return next((row for row in summarise(manifest).figures if row.name == name), None)


def changed(manifest: Manifest, **accuracies: float | None) -> Manifest:
    return manifest.model_copy(
        update={name: getattr(manifest, name).model_copy(update={"accuracy": a}) for name, a in accuracies.items()}
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(before=st.integers(1, 10**12), after=st.integers(0, 10**12))
def test_a_count_is_told_with_its_change(manifest: Manifest, before: int, after: int) -> None:
    update = {
        name: getattr(manifest, name).model_copy(update={"flops": flops})
        for name, flops in (("original", before), ("compressed", after))
    }
    found = row(manifest.model_copy(update=update), "flops")
    assert found is not None and [int(text.replace(",", "")) for text in found.values] == [before, after]
    assert float(found.change.rstrip("%")) == pytest.approx(100 * (after / before - 1), abs=0.5001)


def test_accuracies_are_percentages_and_other_metrics_are_not(manifest: Manifest) -> None:
    percent = row(changed(manifest, original=0.93, compressed=0.9212), "test accuracy")
    assert percent is not None and (*percent.values, percent.change) == ("93.00%", "92.12%", "-0.88 points")
    named = changed(manifest, original=-0.02, compressed=-0.03).model_copy(update={"metric": "minus MSE"})
    other = row(named, "test minus MSE")
    assert other is not None and (*other.values, other.change) == ("-0.02", "-0.03", "-0.01")
    assert row(named, "test accuracy") is None


@pytest.mark.parametrize("missing", ["original", "compressed"])
def test_what_was_not_measured_has_no_row(manifest: Manifest, missing: str) -> None:
    assert row(changed(manifest, **{missing: None}), "test accuracy") is None
    figures = getattr(manifest, missing).model_copy(update={"depth": None})
    assert row(manifest, "depth") is not None and row(manifest.model_copy(update={missing: figures}), "depth") is None


def test_a_prediction_is_compared_with_what_was_measured(manifest: Manifest) -> None:
    told = summarise(manifest).prediction
    assert told.measured_ms == manifest.compressed.latency_ms
    assert told.measured_ms * (1 + told.error) == pytest.approx(told.predicted_ms)
    assert told.planned_ms * 1e6 == pytest.approx(manifest.plan["latency_ns"])


def test_every_comparison_of_the_proof_has_its_own_limit(manifest: Manifest, fp16: Manifest) -> None:
    assert [row.allowed for row in summarise(manifest).proof] == [1e-10, 1e-4, 1e-4, 1e-4]
    assert [row.allowed for row in summarise(fp16).proof] == [1e-10, 1e-4, 1e-4, 1e-2]
    proof = fp16.proof
    errors = [proof.worst_block, proof.merge_end_to_end, proof.fold_end_to_end, proof.engine]
    assert [row.error for row in summarise(fp16).proof] == errors


def test_every_block_of_the_plan_has_a_row(manifest: Manifest) -> None:
    blocks = summarise(manifest).blocks
    assert len(blocks) == len(manifest.plan["items"])
    fitted = {block.place: block.missed for block in blocks if block.missed is not None}
    assert sorted(fitted.values()) == sorted(manifest.proof.fitted_blocks.values()) != []


@pytest.mark.parametrize(
    ("groups", "becomes"), [("g1", "fit 3x3"), ("g12", "fit 3x3, 12 groups"), ("g1 +relu", "fit 3x3 +relu")]
)
def test_groups_are_told_where_there_are_several(manifest: Manifest, groups: str, becomes: str) -> None:
    first, *others = manifest.plan["items"]
    plan = manifest.plan | {"items": [first | {"key": f"0:0-1 fit 3x3 {groups}"}, *others]}
    assert summarise(manifest.model_copy(update={"plan": plan})).blocks[0].becomes == becomes


def test_layers_that_stay_in_fp32_are_named(manifest: Manifest, fp16: Manifest) -> None:
    assert fp16.conversion is not None and summarise(manifest).full == ()
    full = summarise(fp16).full
    assert full and [layer.full for layer in fp16.conversion.layers if layer.name in full] == [True] * len(full)


def test_a_block_tells_its_layers_by_name_and_of_many_the_first(manifest: Manifest, evidence: Evidence) -> None:
    for block in summarise(manifest, evidence).blocks:
        assert [layer.name for layer in block.replaced] == block.told.splitlines()[1 : 1 + len(block.replaced)]
        assert block.before_ms == pytest.approx(0.006 * block.layers)
        many = replace(block, replaced=block.replaced * 20)
        assert f"and {20 * len(block.replaced) - NAMED} more" in many.told and len(many.told.splitlines()) < 20
