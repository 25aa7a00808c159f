"""LSTM and GRU with PyTorch's arguments, tensors and numbers."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from jaxopt_core.models.initializers import uniform_within
from jaxopt_core.models.layers import Dropout
from jaxopt_core.models.linear import linear
from jaxopt_core.models.recurrence import State, recur

__all__ = ["GRU", "LSTM"]


class _Recurrent(nnx.Module):
    """Layers and directions; what a step computes is in the classes below.

    The parameters are PyTorch's tensors, by name and layout: ``weight_ih_l0`` (gates * hidden, input),
    ``weight_hh_l0`` (gates * hidden, hidden), ``bias_ih_l0``, ``bias_hh_l0``, and the same with ``_l1`` for
    the second layer and ``_reverse`` for the way back.
    """

    _gates: ClassVar[int]
    _joined: ClassVar[bool]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be greater than zero, found {hidden_size}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be greater than zero, found {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element "
                f"being zeroed, found {dropout}"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=2,
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dtype = dtype
        self.dropout = Dropout(dropout, rngs=rngs)
        init, rows = uniform_within(1 / math.sqrt(hidden_size)), self._gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * self._directions
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, width),
                    "weight_hh": (rows, hidden_size),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                for name, shape in shapes.items():
                    setattr(self, f"{name}_{suffix}", nnx.Param(init(rngs.params(), shape, param_dtype)))

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self._directions]

    @staticmethod
    def _cell(x: Any, gates: jax.Array, state: State) -> State:
        raise NotImplementedError

    def _run(self, x: jax.Array, states: State | None, lengths: Any) -> tuple[jax.Array, State]:
        """All layers over ``(T, N, C)``; states are ``(layers * directions, N, H)``."""
        count = 2 if self._joined else 1  # an LSTM has a cell besides its output
        if states is None:
            shape = (self.num_layers * self._directions, x.shape[1], self.hidden_size)
            states = (jnp.zeros(shape, x.dtype),) * count
        self._check(x, states)
        inside = None if lengths is None else _inside(x, lengths)
        finals = []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                start = tuple(state[layer * self._directions + direction] for state in states)
                output, final = self._one(x, suffix, start, inside, reverse=direction == 1)
                outputs.append(output)
                finals.append(final)
            x = jnp.concatenate(outputs, axis=-1)
            if layer + 1 < self.num_layers:
                x = self.dropout(x)
        return x, tuple(jnp.stack(each) for each in zip(*finals, strict=True))

    def _one(
        self, x: jax.Array, suffix: str, start: State, inside: jax.Array | None, *, reverse: bool
    ) -> tuple[jax.Array, State]:
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.bias else ()))
        values = (getattr(self, f"{name}_{suffix}")[...] for name in names)
        x, *found = promote_dtype((x, *values, *start), dtype=self.dtype)
        weight_ih, weight_hh, *biases = found[: len(names)]
        start = tuple(found[len(names) :])
        added = bias = None
        if biases:
            # Where the cell only sees the sum, both are added in its loop, over memory that it reads anyway.
            added, bias = (None, biases[0] + biases[1]) if self._joined else biases
        inputs = linear(x, weight_ih.T, added)
        return recur(type(self)._cell, self._joined, reverse, weight_hh, bias, inputs, inside, start)

    def _check(self, x: jax.Array, states: State) -> None:
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        expected = (self.num_layers * self._directions, x.shape[1], self.hidden_size)
        for state in states:
            if state.shape != expected:
                raise ValueError(f"Expected hidden size {expected}, got {list(state.shape)}")

    def _call(self, x: jax.Array, states: State | None, lengths: Any) -> tuple[jax.Array, State]:
        """Turns PyTorch's other shapes into ``(T, N, C)`` and back."""
        if x.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.ndim}D instead")
        single = x.ndim == 2
        if single:
            x = x[:, None]
            states = None if states is None else tuple(state[:, None] for state in states)
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        output, states = self._run(x, states, lengths)
        if single:
            return output[:, 0], tuple(state[:, 0] for state in states)
        return output.swapaxes(0, 1) if self.batch_first else output, states


