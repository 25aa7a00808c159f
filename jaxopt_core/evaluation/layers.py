"""What happens inside a network: outputs and gradient norms, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxopt_core.extras import needs_extra

__all__ = ["activation_scales", "layer_norms", "layer_outputs"]


def layer_outputs(model: Any, *inputs: Any) -> dict[str, jax.Array]:
    """Calls a Flax NNX model and returns what each of its modules gave, in the order of the calls.

    ``flax.nnx.capture`` in place of PyTorch's forward hooks finds the methods that a class itself
    defines; this finds inherited ones too, so that every layer is there. Works inside ``jit`` if the
    call is inside too. Not for several threads at once, because the classes are changed for the call.

    Args:
        model: any ``nnx.Module``.
        inputs: its arguments.

    Returns:
        Path of the module -> the first array of its last output; the model itself is ``""``. What is called
        inside ``lax.scan`` and its like has no single output, and is left out.

    Raises:
        MissingExtraError: Flax is not installed.

    Example:
        >>> from flax import nnx
        >>> from jaxopt_core.models import MLP
        >>> outputs = layer_outputs(MLP((4, 8, 3), rngs=nnx.Rngs(0)), jnp.ones((2, 4)))
        >>> {path: value.shape for path, value in outputs.items()}
        {'layers/0': (2, 8), 'layers/1': (2, 3), '': (2, 3)}
    """
    with needs_extra("models"):
        from flax import nnx

    modules: dict[Any, Any] = dict(nnx.iter_modules(model))
    paths = {id(module): "/".join(map(str, path)) for path, module in modules.items()}
    outputs: dict[str, jax.Array] = {}
    outside = core.get_opaque_trace_state(convention="nnx")

    def record(module: Any, output: Any) -> None:
        leaves = jax.tree.leaves(output)
        if id(module) in paths and leaves and core.get_opaque_trace_state(convention="nnx") == outside:
            path = paths[id(module)]
            outputs.pop(path, None)  # to stand where its last call was
            outputs[path] = leaves[0]

    with _recorded({type(module) for module in modules.values() if callable(module)}, record):
        model(*inputs)
    return outputs


def activation_scales(model: Any, *inputs: Any) -> dict[str, jax.Array]:
    """Root mean square of what each module gives: a layer that dies or explodes shows.

    See :func:`layer_outputs`.

    Example:
        >>> from flax import nnx
        >>> from jaxopt_core.models import MLP
        >>> list(activation_scales(MLP((4, 8, 3), rngs=nnx.Rngs(0)), jnp.ones((2, 4))))
        ['layers/0', 'layers/1', '']
    """
    return {
        path: jnp.sqrt(jnp.mean(jnp.square(jnp.abs(value.astype(jnp.float32)))))
        for path, value in layer_outputs(model, *inputs).items()
        if jnp.issubdtype(value.dtype, jnp.inexact)
    }


def layer_norms(tree: Any) -> dict[str, jax.Array]:
    """The 2-norm of each layer's part of a tree like the parameters: gradients, updates or parameters.

    A layer is what holds arrays side by side, such as a kernel and a bias. Works inside ``jit``.

    Args:
        tree: a pytree of arrays.

    Returns:
        Path of the layer -> scalar, in the order of the tree.

    Example:
        >>> layer = {"bias": jnp.array([3.0]), "kernel": jnp.array([[4.0]])}
        >>> norms = layer_norms({"a": layer, "b": jnp.ones(4)})
        >>> {path: float(norm) for path, norm in norms.items()}
        {'a': 5.0, 'b': 2.0}
    """
    squares: dict[str, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        inner = path[:-1] or path
        name = jax.tree_util.keystr(inner, simple=True, separator="/")
        size = jnp.abs(leaf)
        # The square of a number of half precision may be beyond it.
        size = size.astype(np.float32) if size.dtype.itemsize < 4 else size
        square = jnp.sum(jnp.square(size))
        squares[name] = squares[name] + square if name in squares else square
    return {name: jnp.sqrt(square) for name, square in squares.items()}


@contextmanager
def _recorded(classes: set[Any], record: Callable[[Any, Any], None]) -> Iterator[None]:
    """Lets every call of an instance of the classes be recorded."""
    own: dict[Any, Any] = {cls: cls.__dict__.get("__call__") for cls in classes}

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            output = call(self, *args, **kwargs)
            record(self, output)
            return output

        return wrapped

    found: dict[Any, Any] = {cls: cls.__call__ for cls in classes}  # before the first is changed
    try:
        for cls, call in found.items():
            cls.__call__ = wrap(call)
        yield
    finally:
        for cls, call in own.items():
            if call is None:
                del cls.__call__
            else:
                cls.__call__ = call
