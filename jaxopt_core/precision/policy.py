"""Which type parameters are stored in, which is computed in, and which comes out."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Policy", "get_policy"]

T = TypeVar("T")

_FIELDS = {
    "params": "param",
    "param": "param",
    "p": "param",
    "compute": "compute",
    "c": "compute",
    "output": "output",
    "o": "output",
}
_DTYPES = {
    "float64": "float64",
    "f64": "float64",
    "double": "float64",
    "float32": "float32",
    "f32": "float32",
    "full": "float32",
    "float16": "float16",
    "f16": "float16",
    "half": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}


class Policy(NamedTuple):
    """Three types, for a model whose casts are written by hand.

    :func:`~jaxopt_core.precision.autocast` needs none of it: it casts each operation by what it is. A policy
    is for whole trees: parameters in half precision to serve a model, inputs in the type of its layers.

    Attributes:
      param: what parameters are stored in, and updated in.
      compute: what parameters and inputs are cast to on the way in.
      output: what results are cast to.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.precision import get_policy
      >>> policy = get_policy("params=float32,compute=bfloat16,output=float32")
      >>> tree = policy.cast_to_compute({"w": jnp.ones(2), "step": jnp.array(3), "name": "dense"})
      >>> str(tree["w"].dtype), str(tree["step"].dtype), tree["name"]
      ('bfloat16', 'int32', 'dense')
    """

    param: Any
    compute: Any
    output: Any

    def cast_to_param(self, tree: T) -> T:
        """The tree with its floating-point arrays in the parameters' type."""
        return _cast(tree, self.param)

    def cast_to_compute(self, tree: T) -> T:
        """The tree with its floating-point arrays in the type that is computed in."""
        return _cast(tree, self.compute)

    def cast_to_output(self, tree: T) -> T:
        """The tree with its floating-point arrays in the results' type."""
        return _cast(tree, self.output)

    def __str__(self) -> str:
        param, compute, output = (jnp.dtype(dtype).name for dtype in self)
        return f"params={param},compute={compute},output={output}"


def get_policy(text: str) -> Policy:
    """A policy by its name, in the notations of jmp and Keras.

    Args:
      text: one type for all three (``"float32"``, ``"bf16"``), ``"mixed_bfloat16"`` or ``"mixed_float16"``
        (float32 but for ``compute``), or the three by name, in any order:
        ``"params=float32,compute=bfloat16,output=float32"``, ``"p=f32,c=bf16,o=f32"``. ``full`` is float32
        and ``half`` float16. An omitted ``output`` is that of ``compute``.

    Raises:
      ValueError: the text names another type or another field, or leaves one out.

    Differences from jmp: ``half`` is float16 on every device; ``mixed_`` names are Keras's.

    Example:
      >>> from jaxopt_core.precision import get_policy
      >>> print(get_policy("mixed_bfloat16"))
      params=float32,compute=bfloat16,output=float32
      >>> print(get_policy("bf16"))
      params=bfloat16,compute=bfloat16,output=bfloat16
    """
    text = text.strip().lower()
    if text.startswith("mixed_"):
        return Policy(jnp.float32, _dtype(text.removeprefix("mixed_")), jnp.float32)
    if "=" not in text:
        dtype = _dtype(text)
        return Policy(dtype, dtype, dtype)
    fields: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in _FIELDS or _FIELDS[name] in fields:
            raise ValueError(
                f"Invalid policy {text!r}: {part.strip()!r}; "
                "expected params=..., compute=..., output=..., each once."
            )
        fields[_FIELDS[name]] = _dtype(value)
    if missing := [name for name in ("param", "compute") if name not in fields]:
        raise ValueError(f"Invalid policy {text!r}: it does not say {' and '.join(missing)}.")
    return Policy(**{"output": fields["compute"], **fields})


def _dtype(name: str) -> Any:
    if name not in _DTYPES:
        raise ValueError(f"Invalid dtype {name!r} in a policy; expected one of {', '.join(_DTYPES)}.")
    return jnp.dtype(_DTYPES[name])


def _cast(tree: T, dtype: Any) -> T:
    def one(leaf: Any) -> Any:
        is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
        return leaf.astype(dtype) if is_array and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)
