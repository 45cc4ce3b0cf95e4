"""Half a minute of a soak; `make soak` goes on for hours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness.stage import Stage
from tests.soak.report import render
from tests.soak.run import Options, soak

pytestmark = pytest.mark.timeout(600)

# Too short for the last fault of a cycle, the slow start of an API server.
OPTIONS = {"minutes": 0.45, "every": 1.0, "pace": 0.1}


def test_a_soak_samples_both_processes_judges_each_figure_and_finds_nothing_wrong(
    tmp_path: Path,
) -> None:
    file = tmp_path / "samples.jsonl"
    with Stage(tmp_path) as stage:
        report = soak(stage, tmp_path, Options(samples=file, **OPTIONS))

    assert report.problems == [], render(report)
    assert report.rows > 0
    assert report.faults > 0
    assert report.guests > 0
    processes = {"operator", "scannerjob run"}
    assert {json.loads(line)["process"] for line in file.read_text().splitlines()} == processes
    judged = {(figure.process, figure.name): growth for figure, growth in report.figures}
    for process in processes:
        assert judged[process, "PSS"].maximum > judged[process, "USS"].early > 0
        assert judged[process, "connections: database"].maximum > 0
        assert judged[process, "threads"].early > 0
    assert judged["operator", "connections: API server"].maximum > 0
    assert judged["scannerjob run", "connections: API server"].maximum == 0
