"""Files that are something else: the error names the file, says what it is, and what to do."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from jaxopt_core import interop
from tests.interop import torch_files
from tests.interop.forged import archive, program, tensor


def torchscript():
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)
    return file.getvalue()


def exported():
    file = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), file)
    return file.getvalue()


def written(function, *arguments):
    file = io.BytesIO()
    function(file, *arguments)
    return file.getvalue()


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            made.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def zipped(**records):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in records.items():
            made.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def safetensors_file():
    import safetensors.numpy

    return safetensors.numpy.save({"x": np.ones(3, np.float32)})


FORMATS = {
    "legacy": (
        lambda: torch_files.save({"x": torch_files.tensor()}, _use_new_zipfile_serialization=False),
        "PyTorch's format of before 1.6",
        "torch.save(torch.load(path, weights_only=True), path)",
    ),
    "tar": (tar, "PyTorch's format of before 0.1.10", "weights_only=False"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "bare pickle", "pickle.load"),
    "safetensors": (safetensors_file, "safetensors", "load_safetensors"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "h5py"),
    "npy": (lambda: written(np.save, np.ones(3)), "numpy array", "numpy.load"),
    "npz": (lambda: written(lambda file: np.savez(file, x=np.ones(3))), "numpy archive", "numpy.load"),
    "GGUF": (lambda: b"GGUF" + bytes(20), "GGUF", "torch.save"),
    "Git LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        "Git LFS",
        "git lfs pull",
    ),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", "web page", "download it again"),
    "gzip": (lambda: gzip.compress(torch_files.save(1)), "gzip", "Decompress"),
    "JSON": (lambda: b'{"a": 1}', "JSON", "torch.save"),
    "other zip": (lambda: zipped(a__b=b""), "not one that torch.save wrote", "unpack"),
    "empty zip": (zipped, "empty zip", "again"),
    "TorchScript": (torchscript, "TorchScript", "torch.jit.load(path).state_dict()"),
    "export": (exported, "torch.export", "torch.export.load(path)"),
    "empty": (lambda: b"", "empty", "again"),
    "noise": (lambda: b"\x01\x02\x03\x04", "01 02 03 04", "again"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_format(name, tmp_path):
    make, what, remedy = FORMATS[name]
    path = tmp_path / "model.pt"
    path.write_bytes(make())
    with pytest.raises(interop.CheckpointError) as caught:
        interop.load(path)
    assert str(caught.value) == f"{path}: {caught.value.fault}. {caught.value.remedy}."
    assert what in caught.value.fault
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("make", "what", "remedy"),
    [
        (lambda: torch.ones(2, 2).to_sparse(), "sparse", "to_dense"),
        (lambda: torch.ones(2, device="meta"), "meta device", "state_dict"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized", "dequantize"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)]), "nested", "unbind"),
        (lambda: torch.ones(2).untyped_storage(), "bare storage", "save"),
        (lambda: torch.ones(2, dtype=torch.complex32), "torch.complex32", "complex64"),
        (torch_files.network, "torch.nn.modules", "state_dict()"),
        (lambda: torch_files.trained("SGD")[1], "torch.optim.sgd.SGD", "state_dict()"),
        (lambda: {"args": io.BytesIO}, "_io.BytesIO", "plain containers"),
        (lambda: {"range": range(3)}, "builtins.xrange", "plain containers"),
        (lambda: np.array(["a"]), "U1", "plain containers"),
        (lambda: np.array([None]), "'O8'", "plain containers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_array(make, what, remedy, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(torch_files.save({"x": make()}))
    with pytest.raises(interop.CheckpointError) as caught:
        interop.load(path)
    assert what in caught.value.fault
    assert remedy in caught.value.remedy


def test_two_checkpoints_in_one(tmp_path):
    path = tmp_path / "two.pt"
    file = io.BytesIO(archive(program(tensor())))
    with zipfile.ZipFile(file, "a") as made:
        made.writestr("other/data.pkl", program(tensor()))
    path.write_bytes(file.getvalue())
    with pytest.raises(interop.CheckpointError, match="2 checkpoints: 'forged/', 'other/'"):
        interop.load(path)


def test_folder(tmp_path):
    with pytest.raises(interop.CheckpointError, match="dcp_to_torch"):
        interop.load(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        interop.load(tmp_path / "gone.pt")


def test_a_lost_record(tmp_path):
    path = tmp_path / "lost.pt"
    path.write_bytes(archive(program(tensor()), {}))
    with pytest.raises(interop.CheckpointError, match="lacks 'forged/data/0'"):
        interop.load(path)


def test_the_error_survives_pickling():
    error = interop.CheckpointError("a.pt", "fault", "remedy")
    assert str(pickle.loads(pickle.dumps(error))) == "a.pt: fault. remedy."
