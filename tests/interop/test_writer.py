"""Files written here, read by PyTorch: the same numbers, types and sharing, and training goes on."""

import collections
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from jaxopt_core import interop
from tests.interop import torch_files
from tests.interop.compare import assert_same


@pytest.fixture(params=[False, True], ids=["read", "mapped"])
def through(request, tmp_path):
    """Saves here, loads with PyTorch."""

    def transfer(value):
        path = tmp_path / "file.pt"
        interop.save(value, path)
        return torch.load(path, weights_only=True, mmap=request.param)

    return transfer


@pytest.mark.parametrize("dtype", torch_files.DTYPES)
def test_dtype(dtype, through):
    value = torch_files.tensor(dtype)
    loaded = through([torch_files.to_numpy(value)])[0]
    assert loaded.dtype == value.dtype
    assert_same(torch_files.to_numpy(loaded), torch_files.to_numpy(value))


def test_training_checkpoint_and_back(through, tmp_path):
    checkpoint = torch_files.training_checkpoint()
    checkpoint["sets"] = {1, 2, "three"}
    path = tmp_path / "theirs.pt"
    torch.save(checkpoint, path)
    ours = interop.load(path)
    expected = torch_files.data_of(checkpoint)
    # PyTorch has neither numpy's arrays nor its scalars in a file that it reads without running code.
    expected["best"] = float(expected["best"])
    assert_same(torch_files.data_of(through(ours)), expected)


@pytest.mark.parametrize("name", torch_files.OPTIMIZERS)
def test_training_goes_on(name, tmp_path):
    model, optimizer = torch_files.trained(name)
    theirs, ours = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, theirs)
    interop.save(interop.load(theirs), ours)
    loaded = torch.load(ours, weights_only=True)
    other, continued = torch_files.trained(name)
    torch_files.step(other, continued, 2)  # away from where the file was written
    other.load_state_dict(loaded["model"], strict=True)
    continued.load_state_dict(loaded["optimizer"])
    torch_files.step(model, optimizer, 2)
    torch_files.step(other, continued, 2)
    assert_same(torch_files.data_of(other.state_dict()), torch_files.data_of(model.state_dict()))


def test_state_dict_keeps_the_versions_of_its_modules(through, tmp_path):
    path = tmp_path / "theirs.pt"
    state = torch_files.network().state_dict()
    torch.save(state, path)
    assert through(interop.load(path))._metadata == state._metadata


def test_sharing(through):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    loaded = through({"x": x, "again": x, "view": x.T[1:], "even": x.reshape(-1)[::2], "apart": x.copy()})
    assert loaded["x"] is loaded["again"]
    x_memory = loaded["x"].untyped_storage().data_ptr()
    for name in ("view", "even"):
        assert loaded[name].untyped_storage().data_ptr() == x_memory
    assert loaded["apart"].untyped_storage().data_ptr() != x_memory
    assert_same(torch_files.to_numpy(loaded["view"]), np.ascontiguousarray(x.T[1:]))
    assert_same(torch_files.to_numpy(loaded["even"]), x.reshape(-1)[::2].copy())
    loaded["x"][0, 2] = 100
    assert loaded["view"][1, 0] == 100


def test_sharing_survives_both_ways(through, tmp_path):
    path = tmp_path / "theirs.pt"
    x = torch_files.tensor()
    torch.save([x, x.t(), x[1], x], path)
    loaded = through(interop.load(path))
    assert loaded[0] is loaded[3]
    assert {part.untyped_storage().data_ptr() for part in loaded} == {loaded[0].untyped_storage().data_ptr()}


def test_views_that_pytorch_lacks_are_copied(through):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    values = [x[::-1], x.view(np.int32), np.frombuffer(bytes(range(9)), np.uint8)[1:].view(np.float32), x]
    for loaded, value in zip(through(values), values, strict=True):
        assert_same(torch_files.to_numpy(loaded), np.ascontiguousarray(value))


def test_a_small_view_does_not_drag_its_memory_along(tmp_path):
    interop.save(np.zeros(1 << 20)[5:8], tmp_path / "small.pt")
    assert (tmp_path / "small.pt").stat().st_size < 2000


def test_arrays_of_jax_and_scalars_of_numpy(through):
    key = jax.random.key_data(jax.random.key(0))
    x = jnp.arange(3, dtype=jnp.bfloat16)
    loaded = through(
        {"x": x, "same": x, "count": jnp.int32(3), "rng": key, "lr": np.float32(0.5), "flag": np.True_}
    )
    assert loaded["x"].dtype == torch.bfloat16
    assert loaded["x"] is loaded["same"]
    assert (loaded["count"].shape, loaded["count"].item()) == ((), 3)
    assert loaded["rng"].dtype == torch.uint32
    assert (loaded["lr"], loaded["flag"]) == (0.5, True)
    assert type(loaded["lr"]) is float


