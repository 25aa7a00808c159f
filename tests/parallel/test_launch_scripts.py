"""The launch scripts of examples/, run with stand-ins for srun, scontrol and gcloud."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "examples" / "launch"
PATIENCE = 120.0


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder, where programs can be stood in for."""
    binaries = tmp_path / "bin"
    binaries.mkdir()

    def program(name, body):
        path = binaries / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)

    # The checkout's launcher, installed or not.
    program("jaxopt-core", f'shift; exec {sys.executable} -m jaxopt_core.parallel.launch "$@"')
    (tmp_path / "train.py").write_text(
        "import os, sys\n"
        "said = [os.environ.get(f'JAXOPT_{name}') for name in ('RANK', 'WORLD')]\n"
        "print(*said, *sys.argv[1:])\n"
        "sys.exit(int(os.environ.get('STATUS', '0')))\n"
    )

    def run(*command, **environ):
        path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": path, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    run.program = program
    return run


def test_one_machine(run):
    done = run(LAUNCH / "one_machine.sh", "train.py", "--lr", "0.1", NPROC_PER_NODE="2")
    assert done.returncode == 0, done.stdout
    assert sorted(done.stdout.splitlines()) == ["[rank 0] 0 2 --lr 0.1", "[rank 1] 1 2 --lr 0.1"]


@pytest.mark.parametrize("status", [0, 143])
def test_slurm_starts_a_launcher_on_each_node_and_requeues_what_was_saved(run, status):
    run.program(
        "srun",
        "export SLURM_STEP_NODELIST=localhost,other SLURM_STEP_NUM_NODES=2 SLURM_NTASKS=2\n"
        'SLURM_NODEID=0 "$@" & first=$!\nSLURM_NODEID=1 "$@" & wait $first && wait $!',
    )
    run.program("scontrol", 'echo "scontrol $@"')
    job = str(os.getpid())
    environ = {"SLURM_JOB_ID": job, "NPROC_PER_NODE": "1", "STATUS": str(status)}
    done = run("bash", LAUNCH / "slurm.sbatch", "train.py", **environ)
    assert done.returncode == status, done.stdout
    lines = done.stdout.splitlines()
    assert {"[rank 0] 0 2", "[rank 1] 1 2"} <= set(lines)
    assert (f"scontrol requeue {job}" in lines) == (status == 143)


def test_a_tpu_pod_is_tried_again(run, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "train.py").write_text((tmp_path / "train.py").read_text())
    run.program(
        "gcloud",
        "touch failed-$(ls | wc -l)\n"
        '[ "$(ls failed-* | wc -l)" = 1 ] && exit 1\n'
        'HOME=$PWD bash -c "${@: -1}"',
    )
    run.program("sleep", "exit 0")
    done = run(LAUNCH / "tpu_pod.sh", "train.py", "--name", "two words", TPU="pod", ZONE="zone")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == ["attempt 0", "attempt 1", "None None --name two words"]


def test_the_command_in_the_kubernetes_job(run):
    text = (LAUNCH / "kubernetes.yaml").read_text()
    block = re.search(r"command:\n((?: +- .*\n)+)", text)[1]
    command = [line.partition("#")[0].strip().removeprefix("- ") for line in block.splitlines()]
    assert command[:2] == ["jaxopt-core", "launch"]
    assert text.count("completions: 2") == 1
    nodes = []
    for index in range(2):
        line = shlex.join(command).replace("$(JOB_COMPLETION_INDEX)", str(index))
        line = line.replace("train-0.train:", "localhost:").replace("--nproc=4", "--nproc=1")
        nodes.append(line.replace("'", ""))
    done = run("bash", "-c", f"{nodes[0]} & {nodes[1]}; wait $!")
    assert done.returncode == 0, done.stdout
    assert {"[rank 0] 0 2 --out=/shared/run", "[rank 1] 1 2 --out=/shared/run"} <= set(
        done.stdout.splitlines()
    )


def test_all_are_short():
    for path in LAUNCH.parent.rglob("*"):
        assert path.is_dir() or path.suffix == ".pyc" or path.read_text().count("\n") < 100, path
