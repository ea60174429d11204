from __future__ import annotations

from pathlib import Path

import pytest

from trt_layermerge.runtimes import machine

EPYC = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 26
model		: 2
model name	: AMD EPYC
stepping	: 1
"""
GRAVITON = """processor	: 0
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0xd40
CPU revision	: 1
"""


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_an_x86_is_named_by_family_model_and_stepping(cpu_info: Path) -> None:
    cpu_info.write_text(EPYC)
    assert machine.cpu_name() == "AMD EPYC, family 26 model 2 stepping 1"


@pytest.mark.parametrize("line", ["cpu family	: 26", "model		: 2", "stepping	: 1"])
def test_each_of_them_tells_two_machines_apart(cpu_info: Path, line: str) -> None:
    names = set()
    for content in (EPYC, EPYC.replace(line, line.rpartition(" ")[0] + " 17")):
        cpu_info.write_text(content)
        names.add(machine.cpu_name())
    assert len(names) == 2


def test_an_arm_is_named_by_its_part(cpu_info: Path) -> None:
    cpu_info.write_text(GRAVITON)
    assert machine.cpu_name().endswith(", implementer 0x41 part 0xd40 variant 0x1 revision 1")


def test_a_machine_that_tells_nothing_has_a_name(cpu_info: Path) -> None:
    assert machine.cpu_name() and ", " not in machine.cpu_name()
