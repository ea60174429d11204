"""Skips what cannot run here, with the reason. Nothing of other tests is needed: they need packages of their own."""

from __future__ import annotations

import pytest

from tests.gpu.parts import PARTS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [(item, mark.args[0]) for item in items if (mark := item.get_closest_marker("gpu"))]
    wanted = {name for _, name in marked}
    lacking = {part.name: part.lacking() for part in PARTS if part.name in wanted}
    for item, name in marked:
        if lacking[name]:
            item.add_marker(pytest.mark.skip(reason=lacking[name]))
