"""Recommendation: matrix factorisation, and neural collaborative filtering."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.initializers import kaiming_uniform, normal, uniform_within
from jaxopt_core.models.layers import Dropout, Embedding, Linear
from jaxopt_core.optimizers import sparse_rows

__all__ = ["MatrixFactorization", "NeuralCF", "is_table", "value_and_row_grad"]

_ZEROS = jax.nn.initializers.zeros


class MatrixFactorization(nnx.Module):
    """Ratings as the product of two vectors of factors, plus biases.

    ``rating = global_bias + user_bias + item_bias + user_factors . item_factors``

    Source: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009,
    equation 4. The embeddings ``user_embeddings``, ``item_embeddings``, ``user_biases`` and ``item_biases``
    are named as in Spotlight, a PyTorch library.

    Args:
        num_users: number of users.
        num_items: number of items.
        factors: length of the vectors. Default 32.
        global_bias: the mean rating, where training starts. Default 0.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from: factors normal with standard deviation ``1/factors``,
            biases zero.

    Example:
        >>> model = MatrixFactorization(100, 50, 8, global_bias=3.5, rngs=nnx.Rngs(0))
        >>> model(jnp.array([7, 99]), jnp.array([3, 0])).shape
        (2,)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        factors: int = 32,
        global_bias: float = 0.0,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        small = normal(1 / factors)
        self.user_embeddings = Embedding(num_users, factors, embedding_init=small, **kinds)
        self.item_embeddings = Embedding(num_items, factors, embedding_init=small, **kinds)
        self.user_biases = Embedding(num_users, 1, embedding_init=_ZEROS, **kinds)
        self.item_biases = Embedding(num_items, 1, embedding_init=_ZEROS, **kinds)
        self.global_bias = nnx.Param(jnp.full(1, global_bias, param_dtype))

    def __call__(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """Ratings of the same shape as the indices of users and items."""
        product = (self.user_embeddings(users) * self.item_embeddings(items)).sum(-1)
        biases = (self.user_biases(users) + self.item_biases(items))[..., 0]
        return product + biases + self.global_bias[...][0]


class NeuralCF(nnx.Module):
    """Neural matrix factorisation: a product of embeddings beside a network on other embeddings.

    Source: He et al., "Neural Collaborative Filtering", 2017, section 3.4 (NeuMF). Modules, sizes and
    starting values as in its well-known PyTorch version, github.com/guoyang9/NCF: ``embed_user_GMF``,
    ``embed_item_GMF``, ``embed_user_MLP``, ``embed_item_MLP``, ``MLP_layers`` (dropout, linear and ReLU, so
    that the linear layers are 1, 4, 7 ...) and ``predict_layer``.

    Args:
        num_users: number of users.
        num_items: number of items.
        factor_num: length of the product's embeddings and of the network's last layer; the others are
            twice as wide each, up to ``2**(num_layers - 1)`` times for the network's embeddings. Default 32.
        num_layers: layers of the network. Default 3.
        dropout: before each linear layer. Default 0.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Example:
        >>> model = NeuralCF(100, 50, 8, rngs=nnx.Rngs(0))
        >>> model(jnp.array([7, 99]), jnp.array([3, 0])).shape  # logits
        (2,)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        factor_num: int = 32,
        num_layers: int = 3,
        dropout: float = 0.0,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        table = {"embedding_init": normal(0.01), **kinds}
        wide = factor_num * 2 ** (num_layers - 1)
        self.embed_user_GMF = Embedding(num_users, factor_num, **table)
        self.embed_item_GMF = Embedding(num_items, factor_num, **table)
        self.embed_user_MLP = Embedding(num_users, wide, **table)
        self.embed_item_MLP = Embedding(num_items, wide, **table)
        layers: list[Any] = []
        for i in range(num_layers):
            width = factor_num * 2 ** (num_layers - i)
            xavier = uniform_within(math.sqrt(6 / (width + width // 2)))
            linear = Linear(width, width // 2, kernel_init=xavier, bias_init=_ZEROS, **kinds)
            layers += [Dropout(dropout, rngs=rngs), linear, jax.nn.relu]
        self.MLP_layers = nnx.List(layers)
        kaiming = kaiming_uniform(a=1)
        self.predict_layer = Linear(2 * factor_num, 1, kernel_init=kaiming, bias_init=_ZEROS, **kinds)

    def __call__(self, users: jax.Array, items: jax.Array) -> jax.Array:
        """Logits that a user will like an item, of the same shape as the indices."""
        with jax.named_scope("embeddings"):
            product = self.embed_user_GMF(users) * self.embed_item_GMF(items)
            x = jnp.concatenate([self.embed_user_MLP(users), self.embed_item_MLP(items)], axis=-1)
        with jax.named_scope("MLP_layers"):
            for layer in self.MLP_layers:
                x = layer(x)
        with jax.named_scope("predict_layer"):
            return self.predict_layer(jnp.concatenate([product, x], axis=-1))[..., 0]


def value_and_row_grad(
    loss_fn: Callable[..., tuple[jax.Array, Any]],
) -> Callable[..., tuple[tuple[jax.Array, Any], Any]]:
    """The gradient of a recommender with respect to the rows that a batch looks up, for ``sparse_adam``.

    A dense gradient of a table with millions of rows is mostly zeros. Here the rows are looked up first,
    and differentiated in the table's place: what PyTorch does for ``nn.Embedding(sparse=True)``.

    Args:
        loss_fn: ``loss_fn(params, users, items, *rest) -> (loss, aux)``, which looks up users and items in
            the embeddings whose names contain ``user`` and ``item``, and nowhere else. ``users`` and
            ``items`` it gets are not those of the batch: use them for nothing else.

    Returns:
        ``run(params, users, items, *rest) -> ((loss, aux), grads)``, with ``users`` and ``items`` of
        shape ``(N,)``. In ``grads``, a tree like ``params``, each of those embeddings has a ``BCOO`` of
        ``(rows, dim)`` (:func:`jaxopt_core.sparse_rows`), and everything else its ordinary gradient.

    Example:
        >>> import optax
        >>> import jaxopt_core as jo
        >>> from jaxopt_core.models import pure
        >>> apply, params, rest = pure(MatrixFactorization(100, 50, 8, rngs=nnx.Rngs(0)))
        >>> def loss_fn(params, users, items, ratings):
        ...     predicted, _ = apply(params, rest, users, items, train=True)
        ...     return jnp.mean((predicted - ratings) ** 2), None
        >>> tx = optax.partition({True: jo.sparse_adam(), False: jo.adam()}, is_table(params))
        >>> batch = jnp.array([7, 99]), jnp.array([3, 0]), jnp.array([5.0, 1.0])
        >>> (loss, _), grads = value_and_row_grad(loss_fn)(params, *batch)
        >>> grads["user_embeddings"]["embedding"].nse, grads["global_bias"].shape
        (2, (1,))
        >>> updates, state = tx.update(grads, tx.init(params), params)
        >>> params = jo.apply_updates(params, updates)
    """

    def run(params: Any, users: jax.Array, items: jax.Array, *rest: Any) -> tuple[tuple[jax.Array, Any], Any]:
        index = {"user": users, "item": items}

        def looked_up(path: Any, leaf: jax.Array) -> jax.Array:
            kind = _kind(path)
            return leaf if kind is None else leaf[index[kind]]

        def sparse(path: Any, leaf: jax.Array, grad: jax.Array) -> Any:
            kind = _kind(path)
            return grad if kind is None else sparse_rows(index[kind], grad, len(leaf))

        rows = jax.tree_util.tree_map_with_path(looked_up, params)
        places = (jnp.arange(len(ids), dtype=ids.dtype) for ids in (users, items))
        value, grads = jax.value_and_grad(loss_fn, has_aux=True)(rows, *places, *rest)
        return value, jax.tree_util.tree_map_with_path(sparse, params, grads)

    return run


def is_table(params: Any) -> Any:
    """A tree of bools: which parameters are embeddings of users or items, for ``optax.partition``."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _kind(path) is not None, params)


def _kind(path: Any) -> str | None:
    *modules, leaf = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    if leaf != "embedding":
        return None
    found = [kind for kind in ("user", "item") if any(kind in module for module in modules)]
    return found[0] if len(found) == 1 else None
