"""A recurrence over time whose weight gradient is one matrix product, made after the loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["recur"]

State = tuple[jax.Array, ...]
Cell = Callable[[Any, jax.Array, State], State]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recur(
    cell: Cell,
    joined: bool,
    reverse: bool,
    weight: jax.Array,
    bias: jax.Array | None,
    inputs: jax.Array,
    inside: jax.Array | None,
    state: State,
) -> tuple[jax.Array, State]:
    """``state[t] = cell(inputs[t], state[t-1][0] @ weight.T + bias, state[t-1])``.

    Reverse-mode differentiation of a plain ``scan`` adds to the weight's gradient in every step, a read and
    write of the whole matrix; here the steps' gradients are kept, and one product over time and batch
    follows. Forward-mode differentiation is not defined.

    Args:
      cell: elementwise, in any number of arrays of state; the first is the output ``h``.
      joined: the cell uses only the sum of both arguments; it then gets None and the sum.
      reverse: from the last step to the first.
      weight: ``(G, H)``.
      bias: ``(G,)`` or None.
      inputs: ``(T, N, G)``.
      inside: bool ``(T, N)``: where it is False the state stays as it was and the output is 0. Or None.
      state: arrays ``(N, H)``, before the first step.

    Returns:
      Outputs ``(T, N, H)``, and the state after the last step.

    Example:
      >>> def cell(x, gates, state):
      ...     return (jnp.tanh(gates),)
      >>> outputs, _ = recur(
      ...     cell, True, False, jnp.zeros((1, 1)), None, jnp.ones((3, 1, 1)), None, (jnp.zeros((1, 1)),)
      ... )
      >>> print(outputs[:, 0, 0].round(3))
      [0.762 0.762 0.762]
    """
    outputs, final, _ = _forward(cell, joined, reverse, weight, bias, inputs, inside, state)
    return outputs, final


def _forward(
    cell: Cell, joined: bool, reverse: bool, weight: Any, bias: Any, inputs: Any, inside: Any, state: State
) -> tuple[jax.Array, State, Any]:
    def step(old: State, at: Any) -> tuple[State, Any]:
        x, here = at
        gates = old[0] @ weight.T
        if bias is not None:
            gates = gates + jnp.broadcast_to(bias, gates.shape)
        if joined:
            gates = gates + x
        new = _chosen(here, cell(None if joined else x, gates, old), old)
        output = new[0] if here is None else jnp.where(here[:, None], new[0], 0)
        return new, (output, gates, old)

    final, (outputs, gates, states) = jax.lax.scan(step, state, (inputs, inside), reverse=reverse)
    return outputs, final, (gates, states)


def _chosen(here: jax.Array | None, new: State, old: State) -> State:
    if here is None:
        return new
    return tuple(jnp.where(here[:, None], n, o) for n, o in zip(new, old, strict=True))


def _forward_saving(
    cell: Cell, joined: bool, reverse: bool, weight: Any, bias: Any, inputs: Any, inside: Any, state: State
) -> tuple[tuple[jax.Array, State], Any]:
    outputs, final, (gates, states) = _forward(cell, joined, reverse, weight, bias, inputs, inside, state)
    return (outputs, final), (weight, bias, None if joined else inputs, inside, gates, states)


def _backward(cell: Cell, joined: bool, reverse: bool, saved: Any, cotangents: Any) -> tuple[Any, ...]:
    weight, bias, inputs, inside, gates, states = saved
    d_outputs, d_final = cotangents

    def step(d_new: State, at: Any) -> tuple[State, Any]:
        x, here, g, old, d_output = at
        passed = None
        if here is not None:
            zeros = tuple(jnp.zeros_like(d) for d in d_new)
            d_new, passed = _chosen(here, d_new, zeros), _chosen(here, zeros, d_new)
            d_output = jnp.where(here[:, None], d_output, 0)
        _, pull = jax.vjp(cell, x, g, old)
        d_x, d_gates, d_old = pull((d_new[0] + d_output, *d_new[1:]))
        d_old = (d_old[0] + d_gates @ weight, *d_old[1:])
        if passed is not None:
            d_old = tuple(d + p for d, p in zip(d_old, passed, strict=True))
        return d_old, (d_x, d_gates)

    steps = (inputs, inside, gates, states, d_outputs)
    d_state, (d_inputs, d_gates) = jax.lax.scan(step, d_final, steps, reverse=not reverse)
    rows, columns = weight.shape
    # Time and batch as one axis: see linear.py.
    d_weight = d_gates.reshape(-1, rows).T @ states[0].reshape(-1, columns)
    d_bias = None if bias is None else d_gates.sum((0, 1))
    return d_weight, d_bias, d_gates if joined else d_inputs, None, d_state


recur.defvjp(_forward_saving, _backward)
