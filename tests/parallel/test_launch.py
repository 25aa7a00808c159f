"""The launcher with scripts that need no JAX, so that each test takes a second or two."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxopt_core.parallel.attempts import Finish, Outcome, Referee
from jaxopt_core.parallel.launch import main
from jaxopt_core.parallel.ranks import cpu_environment

PATIENCE = 60.0  # seconds: the machine may be busy with other tests


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a script, which begins with a few names, into the current directory."""
    monkeypatch.chdir(tmp_path)
    head = """
        import json, os, signal, subprocess, sys, time
        from pathlib import Path
        rank, attempt = int(os.environ["JAXOPT_RANK"]), int(os.environ["JAXOPT_ATTEMPT"])
        reports = Path(os.environ["JAXOPT_REPORTS"])
    """

    def write(body):
        (tmp_path / "script.py").write_text(textwrap.dedent(head) + textwrap.dedent(body))

    return write


def wait_until(condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_ranks_are_told_who_they_are_and_logged_apart(script, capfd):
    script("""
        names = ["RANK", "WORLD", "LOCAL_RANK", "ATTEMPT"]
        print([os.environ[f"JAXOPT_{name}"] for name in names], sys.argv[1:])
        print(os.environ["NPROC"], os.environ["JAX_NUM_CPU_DEVICES"], os.environ["JAX_LOCAL_DEVICE_IDS"])
        print("end without newline", end="")
    """)
    assert main(["--nproc", "2", "--devices-per-proc", "16", "script.py", "--lr", "0.1"]) == 0
    out = capfd.readouterr().out
    assert "[rank 1] ['1', '2', '1', '0'] ['--lr', '0.1']" in out
    assert "[rank 0] end without newline" in out
    lines = {line for line in out.splitlines() if " 16 " in line}
    first, second = (",".join(map(str, ids)) for ids in (range(16), range(16, 32)))
    assert lines == {f"[rank 0] 32 16 {first}", f"[rank 1] 32 16 {second}"}


def test_a_death_takes_the_group_and_its_children_down_within_a_second(script, tmp_path, capfd):
    script("""
        if rank == 0:
            child = subprocess.Popen(["sleep", "600"])
            Path(f"pids-{attempt}").write_text(f"{os.getpid()} {child.pid}")
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        while not Path(f"pids-{attempt}").exists() or not Path(f"pids-{attempt}").read_text():
            time.sleep(0.01)
        print(time.time(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert main(["--nproc", "2", "--max-restarts", "1", "--backoff", "0.1", "script.py"]) == 1
    now, (out, err) = time.time(), capfd.readouterr()
    died = max(float(line.split()[-1]) for line in out.splitlines())
    assert now - died < 1.0
    for attempt in range(2):
        for pid in (tmp_path / f"pids-{attempt}").read_text().split():
            wait_until(lambda pid=pid: not is_running(pid), patience=1.0)
    assert "attempt 1: rank 1 was ended by SIGKILL" in err
    assert "--max-restarts 1 is used up" in err
    assert len(list((tmp_path / "launch-logs").glob("*/attempt-*/rank-*.log"))) == 4


def test_the_traceback_that_was_first_is_shown(script, capfd):
    script("""
        if attempt == 0:
            when = {"time": 2.0 - rank, "line": f"Error: of {rank}", "traceback": f"Traceback of {rank}"}
            (reports / f"{rank}.error").write_text(json.dumps(when))
            Path(f"ready-{rank}").touch()
            while not Path(f"ready-{1 - rank}").exists():
                pass
            os._exit(1)
    """)
    assert main(["--nproc", "2", "--backoff", "0.1", "script.py"]) == 0
    err = capfd.readouterr().err
    shown = [line for line in err.splitlines() if line.startswith("Traceback")]
    assert shown == ["Traceback of 1"]
    assert "rank 1 failed: Error: of 1" in err


def test_a_rank_without_progress_is_found_and_says_where_it_is(script, capfd):
    script("""
        import faulthandler
        faulthandler.register(signal.SIGUSR1)
        def stuck_here():
            time.sleep(600)
        (reports / f"{rank}.dumps").touch()
        for step in range(25):
            (reports / f"{rank}.step").write_text(str(step))
            time.sleep(0.1)
            if rank == 1 and step == 3 and attempt == 0:
                stuck_here()
    """)
    assert main(["--nproc", "2", "--stall-timeout", "2", "--backoff", "0.1", "script.py"]) == 0
    err = capfd.readouterr().err
    assert "attempt 0: rank 1 made no step for 2 s since step 3" in err
    assert "in stuck_here" in err


def test_a_stopped_rank_is_named_so(script, capfd):
    script("""
        if attempt == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
    """)
    assert main(["--stall-timeout", "1", "--backoff", "0.1", "script.py"]) == 0
    err = capfd.readouterr().err
    assert "rank 0 made no step for 1 s since its start (it is stopped: SIGSTOP)" in err
    assert "parallel.reached(step)" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_the_launcher_leave_no_orphan(script, tmp_path, number, status):
    script("""
        child = subprocess.Popen(["sleep", "600"])
        Path(f"{rank}.part").write_text(f"{os.getpid()} {child.pid}")
        Path(f"{rank}.part").rename(f"{rank}.pids")
        time.sleep(600)
    """)
    launcher = start("--nproc", "2", "script.py")
    wait_until(lambda: len(list(tmp_path.glob("*.pids"))) == 2)
    pids = " ".join(path.read_text() for path in tmp_path.glob("*.pids")).split()
    assert all(is_running(pid) for pid in pids)
    launcher.send_signal(number)
    assert launcher.wait(PATIENCE) == status
    assert not any(is_running(pid) for pid in pids)


def test_a_killed_launcher_takes_its_ranks_along(script, tmp_path):
    script("""
        from jaxopt_core.parallel.processes import _die_with, launched
        _die_with(launched().parent)
        Path(f"{rank}.part").write_text(str(os.getpid()))
        Path(f"{rank}.part").rename(f"{rank}.pids")
        time.sleep(600)
    """)
    launcher = start("--nproc", "1", "script.py")
    wait_until((tmp_path / "0.pids").exists)
    launcher.kill()
    launcher.wait(PATIENCE)
    wait_until(lambda: not is_running((tmp_path / "0.pids").read_text()), patience=5.0)


def test_ranks_that_ignore_sigterm_are_ended_after_the_grace(script, tmp_path):
    script("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path("ready").touch()
        time.sleep(600)
    """)
    launcher = start("--grace", "0.5", "script.py", stderr=subprocess.PIPE)
    wait_until((tmp_path / "ready").exists)
    launcher.send_signal(signal.SIGTERM)
    assert "did not leave within --grace 0.5 s" in launcher.communicate(timeout=PATIENCE)[1]
    assert launcher.returncode == 143


SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)]
)


