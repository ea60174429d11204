"""A report as JUnit XML, which GitHub's and GitLab's test views, Jenkins and others read."""

from __future__ import annotations

from xml.etree import ElementTree

from trt_layermerge.ci.case import CiCase, CiReport, printable


def junit(report: CiReport) -> bytes:
    """One suite with a case for each row; times are what was measured, in seconds."""
    root = ElementTree.Element("testsuites")
    counts = {"tests": len(report.cases), "failures": report.count("failed"), "skipped": report.count("skipped")}
    about = {"name": printable(report.suite), "errors": "0"} | {name: str(count) for name, count in counts.items()}
    suite = ElementTree.SubElement(root, "testsuite", about)
    for case in report.cases:
        _add(suite, case, report.suite)
    notes = ElementTree.SubElement(suite, "system-out")
    notes.text = printable("\n".join([report.title, *report.notes]))
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _add(suite: ElementTree.Element, case: CiCase, name: str) -> None:
    about = {"classname": printable(name), "name": printable(case.name)}
    if case.measure is not None and case.measure.unit == "ms":
        about["time"] = f"{case.measure.value / 1e3:.9f}"
    element = ElementTree.SubElement(suite, "testcase", about)
    if case.outcome == "passed":
        return
    message = printable(case.verdict if case.reason is None else f"{case.verdict}: {case.reason}")
    kind = "failure" if case.outcome == "failed" else "skipped"
    ElementTree.SubElement(element, kind, {"message": message}).text = message
