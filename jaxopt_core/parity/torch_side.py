"""One run in PyTorch, on a copy of the user's optimizer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import sparse

from jaxopt_core.extras import needs_extra
from jaxopt_core.interop import Layout, Rule, make_layout, params_from_torch
from jaxopt_core.interop.arrays import as_numpy
from jaxopt_core.interop.nested import Found
from jaxopt_core.interop.slots import slots_from_torch
from jaxopt_core.parity.differences import Values
from jaxopt_core.tree import flatten, is_absent

__all__ = ["TorchSide", "as_values", "layout_of", "tensor_names"]


def tensor_names(optimizer: Any, layout: Layout | None) -> list[str]:
    """The names of the optimizer's tensors, in the order of its groups.

    Raises:
      ValueError: they cannot be known: there is a layout, and more or fewer tensors than it has.
    """
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    if all("param_names" in group for group in optimizer.param_groups):
        return [name for group in optimizer.param_groups for name in group["param_names"]]
    if layout is None:
        return [f"tensor {i}" for i in range(count)]
    if layout.order is not None and len(layout.order) == count and len(optimizer.param_groups) == 1:
        return list(layout.order)
    raise ValueError(
        "Which tensor of the optimizer is which parameter is not known: construct it from "
        "model.named_parameters(), so that its groups have names."
    )


def layout_of(params: Any, optimizer: Any) -> Layout:
    """The layout of parameters that are PyTorch's tensors as they are, in the order of the leaves."""
    leaves = flatten(params).present()
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if shapes != [leaf.shape for _, leaf in leaves]:
        raise ValueError(
            f"Without a layout the optimizer's tensors must be the leaves of params, in their order. The "
            f"tensors' shapes are {shapes}, those of the leaves {[leaf.shape for _, leaf in leaves]}. "
            f"Give layout=interop.make_layout(params, model.state_dict())."
        )
    names = tensor_names(optimizer, None)
    rules = [
        Rule(_literal(name), path.replace("\\", r"\\"), axes=tuple(range(leaf.ndim)))
        for name, (path, leaf) in zip(names, leaves, strict=True)
    ]
    return make_layout(params, dict(zip(names, shapes, strict=True)), rules=rules)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in ".^$*+?{}|()" else c for c in name)


