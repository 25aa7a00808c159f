"""``jaxopt-core evaluate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax

from jaxopt_core.cli.config import read_config
from jaxopt_core.cli.errors import UsageError
from jaxopt_core.cli.train import checkpoints_of, evaluated_params, prepare
from jaxopt_core.training import CorruptCheckpointError, evaluate

__all__ = ["evaluate_run"]


def evaluate_run(folder: Path, which: str) -> dict[str, float]:
    """Prints what a checkpoint of a run gives on the test data, and why.

    Writes ``evaluation.json`` and the task's pictures into the run's folder.

    Raises:
      UsageError: the folder holds no run, or its checkpoint cannot be used.
    """
    if not (folder / "config.toml").is_file():
        raise UsageError(f"expected a run's folder with config.toml, found none in {folder}")
    task, options = read_config(folder / "config.toml")
    recipe, state, _, eval_fn = prepare(task, options)
    with checkpoints_of(folder, recipe) as checkpoints:
        try:
            step = checkpoints.best_step() if which == "best" else None
            state = checkpoints.restore(state, step).state
        except (CorruptCheckpointError, FileNotFoundError, ValueError) as error:
            raise UsageError(str(error)) from error
    found = evaluate(jax.jit(eval_fn), state, recipe.test)
    scores, pictures = recipe.examine(evaluated_params(options, state), state.rest, folder)
    found |= scores
    step = int(state.step)
    (folder / "evaluation.json").write_text(json.dumps({"step": step, **found}, indent=2) + "\n")
    sys.stdout.write(f"{recipe.title}\n{which} checkpoint, step {step}\n")
    for name, value in found.items():
        sys.stdout.write(f"test {name} {value:.4f}\n")
    sys.stdout.write(f"wrote {', '.join(['evaluation.json', *pictures])} into {folder}\n")
    return found
