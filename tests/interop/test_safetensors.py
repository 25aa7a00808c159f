"""safetensors both ways, against the library's own functions for PyTorch."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch

from jaxopt_core import interop
from tests.interop import torch_files
from tests.interop.compare import assert_same

ROOT = Path(__file__).parents[2]
# The format has no complex128, and the library's functions for PyTorch no scale-only float8.
DTYPES = [dtype for dtype in torch_files.DTYPES if dtype != "complex128"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_pytorch(dtype, tmp_path):
    path = tmp_path / "theirs.safetensors"
    values = {"x": torch_files.tensor(dtype), "y": torch_files.tensor("float32", ())}
    safetensors.torch.save_file(values, path)
    loaded = interop.load_safetensors(path)
    assert_same(
        {name: loaded[name] for name in values}, torch_files.data_of(values)
    )  # the format has its own order


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_pytorch(dtype, tmp_path):
    path = tmp_path / "ours.safetensors"
    x = torch_files.to_numpy(torch_files.tensor(dtype))
    values = {"x": x, "transposed": x.T, "scalar": x[1, 2, ...], "none": x[:0]}
    interop.save_safetensors(values, path)
    loaded = torch_files.data_of(safetensors.torch.load_file(path))
    assert_same(
        {name: loaded[name] for name in values},
        {name: np.array(value, order="C") for name, value in values.items()},
    )


def test_state_dict_of_a_network(tmp_path):
    model = torch_files.network()
    interop.save_safetensors(torch_files.data_of(model.state_dict()), tmp_path / "network.safetensors")
    other = torch_files.network()
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "network.safetensors"))
    assert_same(torch_files.data_of(other.state_dict()), torch_files.data_of(model.state_dict()))


def test_arrays_of_jax_and_metadata(tmp_path):
    path = tmp_path / "ours.safetensors"
    interop.save_safetensors({"x": jnp.ones(3, jnp.bfloat16)}, path, metadata={"format": "pt"})
    assert_same(interop.load_safetensors(path)["x"], np.ones(3, jnp.bfloat16))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": {"b": np.ones(2)}}, "'a' is a dict"),
        ({1: np.ones(2)}, "1 is a ndarray"),
        ({"x": np.ones(2, np.complex128)}, "complex128"),
        ({"x": np.array(["a"])}, "str"),
    ],
    ids=["nested", "number as a name", "complex128", "text"],
)
def test_refuses(arrays, words, tmp_path):
    path = tmp_path / "ours.safetensors"
    with pytest.raises(TypeError, match=words):
        interop.save_safetensors(arrays, path)
    assert not list(tmp_path.iterdir())


def test_damaged_files(tmp_path):
    path = tmp_path / "ours.safetensors"
    interop.save_safetensors({"x": np.ones(100)}, path)
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:50], content[:-1], b"\xff" * 8 + content[8:], content + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(interop.CheckpointError, match="not a sound safetensors file") as caught:
            interop.load_safetensors(path)
        assert str(path) in str(caught.value)


def test_a_file_of_torch_save(tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(torch_files.save({"x": torch_files.tensor()}))
    with pytest.raises(interop.CheckpointError, match=r"interop\.load"):
        interop.load_safetensors(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        interop.load_safetensors(tmp_path / "gone.safetensors")


def test_missing_extra_is_named(tmp_path):
    code = f"""
import sys
sys.modules["safetensors"] = None
from jaxopt_core import interop
interop.load_safetensors({str(tmp_path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "safetensors is not installed; it comes with pip install 'jaxopt-core[interop]'" in done.stderr
