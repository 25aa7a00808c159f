"""A search in batches: Optuna chooses and prunes, one compiled program trains."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxopt_core.extras import needs_extra
from jaxopt_core.tuning.programs import How
from jaxopt_core.tuning.pruning import halving_pruner
from jaxopt_core.tuning.queue import Queue
from jaxopt_core.tuning.space import Space
from jaxopt_core.tuning.stage import Stage
from jaxopt_core.tuning.storage import StorageError, is_shared, open_storage, quiet
from jaxopt_core.tuning.trainable import Trainable, in_one_part
from jaxopt_core.tuning.trials import Direction, Trial, check_direction, pick_best
from jaxopt_core.tuning.workers import Heart

if TYPE_CHECKING:
    import optuna

__all__ = ["Study", "study"]


@dataclasses.dataclass
class Study:
    """What came of a study.

    Attributes:
      trials: of all workers, in the order in which they were asked for.
      metric: that was compared.
      direction: of the better values.
      programs: how many programs this worker has compiled.
      compile_seconds: what that took.
      seconds: what everything took.
      trouble: what went wrong on the way, a line each: trials that failed, a storage that was away.
      optuna: Optuna's own object, for its pictures.
    """

    trials: list[Trial]
    metric: str
    direction: Direction
    programs: int
    compile_seconds: float
    seconds: float
    trouble: list[str]
    optuna: optuna.Study

    @property
    def best(self) -> Trial:
        """The best trial; see :class:`~jaxopt_core.tuning.TrialsFailedError`."""
        return pick_best(self.trials, self.metric, self.direction)


def study(
    train: Trainable | Callable[..., Any],
    space: Space,
    *,
    trials: int,
    metric: str = "value",
    direction: Direction = "minimize",
    batch: int = 16,
    sampler: str | optuna.samplers.BaseSampler = "tpe",
    pruner: str | optuna.pruners.BasePruner | None = "halving",
    storage: str | None = None,
    name: str = "study",
    seed: int = 0,
    timeout: float | None = None,
    args: tuple[Any, ...] = (),
    how: How = "auto",
    traced: Collection[str] = ("seed",),
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
    heartbeat: float = 10.0,
    patience: float = 60.0,
    fingerprint: dict[str, Any] | None = None,
    on_trial: Callable[[Trial, str], None] | None = None,
    on_other: Callable[[Trial], None] | None = None,
) -> Study:
    """Searches a space: asks Optuna for a batch of trials, trains it together, prunes, and tells.

    With a storage other than memory, any number of processes, on any machines, may run the same call: they
    share the trials and no trial is trained twice. What a worker leaves unfinished when it is killed is found
    by the others, or by the next run, and queued again. A run that finds the study in its storage goes on
    with it until there are ``trials`` in all; space, metric, direction, number of parts and ``fingerprint``
    must be the same.

    Args:
      train: as for :func:`~jaxopt_core.tuning.sweep`; a ``Trainable`` of several parts can be pruned.
      space: to search.
      trials: of all workers and runs together.
      metric: to compare. Default ``"value"``.
      direction: of the better values, ``"minimize"`` (default) or ``"maximize"``.
      batch: trials that are asked for and trained at a time. A larger one is faster, a smaller one learns
        more from the trials before. Default 16.
      sampler: ``"tpe"`` (default), ``"random"``, ``"qmc"``, or one of Optuna's.
      pruner: ``"halving"`` (default; :func:`~jaxopt_core.tuning.halving_pruner`), ``"median"``, one of
        Optuna's, or None.
      storage: see :func:`~jaxopt_core.tuning.open_storage`. Default None: in memory.
      name: of the study in its storage.
      seed: of the sampler in the process that makes the study; others, and later runs, draw anew, so that no
        two ask the same.
      timeout: seconds after which no batch is begun. Default None.
      args: as for :func:`~jaxopt_core.tuning.sweep`, and so are the next four.
      how: in turn or side by side.
      traced: names of whole numbers that do not decide the program.
      devices: to spread a batch over.
      memory: bytes on one device.
      heartbeat: seconds between signs of life; a worker on another machine is taken for dead after three.
        Default 10.
      patience: seconds to wait for a storage that is locked or away. Default 60.
      fingerprint: name -> value of JSON, of what else decides the results, such as the name of the data:
        stored with the study, and compared by those who go on with it. Default: nothing.
      on_trial: called with each trial that has ended here (its status says how), and a line about trouble.
      on_other: called with each trial that has ended in another worker or an earlier run.

    Returns:
      A :class:`Study`. A trial that raises, or whose metric becomes NaN, infinite or an array, has failed,
      with the reason; the others go on.

    Raises:
      ValueError: an argument is out of range, or the stored study is another one.
      StorageError: the storage cannot be opened. If it goes away later, the study ends with what there is.
      MissingExtraError: Optuna is not installed.

    Example:
      >>> from jaxopt_core.tuning import Float, Space
      >>> result = study(lambda config: (config["x"] - 0.3) ** 2, Space({"x": Float(-1.0, 1.0)}), trials=32)
      >>> len(result.trials), result.programs, bool(result.best.metrics["value"] < 0.01)
      (32, 1, True)
    """
    check_direction(direction)
    for argument, value in {"trials": trials, "batch": batch, "heartbeat": heartbeat}.items():
        if not value > 0:
            raise ValueError(f"{argument}: expected a positive number, got {value!r}")
    start = time.perf_counter()
    trainable = train if isinstance(train, Trainable) else in_one_part(train, args)
    trouble: list[str] = []
    local: dict[int, Trial] = {}
    known: dict[int, Trial] = {}
    stage = Stage(
        trainable, how=how, traced=traced, devices=devices, memory=memory, capacity=min(batch, trials)
    )
    opened = open_storage(storage, patience=patience)
    with quiet(), contextlib.ExitStack() as exits:
        queue = Queue(
            opened,
            name,
            space,
            direction,
            _sampler(sampler, seed),
            _pruner(pruner),
            {**(fingerprint or {}), "metric": metric, "parts": trainable.parts},
            trials,
            heartbeat,
            patience,
            trouble.append,
        )
        if is_shared(opened):
            exits.enter_context(Heart(queue.study, queue.worker, heartbeat))

        def look() -> None:
            found = queue.everyone(but=known.keys() | local.keys())
            known.update(found)
            for _, trial in sorted(found.items()):
                if on_other is not None:
                    on_other(trial)

        try:
            while timeout is None or time.perf_counter() - start < timeout:
                look()
                asked = queue.ask(batch)
                if not asked:
                    if queue.is_finished():
                        break
                    time.sleep(heartbeat / 4)  # others are at the last ones, and may die
                    continue
                local.update({trial.number: trial for trial in asked})
                _train(stage, asked, queue, metric, trainable.parts, trouble, on_trial)
            queue.flush()
        except StorageError as error:
            trouble.append(f"ended early, {len(queue.unsent)} results are not stored: {error}")
        with contextlib.suppress(StorageError):
            look()
        found = sorted({**known, **local}.items())
        return Study(
            [trial for _, trial in found if trial.status != "running"],
            metric,
            direction,
            stage.programs,
            stage.compile_seconds,
            time.perf_counter() - start,
            trouble,
            queue.study,
        )


def _train(
    stage: Stage,
    asked: list[Trial],
    queue: Queue,
    metric: str,
    parts: int,
    trouble: list[str],
    on_trial: Callable[[Trial, str], None] | None,
) -> None:
    def end(trial: Trial) -> None:
        if trial.failure:
            trouble.append(f"trial {trial.number}: {trial.failure}")
        queue.tell(trial, metric)
        if on_trial is not None:
            on_trial(trial, trial.failure)

    _start(stage, asked)
    ended: set[int] = set()
    for part in range(1, parts + 1):
        stage.advance()
        for trial in asked:
            if trial.status == "running":
                _check(trial, metric, part, parts)
            if trial.status == "running" and part < parts:
                queue.report(trial, trial.metrics[metric], part)
        # All report before any is pruned, so that a batch is compared with itself.
        for trial in asked:
            if trial.status == "running":
                if part == parts:
                    trial.status = "complete"
                elif queue.should_prune(trial):
                    trial.status = "pruned"
            if trial.status != "running" and trial.number not in ended:
                ended.add(trial.number)
                end(trial)


def _start(stage: Stage, asked: list[Trial]) -> None:
    """Starts a batch; a trial whose configuration no program can take fails alone."""
    try:
        stage.start(asked)
    except (TypeError, ValueError, OverflowError):
        for trial in asked:
            try:
                stage.start([trial])
            except (TypeError, ValueError, OverflowError) as error:
                trial.fail(f"{type(error).__name__}: {error}".partition("\n")[0])
        stage.start([trial for trial in asked if trial.status == "running"])


def _check(trial: Trial, metric: str, part: int, parts: int) -> None:
    if metric not in trial.metrics:
        trial.fail(f"no metric {metric!r}; there are {', '.join(sorted(trial.metrics))}")
        return
    value = trial.metrics[metric]
    if not isinstance(value, int | float):
        found = f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
        trial.fail(f"{metric}: expected a real number, found {found}")
    elif not math.isfinite(value):
        after = f" after part {part} of {parts}" if parts > 1 else ""
        trial.fail(f"{metric} is {value}{after}")


def _sampler(sampler: Any, seed: int) -> Any:
    with needs_extra("tune"):
        from optuna import samplers
    if not isinstance(sampler, str):
        return sampler
    known = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler, "qmc": samplers.QMCSampler}
    if sampler not in known:
        raise ValueError(f"sampler: expected one of {', '.join(known)} or one of Optuna's, got {sampler!r}")
    if sampler == "tpe":  # trials that still run count as bad ones, so that a batch spreads
        return samplers.TPESampler(seed=seed, constant_liar=True)
    return known[sampler](seed=seed)


def _pruner(pruner: Any) -> Any:
    from optuna import pruners

    if not isinstance(pruner, str):
        return pruner or pruners.NopPruner()
    known: dict[str, Any] = {"halving": halving_pruner, "median": pruners.MedianPruner}
    if pruner not in known:
        raise ValueError(
            f"pruner: expected one of {', '.join(known)}, one of Optuna's or None, got {pruner!r}"
        )
    return known[pruner]()
