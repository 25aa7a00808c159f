"""The iterations of one L-BFGS update: memory, direction, step, stopping; in PyTorch's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxopt_core.optimizers._flat import Flat
from jaxopt_core.optimizers._strong_wolfe import dot, max_abs, strong_wolfe

__all__ = ["LBFGSState", "Limits", "empty_state", "minimize"]


class LBFGSState(NamedTuple):
    """PyTorch's LBFGS state, in arrays of fixed size.

    Vectors are flat over all parameters in leaf order; N counts their elements, complex ones twice
    (real and imaginary part, of PyTorch's gradient, which is the conjugate of JAX's). PyTorch's
    lists ``old_dirs``, ``old_stps`` and ``ro`` are rings here: element ``i`` of a list, the oldest
    first, is row ``(history_start + i) % history_size``, for ``i < history_len``. Before the first
    iteration, when PyTorch has no entry yet, everything is 0 and ``H_diag`` is 1.

    Attributes:
      count: int32 scalar, updates made so far; drives the schedules.
      hyperparams: name -> current value of what can change; see ``read_hyperparams``.
      func_evals: int32 scalar, evaluations of the objective, those made by the caller included.
      n_iter: int32 scalar, iterations over all updates.
      d: (N,) last direction.
      t: scalar, last step length.
      old_dirs: (history_size, N) changes of the gradient.
      old_stps: (history_size, N) changes of the parameters.
      ro: (history_size,) ``1 / (y . s)`` of each pair.
      H_diag: scalar, scale of the initial inverse Hessian.
      prev_flat_grad: (N,) gradient from which the last direction was made.
      prev_loss: scalar, loss at the same place.
      al: (history_size,) coefficients of the last two-loop recursion, a_i of pair ``i``; PyTorch's
        list has ``None`` where this is beyond ``history_len``.
      history_start: int32 scalar, row of the oldest pair.
      history_len: int32 scalar, number of pairs.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]
    func_evals: jax.Array
    n_iter: jax.Array
    d: jax.Array
    t: jax.Array
    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    H_diag: jax.Array
    prev_flat_grad: jax.Array
    prev_loss: jax.Array
    al: jax.Array
    history_start: jax.Array
    history_len: jax.Array


class Limits(NamedTuple):
    """When an update ends."""

    max_iter: int
    max_eval: int
    tolerance_grad: Any
    tolerance_change: Any


class _Progress(NamedTuple):
    """What the iterations of one update carry besides the state."""

    params: list[jax.Array]
    loss: jax.Array
    flat_grad: jax.Array
    t: jax.Array
    n_iter: jax.Array
    evals: jax.Array
    stop: jax.Array


Evaluate = Callable[[list[jax.Array]], tuple[jax.Array, jax.Array]]


def empty_state(flat: Flat, history_size: int, hyperparams: dict[str, Any]) -> LBFGSState:
    """The state before the first update."""

    def zeros(*shape: int, dtype: Any = flat.dtype) -> jax.Array:
        return jnp.zeros(shape, dtype)

    return LBFGSState(
        count=zeros(dtype=jnp.int32),
        hyperparams=hyperparams,
        func_evals=zeros(dtype=jnp.int32),
        n_iter=zeros(dtype=jnp.int32),
        d=zeros(flat.size),
        t=zeros(),
        old_dirs=zeros(history_size, flat.size),
        old_stps=zeros(history_size, flat.size),
        ro=zeros(history_size),
        H_diag=jnp.ones([], flat.dtype),
        prev_flat_grad=zeros(flat.size),
        prev_loss=zeros(),
        al=zeros(history_size),
        history_start=zeros(dtype=jnp.int32),
        history_len=zeros(dtype=jnp.int32),
    )


