"""A real PostgreSQL server from the system's packages, started and stopped by the test."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.tuning.test_study import BOWL, bowl, run

PROGRAMS = [Path(found).parent for found in [shutil.which("initdb")] if found]
PROGRAMS += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL's server is not installed (initdb, pg_ctl)")


class Server:
    """In a folder of its own, as a user of its own if this one is root: PostgreSQL refuses to run as root."""

    def __init__(self, folder):
        self.user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        self.folder, self.data = folder, folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        self.call("initdb", "-D", self.data, "-A", "trust", "-U", self.user, "--no-sync")

    def call(self, program, *arguments):
        command = [PROGRAMS[0] / program, *arguments]
        switch = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=60, **switch)

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -F"
        self.call("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self):
        self.call("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own can be entered by one user only
        made = Server(Path(folder))
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                made.stop()


WORKER = """
import sys
from tests.tuning.test_study import BOWL, bowl, run
run(bowl, BOWL, trials=24, batch=4, storage=sys.argv[1], name="two")
"""


@pytest.mark.slow
def test_two_processes_share_a_study_without_a_duplicate(server):
    other = subprocess.Popen([sys.executable, "-c", WORKER, server.url])
    mine = run(bowl, BOWL, trials=24, batch=2, storage=server.url, name="two", heartbeat=1.0)
    assert other.wait(120) == 0
    found = run(bowl, BOWL, trials=24, storage=server.url, name="two")
    assert found.programs == 0
    assert len(found.trials) == 24
    assert len({trial.config["x"] for trial in found.trials}) == 24
    workers = {t.user_attrs["worker"] for t in found.optuna.trials if t.state.name == "COMPLETE"}
    assert 1 <= len(workers) <= 2
    assert mine.best.metrics == found.best.metrics


def test_a_server_that_is_restarted_in_the_middle_loses_nothing(server):
    def restart(trial, _):
        if trial.number == 2:
            server.stop()
        if trial.number == 3:  # its result is told to nobody
            server.start()

    found = run(bowl, BOWL, trials=8, batch=4, storage=server.url, name="restarted", on_trial=restart)
    assert len(found.trials) == 8
    assert any("trial 3: the storage does not answer" in line for line in found.trouble)
    stored = run(bowl, BOWL, trials=8, storage=server.url, name="restarted")
    assert [trial.metrics for trial in stored.trials] == [trial.metrics for trial in found.trials]
