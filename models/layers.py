"""PyTorch's layers in Flax NNX: its arguments, defaults, paddings and starting values.

Features come last (``NHWC``), kernels are Flax's (``(in, out)``, ``(*window, in / groups, out)``), and the
leaves are named as Flax names them: ``kernel``, ``bias``, ``scale``, ``embedding``.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.batch_norm import BatchNorm, BatchNorm1d, BatchNorm2d, convert_sync_batchnorm
from jaxopt_core.models.convolution import Conv1d, Conv2d, avg_pool2d, max_pool2d
from jaxopt_core.models.initializers import Initializer, normal, torch_default
from jaxopt_core.models.linear import linear
from jaxopt_core.models.norms import GroupNorm, LayerNorm

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "avg_pool2d",
    "convert_sync_batchnorm",
    "max_pool2d",
]


class Linear(nnx.Linear):
    """``x @ kernel + bias``, starting as ``torch.nn.Linear`` does.

    Args:
        in_features: length of the input's last axis.
        out_features: length of the output's last axis.
        bias: add one. Default True.
        kernel_init: default uniform in ``±1/sqrt(in_features)``, as is the bias; Flax's is LeCun normal.
        bias_init: see ``kernel_init``; Flax's is zeros.
        dtype: of the computation. Default: of input and parameters together.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from.

    Example:
        >>> Linear(4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 4))).shape
        (2, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            use_bias=bias,
            kernel_init=kernel_init or torch_default(in_features),
            bias_init=bias_init or torch_default(in_features),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Maps ``(..., in_features)`` to ``(..., out_features)``."""
        if out_sharding is not None:
            return super().__call__(inputs, out_sharding)
        bias = None if self.bias is None else self.bias[...]
        return linear(*self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype))


class Embedding(nnx.Embed):
    """A table of vectors, starting standard normal as ``torch.nn.Embedding`` (Flax's: variance 1/features).

    Args:
        num_embeddings: rows.
        embedding_dim: length of a row.
        padding_idx: a row that starts at zero and gets no gradient. Default None.
        embedding_init: default standard normal.
        dtype: of the result. Default: of the table.
        param_dtype: of the table. Default float32.
        rngs: where the starting values come from.

    Raises:
        ValueError: ``padding_idx`` is not a row.

    Differences from PyTorch: an index out of range gives NaN, because a compiled program cannot raise.

    Example:
        >>> table = Embedding(10, 4, padding_idx=0, rngs=nnx.Rngs(0))
        >>> print(table(jnp.array([0])))
        [[0. 0. 0. 0.]]
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        embedding_init: Initializer | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"Padding_idx must be within num_embeddings, found {padding_idx} for {num_embeddings}"
            )
        super().__init__(
            num_embeddings,
            embedding_dim,
            embedding_init=embedding_init or normal(1.0),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        if self.padding_idx is not None:
            self.embedding[...] = self.embedding[...].at[self.padding_idx].set(0)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """The rows of integer indices ``(...)``, as ``(..., embedding_dim)``."""
        rows = super().__call__(inputs, out_sharding)
        if self.padding_idx is None:
            return rows
        padding = jnp.expand_dims(inputs == self.padding_idx, -1)
        return jnp.where(padding, jax.lax.stop_gradient(rows), rows)


class Dropout(nnx.Dropout):
    """Zeros elements with probability ``p`` and divides the others by ``1 - p``, as ``torch.nn.Dropout``.

    Args:
        p: probability that an element is dropped. Default 0.5.
        rngs: its stream ``dropout`` is forked, so that no two layers drop alike.

    Raises:
        ValueError: ``p`` is not a probability.

    Example:
        >>> layer = Dropout(0.5, rngs=nnx.Rngs(0))
        >>> sorted(set(layer(jnp.ones(100)).tolist()))
        [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, *, rngs: nnx.Rngs) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        super().__init__(p, rngs=rngs)
