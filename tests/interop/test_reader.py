"""Files that PyTorch wrote, read without it: the same numbers, types and sharing."""

import io
import mmap
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxopt_core import interop
from tests.interop import torch_files
from tests.interop.compare import assert_same

ROOT = Path(__file__).parents[2]


def load(value, tmp_path, **options):
    path = tmp_path / "file.pt"
    path.write_bytes(torch_files.save(value, **options))
    return interop.load(path)


def rezip(content, method=zipfile.ZIP_STORED, change=lambda name, data: data):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


@pytest.mark.parametrize("dtype", torch_files.DTYPES)
def test_dtype(dtype, tmp_path):
    value = torch_files.tensor(dtype)
    loaded = load(value, tmp_path)
    assert loaded.dtype.name == dtype
    assert_same(loaded, torch_files.to_numpy(value))


@pytest.mark.parametrize("name", torch_files.views())
def test_view(name, tmp_path):
    value = torch_files.views()[name]
    assert_same(np.ascontiguousarray(load(value, tmp_path)).reshape(value.shape), torch_files.to_numpy(value))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_training_checkpoint(protocol, tmp_path):
    checkpoint = torch_files.training_checkpoint()
    assert_same(load(checkpoint, tmp_path, pickle_protocol=protocol), torch_files.data_of(checkpoint))


@pytest.mark.parametrize("name", torch_files.OPTIMIZERS)
def test_optimizer(name, tmp_path):
    model, optimizer = torch_files.trained(name)
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert_same(load(checkpoint, tmp_path), torch_files.data_of(checkpoint))


def test_state_dict_keeps_the_versions_of_its_modules(tmp_path):
    state = torch_files.network().state_dict()
    assert load(state, tmp_path)._metadata == state._metadata


def test_tied_tensors_are_one_array_and_views_share_memory(tmp_path):
    x = torch_files.tensor()
    loaded = load({"one": x, "same": [x], "view": x.t()[1:], "other": x.clone()}, tmp_path)
    assert loaded["one"] is loaded["same"][0]
    assert np.shares_memory(loaded["one"], loaded["view"])
    assert not np.shares_memory(loaded["one"], loaded["other"])


def test_shared_containers_stay_shared(tmp_path):
    inner = [1]
    loaded = load([inner, inner], tmp_path)
    assert loaded[0] is loaded[1]


def test_tensor_with_attributes(tmp_path):
    value = torch_files.tensor()
    value.note = "attributes have no place in an array"
    parameter = torch.nn.Parameter(torch_files.tensor())
    parameter.note = "as above"
    for loaded in load([value, parameter], tmp_path):
        assert_same(loaded, torch_files.to_numpy(value))


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "|b1", ">c16", "|u1", "<f2"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_numpy_arrays(dtype, protocol, tmp_path):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    loaded = load([value, value.T, value[0, 1], value[:0]], tmp_path, pickle_protocol=protocol)
    native = value.astype(value.dtype.newbyteorder("="))
    assert_same(loaded[:2], [native, native.T])
    assert loaded[2] == value[0, 1]
    assert loaded[3].shape == (0, 3)


def test_numpy_arrays_of_bfloat16(tmp_path):
    value = torch_files.to_numpy(torch_files.tensor("bfloat16"))
    assert_same(load(value, tmp_path), value)


def test_loading_maps_the_file(tmp_path):
    path = tmp_path / "large.pt"
    size = 1 << 25
    torch.save({"x": torch.zeros(size // 4), "bits": torch.ones(3, dtype=torch.bfloat16)}, path)
    tracemalloc.start()
    loaded = interop.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 8
    base = loaded["x"]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base.base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded["x"][0] = 1


@pytest.mark.parametrize("dtype", ["bool", "int16", "bfloat16", "float32", "complex64", "complex128"])
def test_other_byte_order(dtype, tmp_path):
    value = torch_files.to_numpy(torch_files.tensor(dtype))
    part = value.itemsize // 2 if value.dtype.kind == "c" else value.itemsize

    def swap(name, data):
        if name.endswith("/byteorder"):
            return {b"little": b"big", b"big": b"little"}[data]
        if "/data/" in name and "/.data/" not in name:
            return np.frombuffer(data, f"u{part}").byteswap().tobytes()
        return data

    path = tmp_path / "swapped.pt"
    path.write_bytes(rezip(torch_files.save(torch_files.tensor(dtype)), change=swap))
    assert_same(interop.load(path), value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_packed_again_by_another_program(method, tmp_path):
    # Compressed, or stored without alignment.
    checkpoint = torch_files.training_checkpoint()
    path = tmp_path / "again.pt"
    path.write_bytes(rezip(torch_files.save(checkpoint), method))
    assert_same(interop.load(path), torch_files.data_of(checkpoint))


def test_files_from_before_the_byte_order_was_recorded(tmp_path):
    path = tmp_path / "old.pt"
    value = torch_files.tensor()
    path.write_bytes(torch_files.save(value, _disable_byteorder_record=True))
    assert_same(interop.load(path), torch_files.to_numpy(value))


def test_file_without_true_checksums(tmp_path):
    path = tmp_path / "unchecked.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch_files.tensor(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(interop.CheckpointError, match="verify=False"):
        interop.load(path)
    assert_same(interop.load(path, verify=False), torch_files.to_numpy(torch_files.tensor()))


def test_without_torch(tmp_path):
    path = tmp_path / "file.pt"
    path.write_bytes(torch_files.save(torch_files.training_checkpoint()))
    code = f"""
import sys
sys.modules["torch"] = None
from jaxopt_core import interop
checkpoint = interop.load({str(path)!r})
checkpoint.pop("sets")
interop.save(checkpoint, {str(tmp_path / "back.pt")!r})
interop.save_safetensors(checkpoint["model"], {str(tmp_path / "back.safetensors")!r})
print(len(interop.load_safetensors({str(tmp_path / "back.safetensors")!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "9"), done.stderr
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    torch_files.network().load_state_dict(back["model"])
