"""Asking a storage for trials and telling it results, by one of perhaps several workers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from jaxopt_core.tuning.space import Space
from jaxopt_core.tuning.storage import Patience, StorageError
from jaxopt_core.tuning.trials import Direction, Trial
from jaxopt_core.tuning.workers import Watch, worker_name

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["Queue"]


class Queue:
    """The trials of a study, of which there are so many in all.

    Attributes:
      study: Optuna's.
      worker: this worker's name.
      unsent: trials whose results the storage has not taken yet.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Space,
        direction: Direction,
        sampler: Any,
        pruner: Any,
        fingerprint: dict[str, Any],
        trials: int,
        heartbeat: float,
        patience: float,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.space, self.total, self.worker = space, trials, worker_name()
        self.unsent: list[tuple[Trial, str]] = []
        self._on_trouble = on_trouble
        self._wait = Patience(patience, on_trouble)
        self._asked: dict[int, optuna.Trial] = {}
        about = {"fingerprint": json.loads(json.dumps(fingerprint)), "space": _described(space)}
        self.study = self._wait("study", lambda: _open(storage, name, about, direction, sampler, pruner))
        self._watch = Watch(self.study, self.worker, heartbeat, self._wait)

    def ask(self, count: int) -> list[Trial]:
        """Up to ``count`` trials for this worker; none when as many as wanted are done or under way."""
        self.flush()
        for line in self._wait("requeue", self._watch.requeue):
            self._on_trouble(line)
        room = self.total - sum(map(_is_counted, self._stored()))
        asked = []
        for _ in range(min(count, room)):
            # Each step waits alone: asking anew for a parameter would leave a trial that nobody trains.
            stored = self._wait("ask", self.study.ask)
            self._asked[stored.number] = stored
            self._wait("ask", functools.partial(stored.set_user_attr, "worker", self.worker))
            config = self._wait("ask", functools.partial(self.space.suggest, stored))
            asked.append(Trial(stored.number, config))
        return self._without_surplus(asked)

    def is_finished(self) -> bool:
        """Whether as many as wanted are done, and nobody trains any more.

        Trials may wait beyond those wanted: they were lost by workers who wanted more.
        """
        stored = self._stored()
        running = any(trial.state.name == "RUNNING" for trial in stored)
        return not running and sum(map(_is_counted, stored)) >= self.total

    def report(self, trial: Trial, value: float, part: int) -> None:
        """Stores an intermediate value."""
        from optuna.exceptions import UpdateFinishedTrialError

        stored = self._asked[trial.number]
        try:
            self._wait(f"trial {trial.number}", lambda: stored.report(value, part))
        except (StorageError, UpdateFinishedTrialError) as error:  # only pruning wants it
            self._on_trouble(str(error))

    def should_prune(self, trial: Trial) -> bool:
        """Whether Optuna gives the trial up."""
        try:
            return self._wait(f"trial {trial.number}", self._asked[trial.number].should_prune)
        except StorageError:
            return False

    def tell(self, trial: Trial, metric: str) -> None:
        """Stores a result; if the storage is away, it is kept for :meth:`flush`."""
        self.unsent.append((trial, metric))
        try:
            self.flush(seconds=0.0)
        except StorageError:
            self._on_trouble(f"trial {trial.number}: its result is kept until the storage answers")

    def flush(self, seconds: float | None = None) -> None:
        """Stores what is still to be stored, waiting for the storage up to a limit.

        Raises:
          StorageError: it is still away.
        """
        while self.unsent:
            trial, metric = self.unsent[0]
            self._wait(f"trial {trial.number}", functools.partial(self._tell, trial, metric), seconds)
            self.unsent.pop(0)

    def everyone(self, but: Container[int] = ()) -> dict[int, Trial]:
        """The stored trials of all workers, finished ones only; killed and surplus ones are left out.

        Args:
          but: numbers of trials that are known already.
        """
        found = {}
        for stored in self._stored():
            if stored.number not in but and stored.state.is_finished() and _is_counted(stored):
                status = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(stored.state.name, "failed")
                attributes = stored.user_attrs
                trial = Trial(stored.number, self.space.restore(stored.params), attributes.get("metrics", {}))
                trial.status, trial.failure = status, attributes.get("failure", "")  # type: ignore[assignment]
                found[stored.number] = trial
        return found

    def _stored(self) -> list[FrozenTrial]:
        return self._wait("trials", lambda: self.study.get_trials(deepcopy=False))

    def _without_surplus(self, asked: list[Trial]) -> list[Trial]:
        """Gives back what is too much because another worker asked at the same moment."""
        from optuna.trial import TrialState

        counted = [trial.number for trial in self._stored() if _is_counted(trial)]
        surplus = {number for number in counted[self.total :] if number in self._asked}
        kept = []
        for trial in asked:
            if trial.number in surplus:
                stored = self._asked.pop(trial.number)
                self._wait("ask", functools.partial(self.study.tell, stored, state=TrialState.FAIL))
            else:
                kept.append(trial)
        return kept

    def _tell(self, trial: Trial, metric: str) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        stored = self._asked[trial.number]
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        value = trial.metrics[metric] if trial.status == "complete" else None
        try:
            stored.set_user_attr(
                "metrics", {n: v for n, v in trial.metrics.items() if isinstance(v, float | int)}
            )
            if trial.failure:
                stored.set_user_attr("failure", trial.failure)
            self.study.tell(stored, value, state=states[trial.status])
        except (UpdateFinishedTrialError, ValueError) as error:
            # After a long standstill this worker was taken for dead, and its trial given to another.
            self._on_trouble(f"trial {trial.number}: the storage has another result already ({error})")


def _is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those wanted: not waiting for a worker, and not lost with one."""
    if trial.state.name == "FAIL":
        return "failure" in trial.user_attrs
    return trial.state.name != "WAITING"


def _open(
    storage: Any, name: str, about: dict[str, dict[str, Any]], direction: Direction, sampler: Any, pruner: Any
) -> Any:
    import optuna

    options = {"study_name": name, "storage": storage, "sampler": sampler, "pruner": pruner}
    try:
        study = optuna.create_study(direction=direction, **options)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(**options)
        # With the seed of whoever made the study, this worker would ask the same.
        sampler.reseed_rng()
    stored = study.user_attrs
    for what, asked in about.items():
        _require_same(name, what, stored.get(what, asked), asked)
    if study.direction.name.lower() != direction:
        raise ValueError(f"the study {name!r} is there to {study.direction.name.lower()}, not to {direction}")
    for what, asked in about.items():
        if what not in stored:  # just made, perhaps by a worker that came no further
            study.set_user_attr(what, asked)
    return study


def _require_same(name: str, what: str, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    different = [each for each in {**stored, **asked} if _shown(each, stored) != _shown(each, asked)]
    if different:
        each = different[0]
        raise ValueError(
            f"the study {name!r} in this storage has another {what}, in {', '.join(different)}: {each} is "
            f"{_shown(each, stored)} there and {_shown(each, asked)} here. Give another name or storage, or "
            f"the {what} that it was begun with"
        )


def _shown(name: str, values: dict[str, Any]) -> str:
    return str(values[name]) if name in values else "not in it"


def _described(space: Space) -> dict[str, str]:
    return {name: repr(value) for name, value in {**space.constants, **space.dimensions}.items()}
