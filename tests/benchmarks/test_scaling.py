"""The scaling benchmark: its projection by hand, and the script from end to end."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.projection import Links, project
from tests.benchmarks.test_benchmarks import run

LINKS = Links(
    peak=1e12, utilisation=0.5, node=8, node_link=1e9, network_link=1e8, hop=1e-3, parameters=1e6,
    bytes_each=4, tokens=1000,
)  # fmt: skip


def test_a_projection_by_hand():
    (one,) = project({"all-reduce": 1.0}, 1, [8], LINKS)
    assert one.compute_ms == pytest.approx(6 * 1e6 * 1000 / 0.5e12 * 1e3)
    assert one.wire_ms == pytest.approx(2 * 4e6 * 7 / 8 / 1e9 * 1e3)
    assert one.latency_ms == pytest.approx(2 * 3)
    (many,) = project({"all-reduce": 1.0}, 1, [64], LINKS)
    assert many.wire_ms == pytest.approx(one.wire_ms + 2 * 4e6 / 8 * 7 / 8 / 1e8 * 1e3)
    # A gather and a scatter are an all-reduce.
    (pair,) = project({"all-gather": 1.0, "reduce-scatter": 1.0}, 1, [64], LINKS)
    assert pair.wire_ms == pytest.approx(many.wire_ms)
    assert pair.efficiency < pair.overlapped <= 1


def test_assumptions_are_said():
    text = str(dataclasses.replace(LINKS, node=4))
    assert "nodes of 4" in text
    assert "weak scaling" in text


@pytest.mark.slow
def test_the_script_runs(tmp_path):
    done = run("scaling", "--devices", 1, 2, "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert {row["devices"] for row in record["strategies"]} == {1, 2}
    plain = next(
        row for row in record["strategies"] if row["strategy"] == "replicate, jit" and row["devices"] == 2
    )
    parameters = 4 * (64 * 64 * 2 + 64 * 16)
    assert plain["collectives"] == {"all-reduce": 1}
    assert plain["sent_bytes"] == parameters + 4
    assert record["processes"]["loss_deviation"] < 1e-4
    assert "| two processes, Gloo |" in done.stdout
    assert {row["devices"] for row in record["projection"]} == {8, 64, 512, 4096}
