"""Launchers on several machines; the machines are processes here, or network namespaces."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxopt_core.parallel.attempts import free_port
from tests.parallel import hosts

PATIENCE = 120.0  # seconds: the machine may be busy with other tests
TRAINING = Path(__file__).parent / "training_script.py"


@pytest.fixture
def machines(tmp_path):
    """Starts launchers, and ends those that are left."""
    started = []

    def start(node, *arguments, prefix=(), script=("script.py",)):
        log = tmp_path / f"node-{node}.{len(started)}.log"
        command = [*prefix, sys.executable, "-m", "jaxopt_core.parallel.launch", "--nnodes", "2"]
        command += ["--node-rank", str(node), "--logs", str(tmp_path / f"logs-{node}"), "--backoff", "0.1"]
        environ = {name: value for name, value in os.environ.items() if name != "NPROC"}
        with log.open("w") as out:
            process = subprocess.Popen(
                [*command, *arguments, *script], cwd=tmp_path, stdout=out, stderr=out, env=environ
            )
        process.log = log
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def write(tmp_path, body):
    head = """
        import os, signal, sys, time
        from pathlib import Path
        rank, attempt = int(os.environ["JAXOPT_RANK"]), int(os.environ["JAXOPT_ATTEMPT"])
        print("of", os.environ["JAXOPT_WORLD"], "local", os.environ["JAXOPT_LOCAL_RANK"], "attempt", attempt)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(head) + textwrap.dedent(body))


def wait_for(path, patience=PATIENCE):
    end = time.monotonic() + patience
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


def finish(*processes):
    statuses = [process.wait(PATIENCE) for process in processes]
    return statuses, [process.log.read_text() for process in processes]


def test_a_death_on_one_node_restarts_all(machines, tmp_path):
    write(tmp_path, "if attempt == 0:\n    time.sleep(600 if rank != 2 else 0.5)\n    sys.exit(rank)\n")
    where = ["--nproc", "2", "--coordinator", f"127.0.0.1:{free_port('127.0.0.1')}"]
    statuses, logs = finish(*[machines(node, *where) for node in range(2)])
    assert statuses == [0, 0], logs
    assert "attempt 0: rank 2 ended with status 2" in logs[1]
    assert "attempt 0: rank 2 ended with status 2" in logs[0]  # why this node was stopped
    assert "[rank 1] of 4 local 1 attempt 1" in logs[0]
    assert "[rank 3] of 4 local 1 attempt 1" in logs[1]


def test_a_lost_node_may_come_back(machines, tmp_path):
    write(tmp_path, "Path(f'{rank}-{attempt}').touch()\nif attempt == 0:\n    time.sleep(20)\n")
    where = ["--coordinator", f"127.0.0.1:{free_port('127.0.0.1')}"]
    first, second = machines(0, *where), machines(1, *where)
    for rank in range(2):
        wait_for(tmp_path / f"{rank}-0")
    second.send_signal(signal.SIGKILL)
    third = machines(1, *where)
    statuses, logs = finish(first, third)
    assert statuses == [0, 0], logs
    assert "node 1 (127.0.0.1) is lost: it hung up" in logs[0]


def test_nodes_that_disagree_are_named_on_both(machines, tmp_path):
    write(tmp_path, "")
    where = ["--coordinator", f"127.0.0.1:{free_port('127.0.0.1')}"]
    statuses, logs = finish(machines(0, *where), machines(1, *where, "--nproc", "2"))
    assert statuses == [2, 2], logs
    message = "node 1 (127.0.0.1) has nproc 2, node 0 has 1: start all nodes with the same command"
    assert message in logs[0]
    assert message in logs[1]


def test_nodes_and_ports_that_are_missing_are_named_in_time(machines, tmp_path):
    write(tmp_path, "")
    where = ["--coordinator", f"127.0.0.1:{free_port('127.0.0.1')}", "--timeout", "3"]
    other = ["--coordinator", f"127.0.0.1:{free_port('127.0.0.1')}", "--timeout", "3"]
    statuses, logs = finish(machines(0, *where), machines(1, *other))
    assert statuses == [1, 1]
    assert "node 1 of 2 did not come within 3 s: start the same command there" in logs[0]
    assert "node 1: nobody answers at 127.0.0.1:" in logs[1]


@pytest.fixture
def cable():
    with hosts.good_cable() as cable:
        yield cable


@pytest.fixture
def bad_cable():
    with hosts.bad_cable() as cable:
        yield cable


