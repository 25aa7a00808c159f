"""What a run leaves behind: parameters, metrics, curves."""

import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.image import imread

from jaxopt_core.models import MLP, pure
from jaxopt_core.training import (
    CsvLogger,
    Curves,
    Run,
    TensorBoardLogger,
    load_parameters,
    plot_curves,
    read_csv,
    read_curves,
    save_parameters,
)


def test_parameters_come_back(tmp_path):
    _, params, _ = pure(MLP((4, 3, 2), rngs=nnx.Rngs(0)))
    save_parameters(tmp_path / "params", params)
    found = load_parameters(tmp_path / "params", like=jax.tree.map(jnp.zeros_like, params))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_parameters_are_an_ordinary_archive(tmp_path):
    save_parameters(tmp_path / "params.npz", {"layers": [{"kernel": jnp.ones((2, 3))}]})
    with np.load(tmp_path / "params.npz") as archive:
        np.testing.assert_array_equal(archive["layers/0/kernel"], np.ones((2, 3)))


def test_same_parameters_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_parameters(tmp_path / name, {"w": jnp.arange(5)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((3, 2))}, "w: expected shape (3, 2) of float32, found (2, 3) of float32"),
        ({"w": jnp.zeros((2, 3), int)}, "w: expected shape (2, 3) of int32, found (2, 3) of"),
        ({"b": jnp.zeros((2, 3))}, "expected leaves ['b'], found ['w']"),
    ],
    ids=["shape", "dtype", "path"],
)
def test_parameters_that_do_not_fit(tmp_path, like, message):
    path = tmp_path / "params.npz"
    save_parameters(path, {"w": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match=re.escape(message)):
        load_parameters(path, like)


def test_not_an_archive(tmp_path):
    path = tmp_path / "params.npz"
    path.write_text("hello")
    with pytest.raises(ValueError, match="expected a NumPy archive"):
        load_parameters(path, {})


def test_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "params.npz"
    save_parameters(path, {"w": jnp.arange(1000.0)})
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        load_parameters(path, {"w": jnp.zeros(1000)})


def test_dtype_that_numpy_cannot_keep(tmp_path):
    with pytest.raises(ValueError, match="w: expected one of NumPy's own dtypes, found bfloat16"):
        save_parameters(tmp_path / "params.npz", {"w": jnp.zeros(2, jnp.bfloat16)})


def log(folder, first, last, run=None):
    """Logs steps ``first`` to ``last``, a row at the end."""
    logger, run = CsvLogger(folder), run or Run(state=None, step=first - 1)
    logger.on_start(run)
    run.step = last
    values = np.arange(first, last + 1, dtype=np.float32) / np.float32(3)
    logger.on_steps(run, {"loss": values, "lr": values / 10})
    logger.on_row(run, {"step": last, "val_loss": 1 / last})
    logger.on_end(run)


def test_metrics_come_back(tmp_path):
    log(tmp_path, 1, 4)
    steps, rows = read_curves(tmp_path)
    assert steps["step"] == [1, 2, 3, 4]
    assert steps["loss"] == (np.arange(1, 5, dtype=np.float32) / np.float32(3)).tolist()
    assert rows == {"step": [4], "val_loss": [0.25]}


def test_a_resumed_run_goes_on_behind_its_step(tmp_path):
    log(tmp_path / "alone", 1, 4)
    log(tmp_path / "alone", 5, 9)
    log(tmp_path, 1, 4)
    log(tmp_path, 5, 7)
    with (tmp_path / "steps.csv").open("a") as file:
        file.write("8,1.2")  # killed while it wrote
    log(tmp_path, 5, 9)
    for name in ("steps.csv", "metrics.csv"):
        assert (tmp_path / name).read_text() == (tmp_path / "alone" / name).read_text()


def test_a_new_run_replaces_the_files(tmp_path):
    log(tmp_path, 1, 9)
    log(tmp_path, 1, 2)
    assert read_csv(tmp_path / "steps.csv")["step"] == [1, 2]


def test_other_csv(tmp_path):
    (tmp_path / "steps.csv").write_text("step,loss\n1,2\n3\n4,5\n")
    with pytest.raises(ValueError, match=r"steps.csv, line 3: expected 2 numbers"):
        read_csv(tmp_path / "steps.csv")


def test_tensorboard_has_the_same_numbers(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    logger, run = TensorBoardLogger(tmp_path), Run(state=None)
    logger.on_start(run)
    run.step = 2
    logger.on_steps(run, {"loss": np.asarray([0.5, 0.25])})
    logger.on_row(run, {"step": 2, "val_loss": 0.125})
    logger.on_end(run)

    (path,) = tmp_path.iterdir()
    content, found, place = path.read_bytes(), {}, 0
    while place < len(content):  # length, its checksum, the event, its checksum
        size = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + size])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        place += size + 16
    assert found == {("step/loss", 1): 0.5, ("step/loss", 2): 0.25, ("val/loss", 2): 0.125}


def curves(rows, factor=1.0):
    updates = np.arange(1, 5 * rows + 1)
    steps = {"step": updates.tolist(), "loss": (factor / updates).tolist()}
    steps |= {"lr": np.linspace(1, 0, 5 * rows).tolist(), "grad_norm": (2 / updates).tolist()}
    ends = list(range(5, 5 * rows + 1, 5))
    measured = {"step": ends, "train_loss": [2 / n for n in ends], "val_loss": [3 / n for n in ends]}
    measured |= {"train_accuracy": [1 - 1 / n for n in ends], "val_accuracy": [1 - 2 / n for n in ends]}
    return Curves(steps, measured)


@pytest.mark.parametrize(
    "runs", [{"one": curves(1)}, {"one": curves(4)}, {"a": curves(3), "b": curves(4, 2.0)}]
)
def test_curves_are_a_picture(tmp_path, runs):
    path = tmp_path / "curves.png"
    plot_curves(path, runs, "a title")
    picture = imread(path)
    assert picture.shape == (1050, 1650, 4)
    for rows in (slice(100, 450), slice(600, 950)):
        for columns in (slice(150, 800), slice(1000, 1600)):
            assert picture[rows, columns].std() > 0.01


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="expected at least one run"):
        plot_curves(tmp_path / "a.png", {}, "")
    with pytest.raises(ValueError, match=r"empty: expected at least one line in metrics.csv"):
        plot_curves(tmp_path / "a.png", {"empty": Curves({}, {})}, "")
