"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxopt_core.training.callbacks import Callback, Row, Run
from jaxopt_core.training.checkpoint import Checkpoints
from jaxopt_core.training.dispatch import OWN_WAIT, compile_steps
from jaxopt_core.training.early_stopping import EarlyStopping
from jaxopt_core.training.feed import Feed, Group, first_batches
from jaxopt_core.training.means import Means
from jaxopt_core.training.nonfinite import NonFiniteError, explain_nonfinite
from jaxopt_core.training.signals import noticing_sigterm
from jaxopt_core.training.state import TrainState
from jaxopt_core.training.step import StepFn

if TYPE_CHECKING:
    from jaxopt_core.profiling import Schedule

__all__ = ["EvalFn", "evaluate", "fit"]

EvalFn = Callable[[TrainState, Any], Mapping[str, tuple[jax.Array, jax.Array]]]


def fit(
    state: TrainState,
    data: Iterable[Any],
    step_fn: StepFn,
    *,
    epochs: int | None = None,
    max_steps: int | None = None,
    max_time: float | None = None,
    eval_data: Iterable[Any] | None = None,
    eval_fn: EvalFn | None = None,
    eval_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: Checkpoints | None = None,
    resume: bool | int = False,
    steps_per_dispatch: int = 32,
    sanity_batches: int = 2,
    fast_dev_run: int = 0,
    overfit_batches: int = 0,
    check_finite: Sequence[str] = ("loss", "grad_norm"),
    profile: Schedule | None = None,
) -> Run:
    """Runs a step over batches, several for each call of the compiled program.

    Everything that decides the numbers is in ``state``, ``data`` and ``step_fn``: on one machine the same
    three give the same bits, in one go or resumed from any checkpoint, wherever dispatches begin and end
    and whatever watches.

    Args:
      state: where to begin, from :func:`~jaxopt_core.training.init_state`; its arrays stay valid.
      data: iterating over it gives the batches of one epoch, pytrees of NumPy or JAX arrays, all of the same
        shapes: one of :mod:`jaxopt_core.data`'s, a list, a PyTorch ``DataLoader``. With ``state()`` and
        ``restore(state)`` it resumes at once; otherwise the batches seen already are drawn again and thrown
        away.
      step_fn: ``(state, batch) -> (state, metrics)``, pure; see :func:`~jaxopt_core.training.make_step`.
      epochs: passes over the data. Default None: no limit.
      max_steps: updates. Default None: no limit.
      max_time: seconds, those before a resume included. Default None: no limit.
      eval_data: batches to validate on. Default None.
      eval_fn: ``(state, batch) -> {name: (sum, count)}``; over all batches the sums and the counts add up, so
        that examples which only pad a batch can count nothing. Needed with ``eval_data``.
      eval_every: updates from one validation to the next. Default None: at the end of each epoch.
      callbacks: called in their order; see :class:`~jaxopt_core.training.Callback`.
      checkpoints: where to save, after each validation and at the end. Default None: nowhere.
      resume: go on from the newest checkpoint, if there is one, or from that of the given step.
      steps_per_dispatch: most updates in one call of the compiled program. Callbacks, signals and limits are
        looked at between calls. Default 32.
      sanity_batches: batches to validate on before the first update, so that a mistake there shows at once
        and not after an epoch. Default 2.
      fast_dev_run: run so many batches of training and of validation, once, and save nothing. Default 0: off.
      overfit_batches: train and validate on the first so many batches, over and over: a model that cannot
        learn them by heart has a defect. Default 0: off.
      check_finite: metrics that must be finite; where one is not, the step is repeated one operation at a
        time to name the layer. While any are given, the state before each dispatch is kept, which takes
        memory for one more. Default ``("loss", "grad_norm")``, those of them that there are.
      profile: which dispatches to record, a :class:`~jaxopt_core.profiling.Schedule`; what came of it is the
        run's ``profile``. Default None: nothing is recorded.

    Returns:
      A :class:`~jaxopt_core.training.Run`: final state, metrics, and why it ended.

    Raises:
      ValueError: an argument is out of range, no limit is given, or batches differ in shape.
      NonFiniteError: a checked metric is not finite; names step and layer. No checkpoint is made of it.
      CorruptCheckpointError: the checkpoint to resume from is damaged.
      FileNotFoundError: there is no checkpoint of the step given as ``resume``.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxopt_core as jo
      >>> from jaxopt_core.training import init_state, make_step
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((batch["x"] @ params - batch["y"]) ** 2), (rest, {})
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(20, 8, 3)).astype(np.float32)
      >>> batches = [{"x": each, "y": each @ np.float32([1, 2, 3])} for each in x]
      >>> tx = jo.adam(lr=0.1)
      >>> run = fit(init_state(jnp.zeros(3), {}, tx), batches, make_step(loss_fn, tx), epochs=10)
      >>> print(run.step, run.stop_reason, run.state.params.round(2))
      200 epochs [1. 2. 3.]
    """
    _check(epochs, max_steps, max_time, eval_data, eval_fn, steps_per_dispatch)
    if profile is not None:
        from jaxopt_core.profiling import ProfileCallback

        recording = ProfileCallback(profile)
        data, callbacks = recording.watch(data), [*callbacks, recording]
    if overfit_batches:
        data = first_batches(data, overfit_batches)
        eval_data = data if eval_data is not None else None
    if fast_dev_run:
        data, epochs, eval_every, checkpoints = first_batches(data, fast_dev_run), 1, None, None
        eval_data = None if eval_data is None else first_batches(eval_data, fast_dev_run)

    run = Run(state, total_steps=_planned(data, epochs, max_steps))
    feed, means = Feed(data, steps_per_dispatch), Means()
    if checkpoints is not None and (resume is not False) and (checkpoints.steps() or resume is not True):
        restored = checkpoints.restore(state, None if resume is True else resume)
        _take_back(run, feed, means, callbacks, restored.state, restored.meta)
    run_steps = compile_steps(step_fn, donate=not check_finite)
    if not check_finite:
        run.state = jax.tree.map(jax.numpy.copy, run.state)  # the caller's arrays stay valid
    run_eval = None if eval_fn is None else jax.jit(eval_fn)
    held_out: Any = eval_data
    rewind = held_out.state() if hasattr(held_out, "state") and hasattr(held_out, "restore") else None

    def validate(data: Iterable[Any]) -> dict[str, float]:
        # From the same position every time: shuffled otherwise, the last digit would depend on a resume.
        if rewind is not None:
            held_out.restore(rewind)
        return {} if run_eval is None else evaluate(run_eval, run.state, data)

    def room() -> int:
        every = [eval_every, checkpoints.every_steps if checkpoints else None]
        ends = [drawn // n * n + n for n in every if n is not None]
        return (
            min([end for end in (*ends, max_steps) if end is not None], default=drawn + steps_per_dispatch)
            - drawn
        )

    def save(group: Group, row: Row | None) -> None:
        if checkpoints is not None:
            kept = {type(callback).__name__: callback.state_dict() for callback in callbacks}
            meta = {
                "step": run.step,
                "position": group.position,
                "seconds": run.seconds,
                "means": means.state(),
                "callbacks": {name: value for name, value in kept.items() if value},
            }
            checkpoints.save(run.step, run.state, meta, row)

    drawn = run.step
    started = time.perf_counter() - run.seconds
    with noticing_sigterm() as asked_to_stop:
        try:
            for callback in callbacks:
                callback.on_start(run)
            if eval_data is not None and run.step == 0:
                validate(islice(eval_data, sanity_batches))
            if (epochs is not None and feed.finished_epochs >= epochs) or run.step == max_steps:
                run.stop("epochs" if run.step != max_steps else "max_steps")

            groups = feed.groups(room)
            group = None if run.stop_reason else next(groups)
            while group is not None:
                began = time.perf_counter()
                before = run.state
                run.state, pending = run_steps(before, group.batches, group.count)
                drawn += group.count
                is_last = drawn == max_steps or (group.ends_epoch and group.epoch == epochs)
                upcoming = None if is_last else next(groups)  # is prepared while the steps run
                names = sorted(pending, key=lambda name: (name != "loss", name))
                with jax.profiler.TraceAnnotation(OWN_WAIT):
                    metrics = {name: np.asarray(pending[name])[: group.count] for name in names}
                if check_finite:
                    _require_finite(step_fn, run_steps, before, group, metrics, check_finite, run)
                run.step, run.epoch = run.step + group.count, group.epoch
                now = time.perf_counter()
                run.seconds, run.steps_per_second = now - started, group.count / (now - began)
                means.add(metrics)
                for callback in callbacks:
                    callback.on_steps(run, metrics)

                if drawn == max_steps:
                    run.stop("max_steps")
                if group.ends_epoch and group.epoch == epochs:
                    run.stop("epochs")
                if max_time is not None and run.seconds >= max_time:
                    run.stop("max_time")
                if asked_to_stop.is_set():
                    run.stop("SIGTERM")

                row = None
                is_time = group.ends_epoch if eval_every is None else run.step % eval_every == 0
                if is_time or (run.stop_reason and run.stop_reason != "SIGTERM"):
                    row = {
                        "epoch": group.epoch,
                        "step": run.step,
                        "seconds": run.seconds,
                        "steps_per_second": means.count / max(run.seconds - means.since, 1e-9),
                        **{f"train_{name}": value for name, value in means.take(run.seconds).items()},
                    }
                    if eval_data is not None:
                        row |= {f"val_{name}": value for name, value in validate(eval_data).items()}
                    run.rows.append(row)
                    for callback in callbacks:
                        callback.on_row(run, row)
                every = checkpoints.every_steps if checkpoints is not None else None
                if row is not None or run.stop_reason or (every is not None and run.step % every == 0):
                    save(group, row)
                group = None if run.stop_reason else upcoming
        finally:
            for callback in callbacks:
                callback.on_end(run)
            if checkpoints is not None:
                checkpoints.close()
    _restore_best(run, callbacks, checkpoints)
    if profile is not None:
        try:
            run.profile = recording.result
        except RuntimeError as error:  # the run was shorter than the wait; it is not to be lost for that
            warnings.warn(f"fit(profile=...): {error}", stacklevel=2)
    return run


def evaluate(eval_fn: EvalFn, state: TrainState, data: Iterable[Any]) -> dict[str, float]:
    """Means over batches: each metric's sums over its counts.

    Args:
      eval_fn: ``(state, batch) -> {name: (sum, count)}``, compiled or not.
      state: to evaluate.
      data: batches.

    Returns:
      name -> mean, NaN where nothing was counted.

    Example:
      >>> import jax.numpy as jnp
      >>> def eval_fn(state, batch):
      ...     return {"value": (jnp.sum(batch["x"] * batch["mask"]), jnp.sum(batch["mask"]))}
      >>> full, padded = {"mask": jnp.ones(2)}, {"mask": jnp.asarray([1.0, 0.0])}
      >>> evaluate(eval_fn, None, [full | {"x": jnp.ones(2)}, padded | {"x": jnp.full(2, 4.0)}])
      {'value': 2.0}
    """
    pending = [eval_fn(state, batch) for batch in data]
    totals: dict[str, list[float]] = {}
    with jax.profiler.TraceAnnotation(OWN_WAIT):
        for batch in pending:
            for name, (value, count) in batch.items():
                total = totals.setdefault(name, [0.0, 0.0])
                total[0] += float(value)
                total[1] += float(count)
    return {name: value / count if count else math.nan for name, (value, count) in totals.items()}


def _check(
    epochs: int | None,
    max_steps: int | None,
    max_time: float | None,
    eval_data: Any,
    eval_fn: Any,
    length: int,
) -> None:
    limits = {"epochs": epochs, "max_steps": max_steps, "max_time": max_time}
    if all(limit is None for limit in limits.values()):
        raise ValueError("a run without end: give epochs, max_steps or max_time")
    for name, limit in {**limits, "steps_per_dispatch": length}.items():
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} must be positive, got {limit!r}")
    if eval_data is not None and eval_fn is None:
        raise ValueError("eval_data needs an eval_fn: (state, batch) -> {name: (sum, count)}")


