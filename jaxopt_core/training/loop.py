"""Training a classifier: a pure step, scanned over batches, and the loop around it."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxopt_core.access import read_hyperparams
from jaxopt_core.data import Dataset, Split
from jaxopt_core.leafwise import apply_updates
from jaxopt_core.training.metrics import EpochMetrics

Apply = Callable[..., tuple[jax.Array, Any]]


class TrainState(NamedTuple):
    """All that a step reads and writes.

    Attributes:
        params: pytree of the trainable arrays.
        rest: pytree of what else the model changes: running statistics, random streams.
        opt_state: the optimizer's state.
    """

    params: Any
    rest: Any
    opt_state: Any


class Progress(NamedTuple):
    """Where a run is, after each dispatch.

    Attributes:
        epoch: from 1.
        step: updates made since the start.
        loss: mean loss of the dispatch's batches, in nats.
        lr: learning rate of the last update.
        images_per_second: of this dispatch; the first one includes compilation.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    images_per_second: float


class Run(NamedTuple):
    """What :func:`fit` returns.

    Attributes:
        state: after the last update.
        epochs: one row of metrics per epoch.
        losses: float32 of shape ``(updates,)``, the loss of every batch, in nats.
    """

    state: TrainState
    epochs: list[EpochMetrics]
    losses: NDArray[np.float32]


def fit(
    apply: Apply,
    params: Any,
    rest: Any,
    tx: optax.GradientTransformation,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    steps_per_dispatch: int = 100,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Trains a classifier with the cross-entropy loss.

    Every epoch sees the training images in a new order, drawn from ``seed`` and the epoch's number;
    the images left over after the last full batch sit that epoch out. On one machine, a run repeats
    bit for bit.

    Args:
        apply: the model, ``apply(params, rest, images, train=...) -> (logits, rest)``, for example
            from :func:`jaxopt_core.models.pure`.
        params: initial parameters; the arrays stay valid.
        rest: initial value of what else the model changes.
        tx: the optimizer, from jaxopt_core: its learning rate is read back.
        data: images to train on and to test on.
        epochs: passes over the training images.
        batch_size: images per update.
        seed: of the order of the images.
        steps_per_dispatch: updates per call of the compiled program. Default 100.
        on_progress: called after each dispatch.

    Returns:
        Final state, metrics per epoch, and the loss of every update.

    Raises:
        ValueError: the batch size does not fit the data.
        FloatingPointError: the loss is no longer finite.
    """
    steps = count_steps(data.train, batch_size)
    train = jax.device_put(data.train)
    test = jax.device_put(data.test)
    run_steps = make_train_steps(apply, tx)
    test_model = jax.jit(functools.partial(evaluate, apply))

    # The steps donate their state: the caller keeps the originals.
    params, rest = jax.tree.map(jnp.copy, (params, rest))
    state = TrainState(params, rest, tx.init(params))
    shuffle_key = jax.random.key(seed)
    history: list[EpochMetrics] = []
    losses: list[NDArray[np.float32]] = []

    for epoch in range(1, epochs + 1):
        epoch_start = time.perf_counter()
        order = jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), len(train.labels))
        batches = np.asarray(order)[: steps * batch_size].reshape(steps, batch_size)
        correct = 0

        for first in range(0, steps, steps_per_dispatch):
            start = time.perf_counter()
            indices = batches[first : first + steps_per_dispatch]
            state, (batch_losses, batch_correct) = run_steps(state, train, indices)
            losses.append(np.asarray(batch_losses))
            correct += int(batch_correct.sum())
            step = (epoch - 1) * steps + first + len(indices)
            _require_finite(losses[-1], epoch, step)
            lr = float(read_hyperparams(state.opt_state)["lr"])
            rate = indices.size / (time.perf_counter() - start)
            if on_progress is not None:
                on_progress(Progress(epoch, step, float(losses[-1].mean()), lr, rate))

        seconds = time.perf_counter() - epoch_start
        test_loss, test_correct = test_model(state.params, state.rest, test)
        history.append(
            EpochMetrics(
                epoch=epoch,
                step=step,
                lr=lr,
                train_loss=float(np.concatenate(losses)[-steps:].mean()),
                train_accuracy=correct / batches.size,
                test_loss=float(test_loss),
                test_accuracy=int(test_correct) / len(test.labels),
                seconds=seconds,
                images_per_second=batches.size / seconds,
            )
        )

    return Run(state, history, np.concatenate(losses))


def make_train_steps(
    apply: Apply, tx: optax.GradientTransformation
) -> Callable[[TrainState, Split, Any], tuple[TrainState, tuple[jax.Array, jax.Array]]]:
    """Compiles many updates into one program.

    Args:
        apply: the model, as for :func:`fit`.
        tx: the optimizer.

    Returns:
        ``run_steps(state, split, indices) -> (state, (losses, correct))``, compiled. ``indices``,
        of shape ``(steps, batch)``, picks each step's images; ``losses`` (float32, nats) and
        ``correct`` (int32, images) have shape ``(steps,)``. The given state is donated: use the
        returned one.
    """

    def loss_fn(params: Any, rest: Any, batch: Split) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        logits, rest = apply(params, rest, batch.images, train=True)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), (rest, _count_correct(logits, batch.labels))

    @functools.partial(jax.jit, donate_argnums=0)
    def run_steps(
        state: TrainState, split: Split, indices: jax.Array
    ) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
        def step(state: TrainState, picked: jax.Array) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
            batch = Split(split.images[picked], split.labels[picked])
            (loss, (rest, correct)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                state.params, state.rest, batch
            )
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
            params = apply_updates(state.params, updates)
            return TrainState(params, rest, opt_state), (loss, correct)

        return jax.lax.scan(step, state, indices)

    return run_steps


def evaluate(apply: Apply, params: Any, rest: Any, split: Split) -> tuple[jax.Array, jax.Array]:
    """Mean loss (nats) and number of right answers over a split, in one batch, without training."""
    logits, _ = apply(params, rest, split.images, train=False)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, split.labels)
    return losses.mean(), _count_correct(logits, split.labels)


def count_steps(split: Split, batch_size: int) -> int:
    """Full batches in one epoch.

    Raises:
        ValueError: ``batch_size`` is not between 1 and the number of images.
    """
    images = len(split.labels)
    if not 1 <= batch_size <= images:
        raise ValueError(f"expected 1 to {images}, the number of images, found {batch_size}")
    return images // batch_size


def _count_correct(logits: jax.Array, labels: Any) -> jax.Array:
    return (logits.argmax(axis=-1).astype(labels.dtype) == labels).sum(dtype=jnp.int32)


def _require_finite(losses: NDArray[np.float32], epoch: int, last_step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        step = last_step - len(losses) + int(bad[0]) + 1
        raise FloatingPointError(
            f"the loss became {losses[bad[0]]} at step {step}, in epoch {epoch}; "
            "a lower learning rate usually helps"
        )