def heard_at_once(launcher, number, status):
    """Of the 60 seconds for which the launcher would wait."""
    time.sleep(0.5)
    sent = time.monotonic()
    launcher.send_signal(number)
    errors = launcher.communicate(timeout=PATIENCE)[1]
    assert launcher.returncode == status, errors
    assert "Traceback" not in errors
    assert time.monotonic() - sent < 20


@SIGNALS
def test_signals_are_heard_before_a_restart(script, tmp_path, number, status):
    script("Path('failed').touch(); sys.exit(1)")
    launcher = start("--backoff", "120", "script.py", stderr=subprocess.PIPE)
    wait_until((tmp_path / "failed").exists)
    heard_at_once(launcher, number, status)


@SIGNALS
@pytest.mark.parametrize("node", [0, 1])
def test_signals_are_heard_while_other_nodes_are_missing(script, node, number, status):
    script("")
    with contextlib.ExitStack() as line, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        if node == 0:
            other.close()
        else:
            other.listen()
        where = ["--nnodes", "2", "--node-rank", str(node), "--coordinator", f"127.0.0.1:{port}"]
        launcher = start(*where, "--timeout", "60", "script.py", stderr=subprocess.PIPE)
        if node == 0:
            wait_until(lambda: is_listening(port))
        else:
            other.settimeout(PATIENCE)
            line.enter_context(other.accept()[0])
        heard_at_once(launcher, number, status)


