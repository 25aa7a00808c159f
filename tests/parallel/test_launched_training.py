"""Real trainings under the launcher: several processes, ZeRO-1, faults, and other numbers of processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
PATIENCE = 300.0  # seconds: the machine may be busy with other tests


def launch(out, *arguments, nproc=2, devices=2, script=HERE / "training_script.py", options=()):
    """Exit status and all that was printed."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "jaxopt_core.parallel.launch", "--nproc", str(nproc)]
    command += ["--devices-per-proc", str(devices), "--logs", str(out / "logs"), "--backoff", "0.1"]
    environ = {name: value for name, value in os.environ.items() if name != "NPROC"}
    done = subprocess.run(
        [*command, *options, str(script), "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        env=environ,
        check=False,
    )
    return done.returncode, done.stdout


def order(out, nproc):
    """The last record of each step: the examples of all ranks, and the loss."""
    ranks = []
    for rank in range(nproc):
        lines = (out / f"order-{rank}.jsonl").read_text().splitlines()
        ranks.append({step: (ids, loss) for step, ids, loss in map(json.loads, lines)})
    return {
        step: ([n for rank in ranks for n in rank[step][0]], loss) for step, (_, loss) in ranks[0].items()
    }


def end(out):
    with np.load(out / "end.npz") as held:
        return dict(held)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    status, printed = launch(out)
    assert status == 0, printed
    return out


def test_after_an_exception_and_a_kill_the_end_is_bitwise_equal(reference, tmp_path):
    status, printed = launch(tmp_path, "--faults", "0:1:7:raise", "1:0:12:kill")
    assert status == 0, printed
    assert re.search(r"attempt 0: rank 1 failed: ArithmeticError: a deliberate mistake", printed)
    assert "in deliberate_mistake" in printed
    assert "attempt 1: rank 0 was ended by SIGKILL" in printed
    assert len(list((tmp_path / "logs").glob("*/attempt-*"))) == 3
    for name, expected in end(reference).items():
        np.testing.assert_array_equal(end(tmp_path)[name], expected)
    assert order(tmp_path, 2) == order(reference, 2)


@pytest.mark.slow
def test_sigterm_to_one_rank_saves_one_step_and_any_number_goes_on(reference, tmp_path):
    status, printed = launch(tmp_path, "--faults", "0:1:4:term", "--every", "100", "--pause", "0.3")
    assert status == 143, printed
    saved = re.findall(r"\[rank (\d)\] saved (\d+)", printed)
    assert {rank for rank, _ in saved} == {"0", "1"}
    assert len({step for _, step in saved}) == 1, saved
    step = saved[0][1]
    assert int(step) >= 4
    before = order(tmp_path, 2)
    status, printed = launch(tmp_path, nproc=4, devices=1)
    assert status == 0, printed
    assert printed.count(f"begins at {step}") == 4
    expected, after = order(reference, 2), order(tmp_path, 1)
    assert [before[n][0] for n in before] == [expected[n][0] for n in before]
    assert min(set(after) - set(before), default=21) == int(step) + 1
    after = {n: order_of(tmp_path, 4, n) for n in range(int(step) + 1, 21)}
    assert after == {n: expected[n][0] for n in after}
    for name, value in end(reference).items():
        np.testing.assert_allclose(end(tmp_path)[name], value, rtol=1e-5, atol=1e-6)


def order_of(out, nproc, step):
    ids = []
    for rank in range(nproc):
        records = map(json.loads, (out / f"order-{rank}.jsonl").read_text().splitlines())
        ids += [record for record in records if record[0] == step][-1][1]
    return ids


@pytest.mark.slow
def test_stuck_and_stopped_ranks_are_restarted(reference, tmp_path):
    status, printed = launch(
        tmp_path, "--faults", "0:1:7:sleep", "1:0:8:stop", options=("--stall-timeout", "20")
    )
    assert status == 0, printed
    assert "attempt 0: rank 1 made no step for 20 s since step 6" in printed
    assert "training_script.py" in printed.split("stacks of rank 1")[1].split("stacks of")[0]
    assert "attempt 1: rank 0" in printed
    for name, expected in end(reference).items():
        np.testing.assert_array_equal(end(tmp_path)[name], expected)


def test_a_checkpoint_of_another_model_is_refused(reference, tmp_path):
    subprocess.run(["cp", "-r", str(reference / "checkpoints"), str(tmp_path)], check=True)
    status, printed = launch(tmp_path, "--width", "6", nproc=1, options=("--max-restarts", "0"))
    assert status == 1
    assert "rank 0: the checkpoint of step 20 in " in printed
    assert "is of another model or optimizer" in printed
    assert "float32 of shape [8, 8], expected float32 of [6, 8]" in printed


@pytest.mark.slow
def test_the_port_of_a_torch_script_gives_its_numbers(tmp_path):
    examples = HERE.parents[1] / "examples" / "ddp"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    theirs = subprocess.run(
        [*torchrun, str(examples / "train_torch.py"), "--out", str(tmp_path / "torch")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert theirs.returncode == 0, theirs.stderr
    status, printed = launch(tmp_path / "jax", script=examples / "train_jax.py", devices=1)
    assert status == 0, printed
    loss = [float(found) for found in re.findall(r"loss ([0-9.]+)", theirs.stdout + printed)]
    assert len(loss) == 2
    assert abs(loss[0] - loss[1]) < 2e-6