class TorchSide:
    """A copy of a PyTorch optimizer, its tensors and its scheduler, that takes gradients as trees.

    Args:
      optimizer: the user's; it is not touched.
      scheduler: its scheduler, or ``None``.
      layout: which tensor is which leaf.
      names: of the tensors, in the order of the groups.
      like: our parameters.
      foreach: which implementation to run, where there is a choice.
      fused: run the fused one.
      rounded: round the learning rate, and the momentum if the scheduler cycles it, to the tensors' precision
        in every step, as a program that holds them in its state must.
      wide: compute in float64, and round to the tensors' precision after every step.
    """

    def __init__(
        self,
        optimizer: Any,
        scheduler: Any,
        layout: Layout,
        names: list[str],
        like: Any,
        *,
        foreach: bool = False,
        fused: bool = False,
        rounded: bool = False,
        wide: bool = False,
    ):
        with needs_extra("parity"):
            import torch
        self._torch = torch
        self.optimizer, self.scheduler = copy.deepcopy((optimizer, scheduler))
        # A scheduler counts steps by replacing this method of the original, which is copied as it is.
        self.optimizer.__dict__.pop("step", None)
        for group in self.optimizer.param_groups:
            if "foreach" in group:
                group["foreach"] = foreach
            if "fused" in group:
                group["fused"] = fused or None
        self.layout, self._like, self._rounded = layout, like, rounded
        tensors = [tensor for group in self.optimizer.param_groups for tensor in group["params"]]
        self.tensors = dict(zip(names, tensors, strict=True))
        self._dtypes = {name: tensor.dtype for name, tensor in self.tensors.items()}
        self._wide = wide
        if wide:
            self._widen()

    def params(self) -> Any:
        """The parameters as a tree of ours."""
        stored = {name: tensor.detach().to(self._dtypes[name]) for name, tensor in self.tensors.items()}
        return params_from_torch(stored, self.layout, like=self._like)

    def step(self, grads: Any, metric: float | None) -> None:
        """One update with a tree of gradients in JAX's convention, and one of the scheduler."""
        leaves = flatten(self._like)
        given = dict(zip(leaves.paths, leaves.match(grads), strict=True))
        for name, tensor in self.tensors.items():
            paths = self.layout.paths(name)
            if any(is_absent(given[path]) for path in paths):
                tensor.grad = None
            elif isinstance(given[paths[0]], sparse.BCOO):
                tensor.grad = self._rows(given[paths[0]], tensor)
            else:
                grad = self.layout.tensor(name, {path: np.asarray(given[path]) for path in paths})
                tensor.grad = self._dense(grad, tensor)
        exact = self._round() if self._rounded else []
        self.optimizer.step()
        for group, values in zip(self.optimizer.param_groups, exact, strict=False):
            group.update(values)
        if self._wide:
            self._narrow()
        if self.scheduler is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a step before the optimizer's: see __init__
                self.scheduler.step(*([] if metric is None else [metric]))

    def values(self, found: Found, slots: Any) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """Parameters and slots, as leaves of ours."""
        params = self.params()
        named = {name: self._stored(name, tensor) for name, tensor in self.tensors.items()}
        if found.kind not in ("Adafactor", "Muon"):
            return as_values(params, {}) | self._slots(slots, named)
        mine, steps, problems = slots_from_torch(found, slots, flatten(params), self.layout, named)
        if problems:
            raise ValueError("PyTorch's slots are not ours: " + "; ".join(problems))
        del steps
        return as_values(params, {name: tree for name, tree in mine.items() if name != "step"})

    def _slots(self, slots: Any, named: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """Slots of a tensor's shape, which convert as the tensor does, and numbers."""
        values: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
        for slot in slots.keys() - {"step", "momentum_buffer_set"}:
            for path in self.layout.by_path:
                arrays = {name: named[name].get(slot) for name in self.layout.names(path)}
                if any(array is None for array in arrays.values()):
                    continue  # PyTorch has not made it yet
                arrays = {name: as_numpy(array) for name, array in arrays.items()}
                shapes = {name: tuple(self.tensors[name].shape) for name in arrays}
                whole = all(array.shape == shapes[name] for name, array in arrays.items())
                leaf = self.layout.leaf(path, arrays) if whole else next(iter(arrays.values()))
                values.setdefault(slot, {})[path] = np.array(leaf)
        return values

    def _widen(self) -> None:
        for group in self.optimizer.param_groups:
            if type(self.optimizer).__name__ == "Adafactor" and group["eps"][0] is None:
                eps = self._torch.finfo(group["params"][0].dtype).eps  # of float64 it would be another
                group["eps"] = (eps, group["eps"][1])
        for name, tensor in self.tensors.items():
            tensor.data = tensor.data.to(self._wider(name))
            for slot, value in self._float_slots(tensor):
                self.optimizer.state[tensor][slot] = value.to(self._wider(name))

    def _narrow(self) -> None:
        for name, tensor in self.tensors.items():
            for value in [tensor.data, *(value for _, value in self._float_slots(tensor))]:
                value.copy_(value.to(self._dtypes[name]))

    def _stored(self, name: str, tensor: Any) -> dict[str, Any]:
        slots = dict(self.optimizer.state.get(tensor, {}))
        wide = self._float_slots(tensor) if self._wide else []
        return slots | {slot: value.to(self._dtypes[name]) for slot, value in wide}

    def _wider(self, name: str) -> Any:
        return self._torch.complex128 if self._dtypes[name].is_complex else self._torch.float64

    def _float_slots(self, tensor: Any) -> list[tuple[str, Any]]:
        slots = self.optimizer.state.get(tensor, {}).items()
        return [(n, v) for n, v in slots if self._torch.is_tensor(v) and v.ndim > 0 and n != "step"]

    def _round(self) -> list[dict[str, Any]]:
        exact = []
        for group in self.optimizer.param_groups:
            dtype = (
                np.float64
                if group["params"][0].dtype in (self._torch.float64, self._torch.complex128)
                else np.float32
            )
            changed: dict[str, Any] = {"lr": float(dtype(float(group["lr"])))}
            if getattr(self.scheduler, "cycle_momentum", False):
                if "betas" in group:
                    changed["betas"] = (float(dtype(group["betas"][0])), group["betas"][1])
                else:
                    changed["momentum"] = float(dtype(group["momentum"]))
            exact.append({name: group[name] for name in changed})
            group.update(changed)
        return exact

    def rates(self) -> dict[str, float]:
        """Path -> learning rate that the next step uses."""
        by_tensor = {id(t): float(g["lr"]) for g in self.optimizer.param_groups for t in g["params"]}
        return {
            path: by_tensor[id(tensor)]
            for name, tensor in self.tensors.items()
            for path in self.layout.paths(name)
        }

    def _dense(self, grad: Any, tensor: Any) -> Any:
        grad = np.ascontiguousarray(np.conj(grad) if np.iscomplexobj(grad) else grad)
        if grad.dtype.name == "bfloat16":
            return self._torch.from_numpy(grad.astype(np.float32)).to(tensor.dtype)
        return self._torch.from_numpy(np.array(grad).reshape(tuple(tensor.shape))).to(tensor.dtype)

    def _rows(self, grad: sparse.BCOO, tensor: Any) -> Any:
        indices = self._torch.from_numpy(np.asarray(grad.indices[:, 0], np.int64))[None]
        values = self._torch.from_numpy(as_numpy(np.asarray(grad.data)).copy()).to(tensor.dtype)
        return self._torch.sparse_coo_tensor(indices, values, tuple(tensor.shape), check_invariants=True)


def as_values(params: Any, slots: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Parameters and slots by quantity and path."""
    values: Values = {
        name: {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for name, tree in {"params": params, **slots}.items()
    }
    return {name: dict(by_path) for name, by_path in values.items()}
