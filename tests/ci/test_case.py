"""What CI reads stays whole whatever a name holds: each file is read back by its own kind of reader."""

from __future__ import annotations

import html
import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.ci.benchmark_action import benchmark_json
from trt_layermerge.ci.case import CiCase, CiReport, Measure, Outcome, printable
from trt_layermerge.ci.junit import junit
from trt_layermerge.ci.markdown import SHOWN, markdown

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b || c\\| d",
    "line\r\nbreak\n\n# heading\n| --- |",
    "\x00\x07\x1b[31mred\x7f\x85",
    "half a pair \ud83d, no character \ufffe",
    "]]> & &amp; \"quoted\" 'twice' <!-- `code` ![x](http://x)",
]
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=()), max_size=40))


def case(name: str, outcome: Outcome = "passed", reason: str | None = None, value: float | None = 0.5) -> CiCase:
    measure = None if value is None else Measure(value, "ms", 0.25)
    return CiCase(name, outcome, "word", reason, ("1.0",), measure)


def report(*cases: CiCase, words: str = "s") -> CiReport:
    return CiReport(words, f"title {words}", (words,), ("ratio",), cases)


def rows_of(text: str) -> list[list[str]]:
    """Cells of the table's rows, as a reader of GitHub's Markdown splits them."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@given(WORDS, WORDS)
def test_a_summary_has_a_row_a_case_and_no_markup_of_its_names(name: str, reason: str) -> None:
    text = markdown(report(case(name, "skipped", reason), case("plain"), words=name))
    text.encode()  # halves of pairs cannot be written
    header, rule, first, second = rows_of(text)
    assert len(header) == len(rule) == len(first) == len(second) == 3
    assert not re.search(r"[<>`\[\]\\]|&(?!#\d+;)", text), "nothing that is markup"
    assert html.unescape(first[2]) == " ".join(f"{printable(name)}: {printable(reason)}".split())
    assert sum(line.startswith("#") for line in text.splitlines()) == 1


def test_a_summary_shows_the_first_rows_and_counts_the_others() -> None:
    text = markdown(report(*(case(str(number)) for number in range(SHOWN + 7))))
    assert len(rows_of(text)) == SHOWN + 2 and "and 7 more rows" in text


@given(WORDS, WORDS, st.sampled_from(["passed", "failed", "skipped"]))
def test_junit_is_read_back_as_it_was(name: str, reason: str, outcome: Any) -> None:
    root = ElementTree.fromstring(junit(report(case(name, outcome, reason), case("plain"), words=name)))
    (suite,) = root
    expected = {"tests": "2", "errors": "0"}
    expected |= {"failures": str(int(outcome == "failed")), "skipped": str(int(outcome == "skipped"))}
    assert expected.items() <= suite.attrib.items()
    first, second = suite.iter("testcase")
    assert first.attrib["name"] == printable(name) and float(first.attrib["time"]) == 0.0005
    assert list(second) == []
    assert [element.tag for element in first] == {"failed": ["failure"], "skipped": ["skipped"], "passed": []}[outcome]
    assert all(element.attrib["message"] == f"word: {printable(reason)}" for element in first)


@given(WORDS)
def test_benchmark_json_has_what_was_measured(name: str) -> None:
    entries = json.loads(benchmark_json(report(case(name), case("nothing", value=None))))
    assert entries == [{"name": printable(name), "unit": "ms", "value": 0.5, "range": "± 0.25"}]


@pytest.mark.parametrize("text", HOSTILE)
def test_printable_is_printable_and_tells_what_was_there(text: str) -> None:
    found = printable(text)
    found.encode()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", found)
    assert printable(found) == found
    if "\x1b" in text:
        assert r"\x1b[31m" in found
