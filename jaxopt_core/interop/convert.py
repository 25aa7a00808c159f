"""Whole training checkpoints: a PyTorch file becomes an Orbax checkpoint, and back.

The parameters keep PyTorch's names and layout (``layer1.0.conv1.weight`` at ``layer1/0/conv1/weight``), which
needs no model, loses nothing and is undone exactly. ``params_from_torch`` puts them into one's own model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_core.extras import needs_extra
from jaxopt_core.interop.arrays import as_numpy, is_tensor
from jaxopt_core.interop.derive import make_layout
from jaxopt_core.interop.layout import Layout
from jaxopt_core.interop.optimizer import optimizer_to_torch
from jaxopt_core.interop.plain import from_plain, to_plain
from jaxopt_core.interop.port import possible_kinds
from jaxopt_core.interop.reader import load
from jaxopt_core.interop.rules import Rule
from jaxopt_core.interop.whole import from_torch_optimizer
from jaxopt_core.interop.writer import save
from jaxopt_core.leafwise import count_per_parameter

__all__ = ["Converted", "Line", "convert_from_torch", "convert_to_torch", "load_converted"]

BUFFERS = r"(^|\.)(running_mean|running_var|num_batches_tracked)$"
"""Names of tensors that are no parameters."""

_DESCRIPTION, _ARRAYS = "conversion.json", "arrays"


class Line(NamedTuple):
    """What happened to one entry of the checkpoint: its key, what it is, where it went, tensors and bytes."""

    key: str
    what: str
    where: str
    tensors: int
    bytes: int


class Converted(NamedTuple):
    """A converted checkpoint.

    Attributes:
      params: the parameters, nested by the parts of PyTorch's names.
      rest: the buffers, nested alike.
      tx: the optimizer that the checkpoint was trained with, or ``None``.
      opt_state: its state.
      layout: which tensor is which leaf; each lies as in PyTorch.
      other: key -> what the checkpoint holds besides, schedulers and the loss scaler included.

    All arrays are NumPy's, in the file's dtypes.
    """

    params: Any
    rest: Any
    tx: Any
    opt_state: Any
    layout: Layout
    other: dict[str, Any]


def convert_from_torch(
    checkpoint: str | Path, folder: str | Path, *, optimizer: str | None = None, buffers: str = BUFFERS
) -> list[Line]:
    """Writes a PyTorch training checkpoint as an Orbax checkpoint.

    Args:
      checkpoint: a ``.pt`` file: a model's state dict, or a dict with one, and perhaps an optimizer's.
      folder: the new folder. It gets ``arrays/``, the Orbax checkpoint of ``params``, ``rest`` and
        ``opt_state``, and ``conversion.json``, everything that is no array.
      optimizer: class of the optimizer. Default: told by what its groups hold, where that tells it.
      buffers: regular expression of the tensors that are no parameters.

    Returns:
      A line for each entry.

    Raises:
      CheckpointError: the file cannot be read.
      FileExistsError: the folder is there.
      ValueError: no model is in it, an optimizer of an unknown class, or an entry that cannot be written.
    """
    with jax.enable_x64(True):  # whatever is float64 or int64 in the file stays so
        return _convert_from_torch(Path(checkpoint), Path(folder).absolute(), optimizer, buffers)


def _convert_from_torch(checkpoint: Path, folder: Path, optimizer: str | None, buffers: str) -> list[Line]:
    with needs_extra("train"):
        import orbax.checkpoint as ocp
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; give the name of a new folder.")
    content = load(checkpoint)
    parts = _parts(content)
    names = _parameter_names(parts.model, parts.optimizer, buffers)
    params, rest, layout = _trees(parts.model, names)
    trees: dict[str, Any] = {"params": params, "rest": rest}
    lines = [_line(parts.model_key, "model", "params, rest", parts.model)]
    if parts.optimizer is not None:
        kind = optimizer or _only_kind(parts.optimizer)
        _, trees["opt_state"] = from_torch_optimizer(
            parts.optimizer, layout, params, kind, count=_count(parts)
        )
        lines.append(_line(parts.optimizer_key, kind, "opt_state", parts.optimizer["state"]))
        groups = to_plain(parts.optimizer["param_groups"], parts.optimizer_key)
        described = {"key": parts.optimizer_key, "kind": kind, "groups": groups, "count": _count(parts)}
    other, arrays = {}, {}
    for key, value in parts.other.items():
        held: list[np.ndarray[Any, Any]] = []
        other[key] = to_plain(value, key, held)
        arrays[key] = {str(i): array for i, array in enumerate(held)}
        lines.append(_line(key, _what(value), "conversion.json" + (", other" if held else ""), value))
    trees["other"] = {key: value for key, value in arrays.items() if value}
    description = {
        "model": {"key": parts.model_key, "names": list(parts.model), "parameters": sorted(names)},
        "optimizer": described if parts.optimizer is not None else None,
        "other": other,
        "shapes": {name: list(np.shape(tensor)) for name, tensor in parts.model.items()},
    }
    folder.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            folder / _ARRAYS, {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
        )
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    return lines


def load_converted(folder: str | Path) -> Converted:
    """Reads what :func:`convert_from_torch` wrote.

    Raises:
      FileNotFoundError: the folder holds no converted checkpoint.
    """
    with jax.enable_x64(True):
        return _load_converted(Path(folder).absolute())


def _load_converted(folder: Path) -> Converted:
    with needs_extra("train"):
        import orbax.checkpoint as ocp
    if not (folder / _DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder} holds no {_DESCRIPTION}: it is no converted checkpoint.")
    description = json.loads((folder / _DESCRIPTION).read_text())
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder / _ARRAYS).item_metadata.tree
        shapes = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), metadata, is_leaf=_has_shape)
        like = dict(shapes)
        params, rest = like.get("params", {}), like.get("rest", {})
        layout = _layout(description, params, rest)
        tx = None
        if description["optimizer"] is not None:
            tx, like["opt_state"] = _empty_optimizer(
                description["optimizer"], layout, params, shapes["opt_state"]
            )
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
        trees = jax.tree.map(np.asarray, checkpointer.restore(folder / _ARRAYS, target))
    arrays = trees.get("other", {})
    other = {
        key: from_plain(value, [np.asarray(arrays[key][str(i)]) for i in range(len(arrays.get(key, {})))])
        for key, value in description["other"].items()
    }
    return Converted(
        trees.get("params", {}), trees.get("rest", {}), tx, trees.get("opt_state"), layout, other
    )


def convert_to_torch(folder: str | Path, checkpoint: str | Path) -> list[Line]:
    """Writes a converted checkpoint, perhaps trained further, as a PyTorch file again.

    Args:
      folder: what :func:`convert_from_torch` wrote, or its ``arrays`` replaced by a later state.
      checkpoint: the file to write, which ``torch.load(weights_only=True)`` reads. It has the keys of the
        first one.

    Returns:
      A line for each entry.
    """
    with jax.enable_x64(True):
        return _convert_to_torch(Path(folder).absolute(), checkpoint)


def _convert_to_torch(folder: Path, checkpoint: str | Path) -> list[Line]:
    converted = load_converted(folder)
    description = json.loads((folder / _DESCRIPTION).read_text())
    leaves = _flat(converted.params) | _flat(converted.rest)
    names = description["model"]["names"]
    model = {n: np.asarray(converted.layout.tensor(n, {_path(n): leaves[_path(n)]})) for n in names}
    key = description["model"]["key"]
    lines = [_line(key, "model", "", model)]
    entries: dict[str, Any] = {key: model}
    if description["optimizer"] is not None:
        saved = description["optimizer"]
        like = {"state": {}, "param_groups": from_plain(saved["groups"], [])}
        state_dict = optimizer_to_torch(
            converted.tx,
            converted.opt_state,
            converted.layout,
            converted.params,
            names=_names(like),
            like=like,
        )
        entries[saved["key"]] = state_dict
        lines.append(_line(saved["key"], saved["kind"], "", state_dict["state"]))
    for name, value in converted.other.items():
        entries[name] = value
        lines.append(_line(name, _what(value), "", value))
    save(model if key == "" else entries, checkpoint)
    return lines


class _Parts(NamedTuple):
    model_key: str
    model: dict[str, Any]
    optimizer_key: str
    optimizer: Mapping[str, Any] | None
    other: dict[str, Any]


def _parts(content: Any) -> _Parts:
    """What is what in a checkpoint, by how it looks."""
    if not isinstance(content, Mapping):
        raise ValueError(f"Expected a dict in the checkpoint; found a {type(content).__name__}.")
    if _is_model(content):
        return _Parts("", dict(content), "", None, {})
    models = [key for key, value in content.items() if _is_model(value)]
    # An average of the model looks like it; the model is what is called so.
    models.sort(
        key=lambda key: ("model" not in key, "state_dict" not in key, "ema" in key or "average" in key)
    )
    if not models:
        raise ValueError(
            f"No model's state dict in the checkpoint, whose entries are {', '.join(map(repr, content))}."
        )
    optimizers = [key for key, value in content.items() if _is_optimizer(value)]
    if len(optimizers) > 1:
        raise ValueError(
            f"The checkpoint holds several optimizers, {', '.join(map(repr, optimizers))}; split it first."
        )
    used = {models[0], *optimizers}
    other = {key: value for key, value in content.items() if key not in used}
    optimizer_key = optimizers[0] if optimizers else ""
    optimizer = content[optimizer_key] if optimizers else None
    return _Parts(models[0], dict(content[models[0]]), optimizer_key, optimizer, other)


def _is_model(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(is_tensor(each) for each in value.values())


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys()


def _only_kind(optimizer: Mapping[str, Any]) -> str:
    kinds = possible_kinds(optimizer)
    if len(kinds) != 1:
        raise ValueError(
            f"The checkpoint does not say which optimizer it is of ({' or '.join(kinds) or 'none is known'} "
            f"by what its groups hold). Give its class, such as AdamW."
        )
    return kinds[0]


def _names(optimizer: Mapping[str, Any]) -> Any:
    groups = optimizer["param_groups"]
    return [group["param_names"] for group in groups] if all("param_names" in g for g in groups) else None


def _parameter_names(model: Mapping[str, Any], optimizer: Any, buffers: str) -> list[str]:
    names = [name for name in model if not re.search(buffers, name)]
    if optimizer is None or _names(optimizer) is None:
        return names
    owned = {name for group in _names(optimizer) for name in group}
    return [name for name in model if name in owned or name in names]


def _count(parts: _Parts) -> int | None:
    """The steps made, where the optimizer does not keep them."""
    counts = [v["last_epoch"] for v in parts.other.values() if isinstance(v, Mapping) and "last_epoch" in v]
    has_steps = any("step" in slots for slots in (parts.optimizer or {"state": {}})["state"].values())
    return int(counts[0]) if counts and not has_steps else None


def _path(name: str) -> str:
    return name.replace(".", "/")


def _trees(model: Mapping[str, Any], parameters: list[str]) -> tuple[Any, Any, Layout]:
    params: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, tensor in model.items():
        *parents, last = name.split(".")
        node = params if name in set(parameters) else rest
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = as_numpy(tensor)
    return params, rest, _identity({name: np.shape(tensor) for name, tensor in model.items()}, params, rest)


def _identity(shapes: Mapping[str, Any], params: Any, rest: Any) -> Layout:
    rules = [
        Rule(re.escape(name), _path(name), axes=tuple(range(len(shape)))) for name, shape in shapes.items()
    ]
    return make_layout(params, dict(shapes), rest=rest, rules=rules)


def _layout(description: Mapping[str, Any], params: Any, rest: Any) -> Layout:
    shapes = {name: tuple(description["shapes"][name]) for name in description["model"]["names"]}
    return _identity(shapes, params, rest)


def _empty_optimizer(saved: Mapping[str, Any], layout: Layout, params: Any, stored: Any) -> tuple[Any, Any]:
    """The optimizer, and a state of the structure that is stored."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
    state_dict = {"state": {}, "param_groups": from_plain(saved["groups"], [])}
    tx, _ = from_torch_optimizer(state_dict, layout, zeros, saved["kind"], count=saved["count"])
    opt_state = tx.init(zeros)
    # Parameters that were at different steps have a slot for it, which a new state has not.
    return tx, count_per_parameter(opt_state, zeros) if "step" in stored.get("slots", {}) else opt_state


def _flat(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(leaf) for p, leaf in pairs}


def _has_shape(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _line(key: str, what: str, where: str, value: Any) -> Line:
    tensors = [as_numpy(leaf) for leaf in jax.tree.leaves(value, is_leaf=is_tensor) if is_tensor(leaf)]
    return Line(key, what, where, len(tensors), sum(tensor.nbytes for tensor in tensors))


def _what(value: Any) -> str:
    if isinstance(value, Mapping) and "last_epoch" in value:
        return "scheduler"
    if isinstance(value, Mapping) and "_growth_tracker" in value:
        return "gradient scaler"
    return type(value).__name__