class LSTM(_Recurrent):
    """Long short-term memory, as ``torch.nn.LSTM``: its gates in its order, input, forget, cell, output.

    ::

        i, f, g, o = split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh, 4)
        c <- sigmoid(f) * c + sigmoid(i) * tanh(g)
        h <- sigmoid(o) * tanh(c)

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the forget gate of Gers,
    Schmidhuber and Cummins, 2000.

    Args:
        input_size: features of the input.
        hidden_size: features of ``h`` and ``c``.
        num_layers: layers, each reading the outputs of the one before. Default 1.
        bias: two of them, as PyTorch has. Default True.
        batch_first: input and output are ``(N, T, C)``. Default False, ``(T, N, C)``; the states are
            ``(layers, N, H)`` either way.
        dropout: probability with which an element between two layers is dropped. Default 0.
        bidirectional: a second set of weights runs from the end to the start. Default False.
        dtype: of the computation. Default: of input and parameters together.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, uniform in ``±1/sqrt(hidden_size)``, and the dropout.

    Raises:
        ValueError: an argument out of range, an input or a state of another size.

    Differences from ``flax.nnx.RNN(LSTMCell)``: layers, directions, both biases, PyTorch's tensors; the
    gradient of the recurrent weight is one matrix product. Differences from PyTorch: ``lengths`` instead
    of packed sequences; no ``proj_size``. PyTorch's own on CUDA drops other elements.

    Example:
        >>> lstm = LSTM(4, 8, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
        >>> output, (h, c) = lstm(jnp.ones((5, 3, 4)), None, jnp.array([5, 2, 3]))
        >>> output.shape, h.shape, c.shape
        ((5, 3, 16), (4, 3, 8), (4, 3, 8))
    """

    _gates = 4
    _joined = True

    @staticmethod
    def _cell(x: Any, gates: jax.Array, state: State) -> State:
        del x
        # Of the whole row, a quarter for nothing: XLA makes one loop of it and not one for each output.
        i, f, _, o = jnp.split(jax.nn.sigmoid(gates), 4, axis=-1)
        g = jnp.tanh(jnp.split(gates, 4, axis=-1)[2])
        c = f * state[1] + i * g
        return o * jnp.tanh(c), c

    def __call__(
        self, x: jax.Array, hx: tuple[jax.Array, jax.Array] | None = None, lengths: Any = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Runs over a sequence.

        Args:
            x: ``(T, N, C)``, or ``(N, T, C)`` with ``batch_first``, or one sequence, ``(T, C)``.
            hx: ``(h, c)``, each ``(layers * directions, N, H)``. Default zeros.
            lengths: ``(N,)`` steps of each sequence, at least 1. As with a packed sequence, outputs beyond
                are 0, the final states are those of the last step, and the way back starts there. Default:
                all steps.

        Returns:
            Outputs with ``directions * H`` features, and the final ``(h, c)``.
        """
        output, (h, c) = self._call(x, hx, lengths)
        return output, (h, c)


class GRU(_Recurrent):
    """Gated recurrent unit, as ``torch.nn.GRU``: its gates in its order, reset, update, new.

    ::

        r = sigmoid(x @ W_ir.T + b_ir + h @ W_hr.T + b_hr)
        z = sigmoid(x @ W_iz.T + b_iz + h @ W_hz.T + b_hz)
        n = tanh(x @ W_in.T + b_in + r * (h @ W_hn.T + b_hn))
        h <- (1 - z) * n + z * h

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, in PyTorch's
    form: the reset gate multiplies after the matrix product, and ``z`` keeps the old state.

    Arguments, errors and differences are :class:`LSTM`'s.

    Example:
        >>> gru = GRU(4, 8, batch_first=True, rngs=nnx.Rngs(0))
        >>> output, h = gru(jnp.ones((3, 5, 4)))
        >>> output.shape, h.shape
        ((3, 5, 8), (1, 3, 8))
    """

    _gates = 3
    _joined = False

    @staticmethod
    def _cell(x: Any, gates: jax.Array, state: State) -> State:
        (xr, xz, xn), (hr, hz, hn) = (jnp.split(each, 3, axis=-1) for each in (x, gates))
        r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + r * hn)
        return ((1 - z) * n + z * state[0],)

    def __call__(
        self, x: jax.Array, hx: jax.Array | None = None, lengths: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        """Runs over a sequence, as :meth:`LSTM.__call__`; the state is ``h`` alone."""
        output, (h,) = self._call(x, None if hx is None else (hx,), lengths)
        return output, h


def _inside(x: jax.Array, lengths: Any) -> jax.Array:
    steps, batch = x.shape[:2]
    lengths = jnp.asarray(lengths)
    if lengths.shape != (batch,):
        raise ValueError(f"Expected `len(lengths)` to be equal to batch_size {batch}, got {lengths.shape}")
    if not isinstance(lengths, jax.core.Tracer):
        values = np.asarray(lengths)
        if values.size and values.min() < 1:
            raise ValueError(f"Length of all samples has to be greater than 0, but found {values.min()}")
        if values.size and values.max() > steps:
            raise ValueError(f"lengths: {values.max()} is more than the {steps} steps of the input")
    return jnp.arange(steps, dtype=lengths.dtype)[:, None] < lengths[None]
