import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import optimizer_step, sparse_table, tables
from benchmarks.contenders import CONTENDERS, DEFAULT
from benchmarks.harness import interleave, turn
from benchmarks.hlo import operations_on
from benchmarks.parameter_sets import parameter_set, sample, value

ROOT = Path(__file__).parents[2]


def run(module, *arguments):
    """Runs a benchmark as a user does, without the virtual devices of the tests."""
    environment = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--quick", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "size", "leaves"),
    [
        ("mlp", 101_770, 4),
        ("resnet50", 25_557_032, 161),
        ("gpt2", 124_439_808, 148),
        ("single", 67_108_864, 1),
        ("many", 128_000, 2000),
    ],
)
def test_the_sets_are_those_of_the_real_networks(name, size, leaves):
    parameters = parameter_set(name)
    assert (parameters.size, len(parameters.leaves)) == (size, leaves)
    assert len({leaf.path for leaf in parameters.leaves}) == leaves


def test_layouts_lead_to_pytorchs():
    stem, *_ = parameter_set("resnet50").leaves
    array = value(stem, 0, gradient=False)
    assert array.shape == (7, 7, 3, 64)
    assert array.transpose(stem.axes).shape == (64, 3, 7, 7)


def test_leaves_of_one_shape_have_different_values():
    first, second, *_ = parameter_set("many").leaves
    arrays = [value(leaf, i, gradient=g) for i, leaf in enumerate((first, second)) for g in (False, True)]
    assert len({array.tobytes() for array in arrays}) == 4


def test_contenders_take_turns():
    order = []
    turns = {name: lambda name=name: order.append(name) or [1.0, 3.0, 2.0] for name in "abc"}
    assert interleave(turns, 4) == dict.fromkeys("abc", [2.0] * 4)
    rounds = [order[i : i + 3] for i in range(0, 12, 3)]
    assert all(sorted(names) == list("abc") for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


class Counter:
    def __init__(self, seconds=0.0):
        self.seconds, self.steps, self.waits = seconds, 0, 0

    def step(self):
        time.sleep(self.seconds)
        self.steps += 1

    def wait(self):
        self.waits += 1


def test_a_turn_is_warmed_up_and_waits_for_every_burst():
    counter = Counter()
    times = turn(counter, 0.05, burst=4)
    warming = counter.waits - len(times)
    assert warming >= 1
    assert counter.steps == warming + 4 * len(times)


def test_steps_that_fill_a_turn_are_waited_for_one_by_one():
    counter = Counter(0.01)
    assert len(turn(counter, 0.01, burst=4)) == 3
    assert counter.steps == counter.waits


@pytest.mark.parametrize(("change", "ratio"), [(0.0, 0.0), (0.5, 0.5), (np.nan, None), (np.inf, None)])
def test_a_contender_that_computes_something_else_is_found(change, ratio):
    parameters = parameter_set("mlp", quick=True)
    start = {leaf.path: sample(value(leaf, i, gradient=False)) for i, leaf in enumerate(parameters.leaves)}
    right = {path: array + 1 for path, array in start.items()}
    wrong = dict(right)
    wrong["layers/1/bias"] = right["layers/1/bias"] + np.float32(change)
    found = optimizer_step.deviations(parameters, {"torch": right, "ours": wrong})
    assert found["torch"] == {"of": "torch", "ratio": 0.0}
    assert found["ours"]["ratio"] == (ratio if ratio is None else pytest.approx(ratio, rel=1e-5))


def test_operations_on_the_whole_table_are_found():
    def operations(f, donated):
        text = jax.jit(f, donate_argnums=donated).lower(jnp.zeros((300, 7))).compile().as_text()
        return set(operations_on(text, (300, 7)))

    rows = jnp.array([5, 9])
    harmless = sparse_table.HARMLESS
    assert operations(lambda x: x.at[rows].add(1.0), (0,)) <= harmless
    assert operations(lambda x: x.at[rows].add(1.0), ()) - harmless  # has to copy it
    assert "multiply" in operations(lambda x: x.at[rows].add(1.0) * 2, (0,))
    assert operations(lambda x: x.sum(), ()) - harmless


def test_ratios_are_geometric_means_over_the_sets():
    def row(name, contender, peer, ms):
        return {"optimizer": "adam", "set": name, "contender": contender, "peer": peer, "step_ms": ms}

    rows = [row("mlp", "optax", True, 1.0), row("mlp", "ours", False, 2.0)]
    rows += [row("gpt2", "optax", True, 8.0), row("gpt2", "ours", False, 1.0)]
    (found,) = tables.ratios(rows)
    assert found["ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize("script", [optimizer_step, sparse_table], ids=["optimizer_step", "sparse_table"])
def test_without_pytorch_one_line_names_the_extra(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stopped:
        script.main(["--quick"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "torch is not installed; it comes with pip install 'jaxopt-core[test]'\n"
    )


@pytest.mark.slow
def test_optimizer_step_runs_and_records(tmp_path):
    out = tmp_path / "result.json"
    optimizers = ("adamw", "adafactor")
    done = run("optimizer_step", "--sets", "mlp", "many", "--optimizers", *optimizers, "--out", out)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert {"cpu", "cores", "versions", "copy_gb_per_s", "settings"} <= set(record["machine"])
    rows = {(row["optimizer"], row["set"], row["contender"]): row for row in record["results"]}
    expected = {(o, s, c) for o in optimizers for s in ("mlp", "many") for c in DEFAULT}
    assert set(rows) == {row for row in expected if row[0] not in CONTENDERS[row[2]].lacks}
    assert all(row["step_ms"] > 0 and row["ratio_to_best_peer"] > 0 for row in rows.values())
    compared = {key for key, row in rows.items() if row["deviation"]}
    differs = {row for row in rows if row[0] in CONTENDERS[row[2]].differs}
    assert compared == set(rows) - differs
    adamw = rows["adamw", "many", "ours"]
    assert adamw["state_bytes"] == pytest.approx(8 * adamw["parameters"], rel=0.01)
    assert adamw["traffic_bytes"] == pytest.approx(28 * adamw["parameters"], rel=0.01)
    assert "| parameters (leaves)" in done.stdout
    assert "geometric mean over the sets" in done.stdout

    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.tables", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ours / best peer" in printed.stdout


@pytest.mark.slow
def test_contenders_of_another_process_take_part(tmp_path):
    out = tmp_path / "result.json"
    arguments = (
        "--sets",
        "mlp",
        "--optimizers",
        "adam",
        "--contenders",
        "ours",
        "ours, setup_cpu",
        "--out",
        out,
    )
    done = run("optimizer_step", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["results"]
    assert [row["contender"] for row in rows] == ["ours", "ours, setup_cpu"]
    assert all(row["best_peer"] is None for row in rows)


@pytest.mark.slow
def test_sparse_table_touches_the_rows_only(tmp_path):
    out = tmp_path / "result.json"
    done = run("sparse_table", "--out", out)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert [program["whole_table"] for program in record["programs"]] == [[], []]
    assert "No operation reads or writes a whole table" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "names"),
    [
        ("loop_overhead", ["--rounds", "1", "--batches", "8"], {"jitted step", "fit", "torch loop"}),
        ("recovery", ["--faults", "1"], {"jaxopt-core launch", "torchrun"}),
    ],
)
def test_small_runs_record(tmp_path, script, arguments, names):
    out = tmp_path / "record.json"
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    assert names <= {row.get("contender", row.get("launcher")) for row in results}
    assert done.stdout.count("|") > 10
