"""Reading and writing safetensors files, by the safetensors library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxopt_core.extras import needs_extra
from jaxopt_core.interop._atomic import replacing
from jaxopt_core.interop.errors import COPY_AGAIN, CheckpointError

# The library knows numpy's dtypes and bfloat16, and of these only the names.
_FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a safetensors file.

    Args:
        path: the file.

    Returns:
        Name -> array, bfloat16 and float8 with the dtypes of ``ml_dtypes``.

    Raises:
        CheckpointError: the file is damaged, no safetensors file, or has a dtype that numpy lacks.
        MissingExtraError: the extra ``interop`` is not installed.
        OSError: the file cannot be opened.

    Example:
        >>> import tempfile, numpy as np
        >>> from jaxopt_core import interop
        >>> path = tempfile.mkdtemp() + "/weights.safetensors"
        >>> interop.save_safetensors({"weight": np.ones((2, 3), np.float32)}, path)
        >>> interop.load_safetensors(path)["weight"].shape
        (2, 3)
    """
    with needs_extra("interop"):
        from safetensors import SafetensorError, deserialize, safe_open
    read: Any = deserialize  # the library's stub has no types for it
    path = Path(path)
    path.open("rb").close()  # the library's error for a missing file does not say which
    try:
        with safe_open(path, framework="np") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.offset_keys()}
            if not set(dtypes.values()) & set(_FLOAT8):
                return {name: file.get_tensor(name) for name in dtypes}
            plain = {name: file.get_tensor(name) for name, dtype in dtypes.items() if dtype not in _FLOAT8}
        small = {name: entry for name, entry in read(path.read_bytes()) if name not in plain}
    except SafetensorError as error:
        raise CheckpointError(
            path,
            f"it is not a sound safetensors file ({error})",
            f"{COPY_AGAIN}; files of torch.save are read by jaxopt_core.interop.load",
        ) from None
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            path, f"it has a dtype that numpy lacks ({error})", "Convert it in PyTorch, and save it again"
        ) from None
    plain |= {
        name: np.frombuffer(entry["data"], _FLOAT8[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in small.items()
    }
    return {name: plain[name] for name in dtypes}


def save_safetensors(
    arrays: Mapping[str, Any], path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file. The file appears whole or not at all.

    An array that appears under two names is written twice: the format cannot share memory.

    Args:
        arrays: name -> numpy or JAX array. The format is flat; for nested containers see :func:`save`.
        path: the file.
        metadata: text to put into the file's header, for example ``{"format": "pt"}``.

    Raises:
        TypeError: a name is not a string, a value not an array, or its dtype is one that the format lacks
            (complex128, int4).
        MissingExtraError: the extra ``interop`` is not installed.
    """
    with needs_extra("interop"):
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    contiguous = {}
    for name, value in arrays.items():
        if not (type(name) is str and isinstance(value, np.ndarray | jax.Array | np.generic)):
            raise TypeError(
                f"safetensors files hold a flat dict of name -> array, but {name!r} is a "
                f"{type(value).__name__}; jaxopt_core.interop.save writes nested containers"
            )
        array: np.ndarray = np.asarray(value)
        contiguous[name] = np.ascontiguousarray(array).reshape(
            array.shape
        )  # ascontiguousarray makes () to (1,)
    with replacing(Path(path)) as temporary:
        try:
            save_file(contiguous, temporary, metadata=None if metadata is None else dict(metadata))
        except SafetensorError as error:
            raise TypeError(f"cannot write {os.fspath(path)}: {error}") from None