def _planned(data: Any, epochs: int | None, max_steps: int | None) -> int | None:
    try:
        in_epochs = None if epochs is None else len(data) * epochs
    except TypeError:  # a stream
        in_epochs = None
    return min((n for n in (in_epochs, max_steps) if n is not None), default=None)


def _take_back(
    run: Run, feed: Feed, means: Means, callbacks: Sequence[Callback], state: TrainState, meta: dict[str, Any]
) -> None:
    run.state, run.step, run.seconds = state, meta["step"], meta["seconds"]
    feed.restore(meta["position"])
    run.epoch = feed.epoch
    means.restore(meta["means"])
    for callback in callbacks:
        if kept := meta["callbacks"].get(type(callback).__name__):
            callback.load_state_dict(kept)


def _require_finite(
    step_fn: StepFn,
    run_steps: Callable[..., Any],
    before: TrainState,
    group: Group,
    metrics: Mapping[str, Any],
    names: Sequence[str],
    run: Run,
) -> None:
    watched = {name: metrics[name] for name in names if name in metrics}
    bad = {name: int(np.argmin(np.isfinite(v))) for name, v in watched.items() if not np.isfinite(v).all()}
    if not bad:
        return
    name, index = min(bad.items(), key=lambda item: item[1])
    state, _ = run_steps(before, group.batches, index)
    batch = jax.tree.map(lambda x: x[index], group.batches)
    cause = explain_nonfinite(step_fn, state, batch, name)
    found = cause.text if cause is not None else "one operation at a time all of it is finite"
    step = run.step + index + 1
    run.state = before
    raise NonFiniteError(
        f"{name} became {watched[name][index]} at step {step}, in epoch {group.epoch}: {found}; "
        f"a lower learning rate or clipping usually helps",
        step,
        cause.layer if cause is not None else "",
    )


def _restore_best(run: Run, callbacks: Sequence[Callback], checkpoints: Checkpoints | None) -> None:
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.restore_best and callback.best_step:
            if callback.best_state is not None:
                run.state = callback.best_state
            elif checkpoints is not None:  # it was before a resume
                there = callback.best_step in checkpoints.steps()
                best = callback.best_step if there else checkpoints.best_step()
                run.state = checkpoints.restore(run.state, best).state
                checkpoints.close()
