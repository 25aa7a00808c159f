"""The networks whose training steps are timed, in Flax and in PyTorch, and their batches.

A workload is a row of ``WORKLOADS``. PyTorch's networks are those that the tests compare ours with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["WORKLOADS", "Workload"]

USERS, ITEMS = 6040, 3706  # as many as MovieLens 1M has


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network and its batch.

    Attributes:
      title: what it is called in tables.
      ours: ``(quick) -> flax.nnx.Module``, abstract or not.
      theirs: ``(quick) -> torch.nn.Module`` with the same names.
      batch: ``(quick) -> (inputs, labels)``: the network's arguments, images with channels last, and what
        its outputs should be.
      classes: whether the loss is the cross entropy of classes; otherwise that of yes and no.
      scan: whether 20 steps in one program are timed too: for steps so short that dispatch counts.
      flax: ``(quick, state) -> flax.nnx.Module`` with PyTorch's weights, where Flax's own layers are other
        ones than ours; by default Flax with Optax trains our network.
    """

    title: str
    ours: Callable[[bool], Any]
    theirs: Callable[[bool], Any]
    batch: Callable[[bool], tuple[tuple[np.ndarray, ...], np.ndarray]]
    classes: bool = True
    scan: bool = False
    flax: Callable[[bool, Mapping[str, np.ndarray]], Any] | None = None


def _our_mlp(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import MLP

    del quick
    return MLP((784, 128, 10), rngs=nnx.Rngs(0))


def _their_mlp(quick: bool) -> Any:
    from tests.oracle_models import mlp

    del quick
    return mlp((784, 128, 10))


def _our_resnet(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import resnet18

    return resnet18(10, cifar_stem=True, width=4 if quick else 64, rngs=nnx.Rngs(0))


def _their_resnet(quick: bool) -> Any:
    from tests.oracle_models import resnet

    return resnet("BasicBlock", (2, 2, 2, 2), 10, 4 if quick else 64, cifar_stem=True)


def _our_lstm(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import LSTMClassifier

    return LSTMClassifier(1000, 10, 16 if quick else 256, 16 if quick else 256, rngs=nnx.Rngs(0))


def _their_lstm(quick: bool) -> Any:
    from tests.oracle_sequences import LSTMClassifier

    return LSTMClassifier(1000, 10, 16 if quick else 256, 16 if quick else 256, 1, False)


def _flax_lstm(quick: bool, state: Mapping[str, np.ndarray]) -> Any:
    """With one bias where PyTorch has two that are added."""
    import jax.numpy as jnp
    from flax import nnx

    width = 16 if quick else 256

    class Classifier(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embedding = nnx.Embed(1000, width, rngs=rngs)
            self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(width, width, rngs=rngs), rngs=rngs)
            self.fc = nnx.Linear(width, 10, rngs=rngs)

        def __call__(self, tokens: Any) -> Any:
            return self.fc(self.lstm(self.embedding(tokens))[:, -1])

    model = Classifier(nnx.Rngs(0))
    cell = model.lstm.cell
    model.embedding.embedding[...] = jnp.asarray(state["embedding.weight"])
    cell.dense_i.kernel[...] = jnp.asarray(state["lstm.weight_ih_l0"].T)
    cell.dense_h.kernel[...] = jnp.asarray(state["lstm.weight_hh_l0"].T)
    cell.dense_h.bias[...] = jnp.asarray(state["lstm.bias_ih_l0"] + state["lstm.bias_hh_l0"])
    model.fc.kernel[...] = jnp.asarray(state["fc.weight"].T)
    model.fc.bias[...] = jnp.asarray(state["fc.bias"])
    return model


def _gpt_sizes(quick: bool) -> dict[str, int]:
    sizes = {"vocab_size": 256, "n_positions": 128, "n_embd": 256, "n_layer": 4, "n_head": 4}
    return sizes | ({"n_embd": 16, "n_layer": 1, "n_head": 2} if quick else {})


def _our_gpt(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import GPT2LMHeadModel

    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(**_gpt_sizes(quick), **no_dropout, rngs=nnx.Rngs(0))


def _their_gpt(quick: bool) -> Any:
    from tests.oracle_sequences import GPT2

    return GPT2(**_gpt_sizes(quick))


def _our_recommender(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import NeuralCF

    return NeuralCF(USERS, ITEMS, 4 if quick else 32, rngs=nnx.Rngs(0))


def _their_recommender(quick: bool) -> Any:
    from tests.oracle_sequences import NeuralCF

    return NeuralCF(USERS, ITEMS, 4 if quick else 32, 3)


def _images(*shape: int) -> tuple[tuple[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape).astype(np.float32),), rng.integers(0, 10, shape[0])


def _texts(count: int, length: int) -> tuple[tuple[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 1000, (count, length)),), rng.integers(0, 10, count)


def _next_tokens(count: int, length: int) -> tuple[tuple[np.ndarray], np.ndarray]:
    text = np.random.default_rng(0).integers(0, 256, (count, length + 1))
    return (text[:, :-1],), text[:, 1:]


def _liked(count: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, USERS, count), rng.integers(0, ITEMS, count)
    return (users, items), rng.integers(0, 2, count).astype(np.float32)


WORKLOADS = {
    "mlp": Workload(
        "MLP 784-128-10, batch 64",
        _our_mlp,
        _their_mlp,
        lambda quick: _images(4 if quick else 64, 784),
        scan=True,
    ),
    "resnet18": Workload(
        "ResNet-18, 32 images of 32x32",
        _our_resnet,
        _their_resnet,
        lambda quick: _images(4 if quick else 32, 32, 32, 3),
    ),
    "lstm": Workload(
        "LSTM 256-256, 32 texts of 64",
        _our_lstm,
        _their_lstm,
        lambda quick: _texts(4, 8) if quick else _texts(32, 64),
        flax=_flax_lstm,
    ),
    "gpt": Workload(
        "GPT-2 of 4 layers, width 256, 8 texts of 128",
        _our_gpt,
        _their_gpt,
        lambda quick: _next_tokens(2, 8) if quick else _next_tokens(8, 128),
    ),
    "recommender": Workload(
        "NeuralCF 32, 6040 users, 3706 items, batch 1024",
        _our_recommender,
        _their_recommender,
        lambda quick: _liked(8 if quick else 1024),
        classes=False,
    ),
}
