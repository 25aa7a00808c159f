"""Mixed precision as a transformation of functions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.precision._casts import give
from jaxopt_core.precision._plan import EXEMPT, arguments, make_plan
from jaxopt_core.precision._run import run
from jaxopt_core.precision._trace import trace
from jaxopt_core.precision._values import Value

__all__ = ["autocast", "low_dtype", "no_autocast"]

P = ParamSpec("P")
R = TypeVar("R")


def autocast(fn: Callable[P, R], dtype: Any = jnp.bfloat16, enabled: bool = True) -> Callable[P, R]:
    """A function whose matrix products run in 16 bits and whose sums and exponentials run in 32.

    The counterpart of ``with torch.autocast("cuda", dtype)``. ``fn`` is traced, and each primitive runs in
    the precision that PyTorch's CUDA list gives it; the model need not know. Products and convolutions run
    in ``dtype``, exponentials, logarithms, powers, sums, norms, softmax and losses in float32, and the rest
    in the widest type of its inputs, where numbers and scalars do not count. Arrays of other types than
    float32 are left alone. Results have the types that they have without autocast, and so have gradients.

    It goes through ``jit``, ``scan``, ``while_loop``, ``cond``, ``checkpoint``, ``shard_map`` and ``pmap``,
    keeps the rules of ``custom_jvp`` and ``custom_vjp``, and composes with ``grad``, ``vmap`` and ``jit`` on
    either side. Take the gradient of an autocast function, rather than autocast a gradient: then what is
    saved for the backward pass is in ``dtype``.

    Four things keep float32's results within reach:

    - parameters are cast where they are used, every time: the gradient of one that is used n times is
      a sum in float32 (PyTorch casts once and sums in ``dtype``);
    - a product's bias is added in float32, and the sum rounded once;
    - what loops carry is float32;
    - finite constants stay finite: a mask of ``finfo(float32).min`` does not become an infinity.

    Where it differs from ``torch.autocast("cpu")``, whose list is shorter: there exponentials, sums, softmax
    and norms follow their input and ``linalg`` and ``fft`` run in float32; here the former run in float32
    and the latter as they were traced. Where it differs from both: ``batch_norm`` returns float32, not the
    type of its input, and the results of ``fn`` are not left in ``dtype``.

    Args:
      fn: the function. Its arrays are traced; other arguments reach it as they are.
      dtype: ``bfloat16`` or ``float16``. The latter needs loss scaling. Default ``bfloat16``.
      enabled: whether to do anything. A function with ``enabled=False`` stays as it was traced inside
        another autocast function too. Default True.

    Returns:
      A function with the arguments and results of ``fn``.

    Raises:
      ValueError: ``dtype`` is another type; at the call, ``fn`` changes an object that it was given, such as
        the statistics of a ``flax.nnx`` model, in place.

    Products with ``precision="high"`` or ``"highest"`` of their own stay in float32; the global
    ``jax_default_matmul_precision`` is not looked at. See also :func:`no_autocast` and
    :func:`~jaxopt_core.precision.autocast_report`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxopt_core.precision import autocast
      >>> def loss(w, x):
      ...     return jnp.mean(jnp.tanh(x @ w) ** 2)
      >>> w, x = jnp.full((4, 2), 0.3), jnp.ones((3, 4))
      >>> grad = jax.jit(jax.grad(autocast(loss)))
      >>> grad(w, x).dtype
      dtype('float32')
      >>> products = [line for line in grad.lower(w, x).as_text().splitlines() if "dot_general" in line]
      >>> len(products), all("bf16" in line and "f32" not in line for line in products)
      (2, True)
    """
    low = low_dtype(dtype)

    @functools.wraps(fn, updated=())
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        if not enabled:
            with no_autocast():
                return fn(*args, **kwargs)
        program, arrays, rebuild = trace(fn, args, kwargs)
        plan = make_plan(program.jaxpr, arguments(program.jaxpr.invars), low)
        outs = run(program.jaxpr, program.consts, arrays, plan, low)
        return rebuild(give(outs, plan.outs, [Value()] * len(outs), low))

    return function


def no_autocast() -> contextlib.AbstractContextManager[None]:
    """A scope whose operations run as they were traced, as under ``torch.autocast(enabled=False)``.

    Use it around what needs float32 throughout, such as ``optax.ctc_loss``, which picks log-probabilities
    with a matrix product. It is a named scope, so it may be entered anywhere, with or without autocast.

    Returns:
      A context manager, which is a decorator as well.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.precision import autocast, no_autocast
      >>> def f(x):
      ...     with no_autocast():
      ...         return x @ x
      >>> x = jnp.full((2, 2), 1.001)
      >>> bool((autocast(f)(x) == f(x)).all())
      True
    """
    return jax.named_scope(EXEMPT)


def low_dtype(dtype: Any) -> np.dtype[Any]:
    """``dtype``, if autocast can run in it.

    Raises:
      ValueError: it is neither bfloat16 nor float16.
    """
    if dtype not in (jnp.bfloat16, jnp.float16) and str(dtype) not in ("bfloat16", "float16"):
        raise ValueError(f"autocast only supports dtypes of bfloat16, float16; got {dtype}.")
    return jnp.dtype(dtype)
