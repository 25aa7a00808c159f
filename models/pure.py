"""From a Flax NNX module to the pure triple that training uses."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx


class Apply(Protocol):
    """A model as a function of its parameters: ``apply(params, rest, *inputs, train=..., rngs=None)``."""

    def __call__(
        self, params: Any, rest: Any, *inputs: Any, train: bool, rngs: Any = None
    ) -> tuple[Any, Any]:
        """Returns the model's output and the new ``rest``."""


class PureModel(NamedTuple):
    """A model taken apart.

    Attributes:
        apply: the pure function; ``train`` (a Python bool) selects dropout and batch statistics. ``rngs``
            (a key) is the randomness of this call alone: given the same key it drops the same elements,
            and the random streams in ``rest`` stay where they are. Without it they are used, and move on.
        params: pytree of the trainable arrays (``nnx.Param``), for the optimizer.
        rest: pytree of everything else that changes: running statistics, random streams.
    """

    apply: Apply
    params: Any
    rest: Any


def pure(model: nnx.Module) -> PureModel:
    """Splits a module into ``(apply, params, rest)``.

    The two trees hold plain arrays (``nnx.as_pure``), so a step over them is an ordinary
    ``jax.jit`` function. That is several times faster to call than ``nnx.jit``, and merging inside
    ``jax.grad`` raises no error about variables from another trace level.

    Args:
        model: any NNX module. It is left as it is, and shares its arrays with the result: copy them
            before a step that donates its input.

    Returns:
        The triple; ``apply`` is closed over the module's structure only.

    Example:
        >>> from jaxopt_core.models import MLP
        >>> apply, params, rest = pure(MLP((4, 8, 3), rngs=nnx.Rngs(0)))
        >>> logits, rest = jax.jit(apply, static_argnames="train")(
        ...     params, rest, jnp.ones((2, 4)), train=True
        ... )
        >>> logits.shape
        (2, 3)
    """
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = map(nnx.as_pure, states)

    def apply(params: Any, rest: Any, *inputs: Any, train: bool, rngs: Any = None) -> tuple[Any, Any]:
        merged = nnx.merge(graph, params, rest)
        if train:
            merged.train()
        else:
            merged.eval()
        if rngs is None:
            output = merged(*inputs)
        else:
            streams = nnx.as_pure(nnx.state(merged, nnx.RngState))
            _reseed(merged, rngs)
            output = merged(*inputs)
            nnx.update(merged, streams)
        return output, nnx.as_pure(nnx.state(merged, nnx.Not(nnx.Param)))

    return PureModel(apply, params, rest)


def _reseed(model: nnx.Module, key: jax.Array) -> None:
    """Starts every random stream anew, each from a key of its own."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    streams = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.RngStream)]
    for i, stream in enumerate(streams):
        stream.key[...] = jax.random.fold_in(key, i)
        stream.count[...] = jnp.zeros_like(stream.count[...])