def until_both_are_lost(nodes):
    end = time.monotonic() + PATIENCE
    while not all("is lost" in node.log.read_text() for node in nodes):
        assert time.monotonic() < end, [node.log.read_text() for node in nodes]
        time.sleep(0.1)


def test_a_pulled_cable_is_found_and_survived(machines, tmp_path, cable):
    write(tmp_path, "Path(f'{rank}-{attempt}').touch()\nif attempt == 0:\n    time.sleep(600)\n")
    where = ["--coordinator", "10.231.17.1:29500", "--node-timeout", "3", "--timeout", "60"]
    nodes = [machines(node, *where, prefix=cable.prefixes[node]) for node in range(2)]
    for rank in range(2):
        wait_for(tmp_path / f"{rank}-0")
    for _ in range(4):  # short losses are TCP's business
        cable.down()
        time.sleep(0.3)
        cable.up()
        time.sleep(0.3)
    assert not any("lost" in node.log.read_text() for node in nodes)
    cable.down()
    until_both_are_lost(nodes)
    cable.up()
    statuses, logs = finish(*nodes)
    assert statuses == [0, 0], logs
    assert "node 1 (10.231.17.2) is lost: it was silent for 3 s" in logs[0]
    assert "node 0 at 10.231.17.1:29500 is lost" in logs[1]
    assert all((tmp_path / f"{rank}-1").exists() for rank in range(2))


def test_lost_packets_are_borne_and_a_silent_cable_is_found(machines, tmp_path, bad_cable):
    write(tmp_path, "Path(f'{rank}-{attempt}').touch()\nif attempt == 0:\n    time.sleep(600)\n")
    where = ["--coordinator", "10.231.17.1:29500", "--node-timeout", "6", "--timeout", "60"]
    bad_cable.loss = 0.1
    nodes = [machines(node, *where, prefix=bad_cable.prefixes[node]) for node in range(2)]
    for rank in range(2):
        wait_for(tmp_path / f"{rank}-0")
    time.sleep(3)
    assert not any("lost" in node.log.read_text() for node in nodes)
    bad_cable.loss = 1.0
    until_both_are_lost(nodes)
    bad_cable.loss = 0.1
    statuses, logs = finish(*nodes)
    assert statuses == [0, 0], logs
    assert "node 1 (10.231.17.2) is lost: it was silent for 6 s" in logs[0]
    assert all((tmp_path / f"{rank}-1").exists() for rank in range(2))
    assert bad_cable.lost > 5 < bad_cable.carried


@pytest.fixture
def named_hosts():
    """Names for both hosts: Gloo listens where the host's own name leads to, the address in the namespace."""
    folders = []

    def give(prefixes):
        for prefix, address in zip(prefixes, hosts.ADDRESSES, strict=True):
            folder = Path("/etc/netns") / prefix[-1]
            try:
                folder.mkdir(parents=True)
                (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            except OSError as error:
                pytest.skip(f"names of hosts cannot be given to network namespaces here: {error}")
            folders.append(folder)

    yield give
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def train(machines, cable, out, *more):
    """Starts the training script on both hosts."""
    out.mkdir()
    where = ["--coordinator", "10.231.17.1:29500", "--node-timeout", "6", "--timeout", "60"]
    where += ["--devices-per-proc", "2"]
    script = [str(TRAINING), "--out", str(out), *more]
    return [machines(node, *where, prefix=cable.prefixes[node], script=script) for node in range(2)]


@pytest.mark.slow
def test_a_training_survives_a_pulled_cable(machines, tmp_path, cable, named_hosts):
    named_hosts(cable.prefixes)
    nodes = train(machines, cable, tmp_path / "out", "--steps", "80", "--pause", "0.1")
    wait_for(tmp_path / "out" / "checkpoints" / "20")
    cable.down()
    time.sleep(11)
    cable.up()
    statuses, logs = finish(*nodes)
    assert statuses == [0, 0], logs
    assert "is lost: it was silent" in logs[0]
    assert "begins at 0" not in logs[0].split("is lost")[1]


@pytest.mark.slow
def test_a_training_over_lost_packets_ends_bitwise_equal(machines, tmp_path, bad_cable, named_hosts):
    named_hosts(bad_cable.prefixes)
    ends = []
    for loss in (0.0, 0.03):
        bad_cable.loss, out = loss, tmp_path / f"out-{loss}"
        statuses, logs = finish(*train(machines, bad_cable, out, "--steps", "40"))
        assert statuses == [0, 0], logs
        with np.load(out / "end.npz") as held:
            ends.append(dict(held))
    assert bad_cable.lost > 10
    for name, expected in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], expected)
