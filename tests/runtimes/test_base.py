from __future__ import annotations

import pytest

from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.runtimes.base import is_installed, require_computed
from trt_layermerge.runtimes.builder_settings import BuilderSettings
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings, GpuSettings, TensorRtSettings
from trt_layermerge.runtimes.registry import runtime_kinds


@pytest.mark.parametrize("wrong", [{"workspace_mib": 0}, {"optimization_level": 6}, {"lock_clocks_mhz": -1}])
def test_a_setting_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TensorRtSettings(**wrong)


def test_a_kind_takes_what_it_has_of_anothers_settings() -> None:
    given = TensorRtSettings(workspace_mib=64, tf32=True, cuda_graph=False)
    assert CompilerSettings.of(given) == CompilerSettings(workspace_mib=64, tf32=True, cuda_graph=False)
    assert GpuSettings.of(given) == GpuSettings(tf32=True, cuda_graph=False)
    assert TensorRtSettings.of(CompilerSettings(tf32=True)) == TensorRtSettings(tf32=True)
    assert (
        TensorRtSettings.of(BuilderSettings()) == TensorRtSettings() and BuilderSettings.of(given) == BuilderSettings()
    )


def test_every_setting_of_every_kind_has_an_option() -> None:
    for kind in runtime_kinds():
        options = kind.settings.options()
        assert all(option.name.startswith("--") and option.help for option in options.values())
        assert len({option.key for option in options.values()}) == len(options)


def test_a_module_is_looked_for_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed("json") and not is_installed("no_such_module") and not is_installed("no_such.module")


def test_an_engine_without_convolutions_claims_nothing() -> None:
    require_computed(frozenset(), "int8", "it")
    require_computed(frozenset({"fp16", "fp32"}), "fp16", "it")
    with pytest.raises(ModelError, match="without a single int8 convolution: all are in fp16, fp32") as caught:
        require_computed(frozenset({"fp16", "fp32"}), "int8", "it")
    assert caught.value.exit_code is ExitCode.BAD_INPUT
