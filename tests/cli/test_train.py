"""``jaxopt-core train`` as its user meets it."""

import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

from jaxopt_core import cli
from jaxopt_core.models import MLP, pure
from jaxopt_core.training import load_parameters, read_metrics
from tests.data.mnist_files import write_mnist


def test_trains_on_digits(tmp_path, capsys):
    assert cli.main(["train", "--out", str(tmp_path)]) == 0
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[-1].test_accuracy >= 0.97
    assert len(rows) == 60
    _, params, _ = pure(MLP((64, 128, 10), rngs=nnx.Rngs(1)))
    load_parameters(tmp_path / "params.npz", like=params)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    out, err = capsys.readouterr()
    assert err == ""
    assert f"test accuracy {rows[-1].test_accuracy:.4f}" in out
    for name in ("metrics.csv", "curves.png", "params.npz"):
        assert f"wrote {tmp_path / name}" in out


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_trains_on_idx_files(tmp_path, compress):
    write_mnist(tmp_path, compress=compress)
    out = tmp_path / "new" / "folder"
    files = f"train --data {tmp_path} --out {out}"
    options = "--epochs 30 --batch-size 8 --hidden 16 8 --schedule constant"
    assert cli.main(f"{files} {options}".split()) == 0
    assert read_metrics(out / "metrics.csv")[-1].test_accuracy == 1
    with np.load(out / "params.npz") as archive:
        assert archive["layers/1/kernel"].shape == (16, 8)


def test_second_run_writes_the_same_parameters(tmp_path):
    for name, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        command = ["train", "--epochs", "2", "--seed", seed, "--out", str(tmp_path / name)]
        assert cli.main(command) == 0
    one, two, other = ((tmp_path / name / "params.npz").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


WRONG = {
    "--epochs 0": "--epochs: expected a positive integer, found 0",
    "--lr -0.1": "--lr: expected a positive number, found -0.1",
    "--lr nan": "--lr: expected a positive number, found nan",
    "--weight-decay -1": "--weight-decay: expected a number of at least 0, found -1.0",
    "--hidden 3 0": "--hidden: expected positive integers, found 3 0",
    "--seed -1": "--seed: expected an integer from 0 to 2**32 - 1, found -1",
    "--batch-size 0": "--batch-size: expected 1 to 1437, the number of images, found 0",
    "--batch-size 5000": "--batch-size: expected 1 to 1437, the number of images, found 5000",
    "--data absent": "--data: absent: expected a folder with MNIST's IDX files, found no such",
    "--data .": "--data: .: expected MNIST's IDX files, found 0 of 4 files; missing: train-images-idx3",
    "--out file/a": "--out: expected a folder that can be written to, found file/a (Not a dir",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.main(["train", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"jaxopt-core: {WRONG[options]}")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    # Nothing is left of a run that never began.
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("options", ["--lr fast", "--epochs 1.5", "--schedule step", "--momentum 1"])
def test_arguments_that_cannot_be_parsed(capsys, options):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *options.split()])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert options.split()[0].strip("-") in err


def test_divergence_is_one_line_and_status_1(tmp_path, capsys):
    assert cli.main(["train", "--epochs", "1", "--lr", "1e30", "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "the loss became" in err
    assert err.count("\n") == 1


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    options = "data epochs batch-size lr schedule weight-decay hidden seed out"
    assert all(f"--{name}" in text for name in options.split())
    assert "curves.png" in text


def test_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert cli.main(["train"]) == 2
    expected = "jaxopt-core: tyro is not installed; it comes with pip install 'jaxopt-core[train]'\n"
    assert capsys.readouterr().err == expected


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "jaxopt_core.cli", "train", "--data", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "absent: expected a folder" in done.stderr