def test_shapes_without_elements_or_dimensions(through):
    values = [np.zeros((0, 3)), np.zeros((2, 0, 0)), np.float64([])[None], np.array(2.5), np.array(1 + 2j)]
    for loaded, value in zip(through(values), values, strict=True):
        assert_same(torch_files.to_numpy(loaded), value)


def test_big_endian(through):
    assert_same(torch_files.to_numpy(through(np.arange(3, dtype=">f4"))), np.arange(3, dtype=np.float32))


def test_many_objects(through):
    value = {
        f"name {n}": [n, -n, float(n), {"n": n}] for n in range(400)
    }  # more than the short memo opcodes reach
    value["again"] = value["name 399"]
    assert through(value) == value


def test_same_bytes(tmp_path):
    paths = [tmp_path / "a.pt", tmp_path / "another name.pt"]
    betas = (0.9, 0.999)
    for path, other in zip(
        paths, (betas, tuple(sorted(betas))), strict=True
    ):  # one object, or two that are equal
        interop.save({"x": np.ones(3), "betas": [betas, other], "set": {"b", "a", 3, ("c", 1)}}, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second


def test_numbers_are_aligned(tmp_path):
    path = tmp_path / "aligned.pt"
    interop.save([np.ones(n, np.uint8) for n in range(5)], path)
    assert all(array.ctypes.data % 64 == 0 for array in interop.load(path) if array.size)


def test_records_beyond_two_gigabytes(tmp_path, monkeypatch):
    # The same code path, without the two gigabytes.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    path = tmp_path / "large.pt"
    value = [np.arange(3000.0), np.arange(5.0)]
    interop.save(value, path)
    monkeypatch.undo()
    for mmap in (False, True):
        assert_same(torch_files.data_of(torch.load(path, weights_only=True, mmap=mmap)), value)
    loaded = interop.load(path)
    assert_same(loaded, value)
    assert all(array.ctypes.data % 64 == 0 for array in loaded)


def test_all_or_nothing(tmp_path):
    path = tmp_path / "file.pt"
    interop.save({"x": np.arange(3.0)}, path)
    loaded = interop.load(path)
    with pytest.raises(TypeError):
        interop.save({"x": np.arange(3.0), "y": object()}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pt"]
    interop.save({"x": loaded["x"][::-1]}, path)  # over the file that it is mapped from
    assert_same(interop.load(path)["x"], np.arange(3.0)[::-1].copy())
    assert_same(loaded["x"], np.arange(3.0))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.pt"
    interop.save([1], path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        interop.save([2], path)
    assert interop.load(path) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pt"]


LOOP: list = [1]
LOOP.append([LOOP])
DEEP: list = []
for _ in range(300):
    DEEP = [DEEP]
Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ({"a": [1, object()]}, TypeError, r"\['a'\]\[1\] is a builtins\.object"),
        ({"f": print}, TypeError, r"\['f'\] is a builtins\.builtin_function_or_method"),
        (torch_files.tensor(), TypeError, r"the object is a torch\.Tensor"),
        ([Point(1, 2)], TypeError, r"\[0\] is a .*Point"),
        ({"x": np.ones(2, np.longdouble)}, TypeError, r"\['x'\] has dtype .*128, which PyTorch lacks"),
        ({"x": np.array(["a"])}, TypeError, "PyTorch lacks"),
        ({"x": np.array([None])}, TypeError, "PyTorch lacks"),
        ({"x": np.ones(2, ml_dtypes.int4)}, TypeError, "dtype int4, which PyTorch lacks"),
        ({"d": np.dtype("M8[s]")}, TypeError, "PyTorch lacks"),
        ({"rng": jax.random.key(0)}, TypeError, r"\['rng'\] is an array of random keys"),
        ({frozenset(): 1}, TypeError, "has the key frozenset"),
        ({"n": 2**5000}, ValueError, r"\['n'\] is an integer of 5001 bits"),
        (LOOP, ValueError, r"\[1\]\[0\] contains itself"),
        (DEEP, ValueError, "nested more than 200 containers deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refuses(value, error, words, tmp_path):
    with pytest.raises(error, match=words):
        interop.save(value, tmp_path / "refused.pt")
    assert not list(tmp_path.iterdir())
