"""The strong Wolfe line search of PyTorch's LBFGS, as one loop.

With ``phi(t) = f(x + t d)``, find a ``t`` with

    phi(t) <= phi(0) + c1 t phi'(0)     (sufficient decrease)
    |phi'(t)| <= c2 |phi'(0)|           (curvature)

    bracket: evaluate at t; while neither condition decides, step further out by cubic interpolation
    zoom:    evaluate inside the bracket by cubic interpolation and replace one of its ends,
             until both conditions hold, the bracket is tiny or the evaluations are used up

Source: Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithms 3.5 and 3.6 and equation
3.59, in the form that Schmidt's minFunc gave them, which is what PyTorch runs.

Both phases are turns of one ``lax.while_loop``, so that the objective is compiled once. A
comparison with NaN is false here as in Python, and ``_min`` and ``_max`` then keep their first
argument, as Python's do: it decides where an objective that overflows sends the search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Point", "dot", "max_abs", "strong_wolfe"]


class Point(NamedTuple):
    """One evaluation along the line: where, the objective, its gradient (N,), and ``phi'(t)``."""

    t: jax.Array
    f: jax.Array
    g: jax.Array
    gtd: jax.Array


class _Search(NamedTuple):
    t: jax.Array  # the next trial
    a: Point  # PyTorch's bracket[0]; before there is a bracket, the previous trial
    b: Point  # PyTorch's bracket[1]
    low_is_b: jax.Array
    zooming: jax.Array
    stuck: jax.Array  # PyTorch's insuf_progress
    evals: jax.Array
    running: jax.Array


def strong_wolfe(
    objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    t: jax.Array,
    d: jax.Array,
    f: jax.Array,
    g: jax.Array,
    gtd: jax.Array,
    *,
    max_ls: jax.Array,
    tolerance_change: Any,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> tuple[Point, jax.Array]:
    """Searches along ``d`` for a step that satisfies the strong Wolfe conditions.

    Args:
      objective: ``t -> (loss, flat gradient (N,))`` at ``x + t d``.
      t: first trial.
      d: direction, shape (N,).
      f: loss at ``t = 0``.
      g: gradient at ``t = 0``, shape (N,).
      gtd: directional derivative at ``t = 0``.
      max_ls: int32 scalar; the search makes at most ``max_ls + 1`` evaluations.
      tolerance_change: stop when no parameter could move by more than this within the bracket.
      c1: constant of the sufficient decrease.
      c2: constant of the curvature condition.

    Returns:
      The point chosen, and the number of evaluations made, int32.
    """
    d_norm = max_abs(d)
    start = Point(jnp.zeros_like(t), f, g, gtd)

    def turn(s: _Search) -> _Search:
        new_f, new_g = objective(s.t)
        new = Point(s.t, new_f, new_g, dot(new_g, d))
        s = s._replace(evals=s.evals + 1)
        too_high = new.f > f + c1 * new.t * gtd
        flat = jnp.abs(new.gtd) <= -c2 * gtd
        s = lax.cond(s.zooming, zoom, bracket, s, new, too_high, flat)
        return lax.cond(s.running & s.zooming, refine, lambda s: s, s)

    def bracket(s: _Search, new: Point, too_high: jax.Array, flat: jax.Array) -> _Search:
        tries = s.evals - 1
        exhausted = tries >= max_ls
        crossed = too_high | ((tries > 1) & (new.f >= s.a.f))
        found = ~crossed & flat
        enclosed = crossed | (new.gtd >= 0)
        outside = _cubic_minimum(s.a, new, new.t + 0.01 * (new.t - s.a.t), new.t * 10)
        # When the search ends here, PyTorch's bracket is the one point found: `a`, the low end.
        a = _pick(exhausted, start, _pick(found | ~enclosed, new, s.a))
        return s._replace(
            t=outside,
            a=a,
            b=new,
            low_is_b=(exhausted | ~found) & ~(a.f <= new.f),
            zooming=enclosed,
            running=~(exhausted | found),
        )

    def zoom(s: _Search, new: Point, too_high: jax.Array, flat: jax.Array) -> _Search:
        low, high = _pick(s.low_is_b, s.b, s.a), _pick(s.low_is_b, s.a, s.b)
        worse = too_high | (new.f >= low.f)
        turned = ~flat & (new.gtd * (high.t - low.t) >= 0)
        high = _pick(worse, new, _pick(turned, low, high))
        low = _pick(worse, low, new)
        a, b = _pick(s.low_is_b, high, low), _pick(s.low_is_b, low, high)
        return s._replace(
            a=a,
            b=b,
            low_is_b=jnp.where(worse, ~(a.f <= b.f), s.low_is_b),
            running=(worse | ~flat) & (s.evals - 1 < max_ls),
        )

    def refine(s: _Search) -> _Search:
        """Chooses the next trial inside the bracket, not too close to its ends twice in a row."""
        left, right = _min(s.a.t, s.b.t), _max(s.a.t, s.b.t)
        t = _cubic_minimum(s.a, s.b, *_ordered(s.a.t, s.b.t))
        margin = 0.1 * (right - left)
        close = _min(right - t, t - left) < margin
        move = close & (s.stuck | (t >= right) | (t <= left))
        inner = jnp.where(jnp.abs(t - right) < jnp.abs(t - left), right - margin, left + margin)
        return s._replace(
            t=jnp.where(move, inner, t),
            stuck=close & ~move,
            running=~(jnp.abs(s.b.t - s.a.t) * d_norm < tolerance_change),
        )

    no = jnp.zeros([], bool)
    first = _Search(t, start, start, no, no, no, jnp.zeros([], jnp.int32), ~no)
    end = lax.while_loop(lambda s: s.running, turn, first)
    return _pick(end.low_is_b, end.b, end.a), end.evals


def _cubic_minimum(p: Point, q: Point, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """Minimiser of the cubic through two points with their slopes, clipped to [lower, upper]."""
    d1 = p.gtd + q.gtd - 3 * (p.f - q.f) / (p.t - q.t)
    square = d1 * d1 - p.gtd * q.gtd
    real = square >= 0
    d2 = jnp.sqrt(jnp.where(real, square, 0))
    rising = q.t - (q.t - p.t) * ((q.gtd + d2 - d1) / (q.gtd - p.gtd + 2 * d2))
    falling = p.t - (p.t - q.t) * ((p.gtd + d2 - d1) / (p.gtd - q.gtd + 2 * d2))
    t = jnp.where(p.t <= q.t, rising, falling)
    return jnp.where(real, _min(_max(t, lower), upper), (lower + upper) / 2)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner product in full precision: by default accelerators round float32 factors first."""
    return jnp.dot(x, y, precision=lax.Precision.HIGHEST)


def max_abs(x: jax.Array) -> jax.Array:
    """Largest magnitude in a vector, NaN if it has a NaN, 0 if it is empty."""
    return jnp.max(jnp.abs(x), initial=0)


def _ordered(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.where(x <= y, x, y), jnp.where(x <= y, y, x)


def _min(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y < x, y, x)


def _max(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.where(y > x, y, x)


def _pick(choice: jax.Array, x: Point, y: Point) -> Point:
    return jax.tree.map(lambda u, v: jnp.where(choice, u, v), x, y)
