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
    EpochMetrics,
    load_parameters,
    plot_curves,
    read_metrics,
    save_parameters,
    write_metrics,
)

ROWS = [
    EpochMetrics(epoch, 5 * epoch, 1e-3 / epoch, 2 / epoch, 0.5, 2.5 / epoch, 0.4, 0.1, 1 / 3)
    for epoch in range(1, 4)
]


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


def test_metrics_come_back(tmp_path):
    write_metrics(tmp_path / "metrics.csv", ROWS)
    assert read_metrics(tmp_path / "metrics.csv") == ROWS


@pytest.mark.parametrize("content", ["", "epoch,loss\n1,2\n"], ids=["empty", "other columns"])
def test_other_csv(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match="expected columns"):
        read_metrics(tmp_path / "metrics.csv")


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves_are_a_picture(tmp_path, epochs):
    path = tmp_path / "curves.png"
    losses = np.linspace(2, 1, 5 * epochs, dtype=np.float32)
    plot_curves(path, ROWS[:epochs], losses, "a title")
    picture = imread(path)
    assert picture.shape == (630, 1500, 4)
    # Something is drawn in both panels.
    assert picture[100:500, 150:700].std() > 0.01
    assert picture[100:500, 900:1400].std() > 0.01