def minimize(
    flat: Flat,
    evaluate: Evaluate,
    loss: jax.Array,
    flat_grad: jax.Array,
    state: LBFGSState,
    lr: jax.Array,
    limits: Limits,
    search: bool,
) -> tuple[list[jax.Array], LBFGSState]:
    """Runs PyTorch's ``step`` from after its first evaluation.

    Args:
      flat: layout of the parameters, and where they are.
      evaluate: parameters -> (loss, flat gradient (N,)).
      loss: the loss at the parameters.
      flat_grad: the gradient there, shape (N,).
      state: with the first evaluation counted.
      lr: step length, or first trial of the search.
      limits: when to end.
      search: whether to search for a step that satisfies the strong Wolfe conditions.

    Returns:
      The new parameters, and the state.
    """
    max_iter, max_eval, tolerance_grad, tolerance_change = limits

    def unfinished(carry: tuple[_Progress, LBFGSState]) -> jax.Array:
        return (carry[0].n_iter < max_iter) & ~carry[0].stop

    def iterate(carry: tuple[_Progress, LBFGSState]) -> tuple[_Progress, LBFGSState]:
        p, state = carry
        g = p.flat_grad
        state = _remember(state._replace(n_iter=optax.safe_increment(state.n_iter)), g)
        d, al = _direction(state, g)
        t = jnp.where(state.n_iter == 1, _first_scale(g) * lr, lr)
        state = state._replace(d=d, al=al, prev_flat_grad=g, prev_loss=p.loss)
        gtd = dot(g, d)
        p = p._replace(t=t, n_iter=p.n_iter + 1)
        # Only what the branches change goes through them: they might copy the histories.
        p = lax.cond(gtd > -tolerance_change, _stopped, lambda p: advance(p, d, gtd), p)
        return p, state._replace(t=p.t)

    def advance(p: _Progress, d: jax.Array, gtd: jax.Array) -> _Progress:
        loss_before = p.loss
        if search:
            p = searched(p, d, gtd)
        p = p._replace(params=flat.moved(p.params, p.t, d))
        if not search:
            # In the last iteration PyTorch leaves the evaluation to the next step.
            p = lax.cond(p.n_iter == max_iter, lambda p: p, evaluated, p)
        stop = (
            (p.evals >= max_eval)
            | (max_abs(p.flat_grad) <= tolerance_grad)
            | (max_abs(d * p.t) <= tolerance_change)
            | (jnp.abs(p.loss - loss_before) < tolerance_change)
        )
        return p._replace(stop=stop)

    def searched(p: _Progress, d: jax.Array, gtd: jax.Array) -> _Progress:
        point, evals = strong_wolfe(
            lambda t: evaluate(flat.moved(p.params, t, d)),
            p.t,
            d,
            p.loss,
            p.flat_grad,
            gtd,
            max_ls=max_eval - p.evals,
            tolerance_change=tolerance_change,
        )
        return p._replace(t=point.t, loss=point.f, flat_grad=point.g, evals=p.evals + evals)

    def evaluated(p: _Progress) -> _Progress:
        loss, flat_grad = evaluate(p.params)
        return p._replace(loss=loss, flat_grad=flat_grad, evals=p.evals + 1)

    first = _Progress(
        params=flat.params(),
        loss=loss,
        flat_grad=flat_grad,
        t=state.t,
        n_iter=jnp.zeros([], jnp.int32),
        evals=jnp.ones([], jnp.int32),
        stop=max_abs(flat_grad) <= tolerance_grad,
    )
    last, state = lax.while_loop(unfinished, iterate, (first, state))
    return last.params, state._replace(func_evals=_sum(state.func_evals, last.evals - 1))


def _stopped(p: _Progress) -> _Progress:
    return p._replace(stop=jnp.ones([], bool))


def _first_scale(g: jax.Array) -> jax.Array:
    scale = 1 / jnp.sum(jnp.abs(g))
    return jnp.where(scale < 1, scale, 1)  # Python's min(1.0, scale): 1 where scale is NaN


def _remember(state: LBFGSState, g: jax.Array) -> LBFGSState:
    """Puts the last step and change of gradient into the history, if they curve upwards."""
    y = g - state.prev_flat_grad
    s = state.d * state.t  # 0 in the first iteration, which therefore keeps nothing
    ys = dot(y, s)
    keep = ys > 1e-10
    history_size = state.ro.shape[0]
    full = state.history_len == history_size
    row = (state.history_start + state.history_len) % history_size

    def put(ring: jax.Array, new: jax.Array) -> jax.Array:
        return ring.at[row].set(jnp.where(keep, new, ring[row]))

    return state._replace(
        old_dirs=put(state.old_dirs, y),
        old_stps=put(state.old_stps, s),
        ro=put(state.ro, 1 / ys),
        H_diag=jnp.where(keep, ys / dot(y, y), state.H_diag),
        history_start=jnp.where(keep & full, (row + 1) % history_size, state.history_start),
        history_len=jnp.where(keep & ~full, state.history_len + 1, state.history_len),
    )


def _direction(state: LBFGSState, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two-loop recursion: minus the approximate inverse Hessian times the gradient."""
    length = state.history_len

    def pair(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        row = (state.history_start + i) % state.ro.shape[0]
        return state.old_dirs[row], state.old_stps[row], state.ro[row]

    def newest_first(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        q, al = carry
        i = length - 1 - k
        y, s, ro = pair(i)
        a = dot(s, q) * ro
        return q - a * y, al.at[i].set(a)

    def oldest_first(i: jax.Array, r: jax.Array) -> jax.Array:
        y, s, ro = pair(i)
        return r + (al[i] - dot(y, r) * ro) * s

    q, al = lax.fori_loop(0, length, newest_first, (-g, state.al))
    return lax.fori_loop(0, length, oldest_first, q * state.H_diag), al


def _sum(total: jax.Array, more: jax.Array) -> jax.Array:
    """Adds counts, stopping at the largest int32."""
    return jnp.minimum(total, jnp.iinfo(jnp.int32).max - more) + more