def is_listening(port):
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", "0", "script.py"], "--nproc: expected at least 1, found 0"),
        (["missing.py"], "there is no script 'missing.py' in "),
        ([], "expected a script, or -m and a module"),
        (["-m"], "expected a script, or -m and a module"),
        (["--backoff", "-1", "script.py"], "--backoff: expected seconds of at least 0, found -1.0"),
        (
            ["--stall-timeout", "nan", "script.py"],
            "--stall-timeout: expected seconds of at least 0, found nan",
        ),
        (["--timeout", "inf", "script.py"], "--timeout: expected seconds above 0, found inf"),
        (["--logs", "script.py/logs", "script.py"], "--logs: expected a folder, found script.py/logs"),
        (["--timeout", "0", "script.py"], "--timeout: expected seconds above 0, found 0.0"),
        (["--nnodes", "2", "script.py"], "--nnodes above 1 needs --node-rank R and --coordinator HOST:PORT"),
        (
            ["--nnodes", "2", "--node-rank", "2", "--coordinator", "a:1", "script.py"],
            "--node-rank: expected 0 to 1, found 2",
        ),
        (
            ["--nnodes", "2", "--node-rank", "0", "--coordinator", "a", "script.py"],
            "--coordinator: expected HOST:PORT, found 'a'",
        ),
        (
            ["--nnodes", "2", "--node-rank", "0", "--coordinator", "a:²", "script.py"],
            "--coordinator: expected HOST:PORT, found 'a:²'",
        ),
    ],
)
def test_wrong_arguments_are_named(script, capfd, arguments, message):
    script("")
    assert main(arguments) == 2
    assert message in capfd.readouterr().err


def test_no_name_of_a_machine_is_an_error_at_once(script, capfd):
    script("")
    assert main(["--nnodes", "2", "--node-rank", "1", "--coordinator", "a..b:29500", "script.py"]) == 1
    assert "node 1: 'a..b' is no name of a machine" in capfd.readouterr().err


def test_variables_of_slurm_that_are_missing_are_named(script, capfd, monkeypatch):
    script("")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "a")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert main(["script.py"]) == 2
    assert "Slurm's SLURM_NTASKS: expected a whole number, found nothing" in capfd.readouterr().err


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_a_module_takes_a_script_s_place(script, capfd, dashes):
    script("print(__name__, sys.argv[1:])")
    assert main([*dashes, "-m", "script", "--lr", "1", "-m", "x"]) == 0
    assert "__main__ ['--lr', '1', '-m', 'x']" in capfd.readouterr().out


def test_the_wait_doubles_while_no_step_is_made():
    referee = Referee(max_restarts=9, backoff=1.0, longest=8.0)
    waits = [referee.after(Outcome("failed", steps=steps)) for steps in (-1, -1, -1, 5, 5, 5, 5, 5)]
    for wait, most in zip(waits, [1, 2, 4, 1, 2, 4, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert referee.after(Outcome("preempted")).status == 143
    assert referee.after(Outcome("done")) == Finish(0)


def test_the_environment_for_cpus_keeps_what_is_more():
    flags = {"XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=40", "NPROC": "3"}
    assert int(cpu_environment(flags, None)["NPROC"]) >= 80
    assert cpu_environment(flags, 2)["XLA_FLAGS"] == "--xla_a=1"
    assert cpu_environment({"NPROC": "1000"}, 2)["NPROC"] == "1000"


def start(*arguments, **how):
    # Whoever runs the tests in the background may have SIGINT ignored, and children inherit that.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    run = "import runpy; runpy.run_module('jaxopt_core.parallel.launch', run_name='__main__')"
    command = [sys.executable, "-c", f"{listen}; {run}", *arguments]
    return subprocess.Popen(command, text=True, **how)


def test_slurm_says_how_many_nodes_there_are(script, tmp_path):
    script("""
        told = [os.environ["JAXOPT_WORLD"], os.environ["JAXOPT_COORDINATOR"]]
        Path(f"{rank}.json").write_text(json.dumps(told))
    """)
    slurm = {
        "SLURM_STEP_NODELIST": "localhost,other[07-09]",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    nodes = [
        start(
            "--nproc",
            "1",
            "--timeout",
            "60",
            "script.py",
            env={**os.environ, **slurm, "SLURM_NODEID": str(node)},
        )
        for node in range(2)
    ]
    assert [node.wait(PATIENCE) for node in nodes] == [0, 0]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert told[0] == told[1]
    assert told[0][0] == "2"
    assert told[0][1].startswith("localhost:")
