"""``jaxopt-core train``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from jaxopt_core import averaging
from jaxopt_core.cli.config import write_config
from jaxopt_core.cli.errors import UsageError
from jaxopt_core.cli.options import TrainOptions
from jaxopt_core.data import DataFileError
from jaxopt_core.extras import needs_extra
from jaxopt_core.recipes import Recipe, build_optimizer, build_recipe
from jaxopt_core.recipes.optimizer import autocast_dtype
from jaxopt_core.training import (
    Callback,
    Checkpoints,
    CorruptCheckpointError,
    CsvLogger,
    EarlyStopping,
    ProgressBar,
    Run,
    TensorBoardLogger,
    TrainState,
    fit,
    init_state,
    make_step,
    plot_curves,
    read_curves,
    save_parameters,
)

__all__ = ["checkpoints_of", "evaluated_params", "prepare", "train"]

_STARTED = time.perf_counter()


def train(task: str, options: TrainOptions) -> int:
    """Trains as the options say, prints what happens, and writes the results.

    Returns:
      Exit status: 0, or 143 after SIGTERM.

    Raises:
      UsageError: an option, a data file or the output folder cannot be used.
      NonFiniteError: training diverged.
    """
    with needs_extra("train"):
        from rich.console import Console

    if options.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(options.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    recipe, state, step_fn, eval_fn = prepare(task, options)
    resume: bool | int = options.resume if options.resume_step is None else options.resume_step
    folder, dry = options.out, bool(options.fast_dev_run)
    if not dry:
        _make_folder(folder, keep=bool(resume) or options.resume_step is not None)
        write_config(folder / "config.toml", task, options)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(recipe.title)

    headline = f"val_{recipe.headline}"
    first = FirstStep()
    callbacks: list[Callback] = [
        first,
        ProgressBar(recipe.per_step, recipe.unit, monitor=headline, console=console),
    ]
    if not dry:
        callbacks.append(CsvLogger(folder))
    if options.tensorboard and not dry:
        callbacks.append(TensorBoardLogger(folder / "tensorboard"))
    if options.early_stop is not None:
        mode: Any = recipe.best
        callbacks.append(EarlyStopping(headline, patience=options.early_stop, mode=mode, restore_best=True))
    try:
        run = fit(
            state,
            recipe.train,
            step_fn,
            epochs=options.epochs,
            max_time=options.max_time,
            eval_data=recipe.test,
            eval_fn=eval_fn,
            eval_every=options.eval_every,
            callbacks=callbacks,
            checkpoints=None if dry else checkpoints_of(folder, recipe),
            resume=resume,
            steps_per_dispatch=options.steps_per_dispatch,
            fast_dev_run=options.fast_dev_run,
            overfit_batches=options.overfit_batches,
            # A loss scale overflows now and then on purpose, and leaves such a step out.
            check_finite=("loss",) if options.precision == "float16" else ("loss", "grad_norm"),
        )
    except CorruptCheckpointError as error:
        hint = f"; go back with --resume-step {error.good_step}" if error.good_step is not None else ""
        raise UsageError(f"--resume: {error}{hint}") from None
    except FileNotFoundError as error:
        raise UsageError(f"--resume-step: {error}") from None
    if run.rows:
        console.print(f"test {recipe.headline} {run.rows[-1][headline]:.4f}", style="bold")
    if first.seconds:
        console.print(f"first update after {first.seconds:.1f} s, {run.step} updates in {run.seconds:.1f} s")
    if not dry:
        _write(folder, run, recipe, console)
    if run.stop_reason == "SIGTERM":
        sys.stderr.write(f"jaxopt-core: stopped at step {run.step} by SIGTERM; --resume goes on from there\n")
        return 143
    if run.stop_reason not in ("epochs", "max_steps"):
        console.print(f"ended: {run.stop_reason}")
    return 0


class FirstStep(Callback):
    """Notes how long the first update took to come, from the start of the program."""

    seconds = 0.0

    def on_steps(self, run: Run, metrics: dict[str, Any]) -> None:
        """Notes it once."""
        del run, metrics
        self.seconds = self.seconds or time.perf_counter() - _STARTED


def prepare(task: str, options: TrainOptions) -> tuple[Recipe, TrainState, Any, Any]:
    """Recipe, initial state, step and evaluation that the options describe.

    Raises:
      UsageError: a name, a file or a number cannot be used.
    """
    try:
        recipe = build_recipe(task, options)
        batches = len(recipe.train) * options.epochs  # type: ignore[arg-type]
        tx, loss_scale = build_optimizer(options, batches)
    except DataFileError as error:
        raise UsageError(f"--data: {error}") from error
    except ValueError as error:
        raise UsageError(str(error).partition("\n")[0]) from error
    state = init_state(recipe.params, recipe.rest, tx, seed=options.seed)
    step_fn = make_step(
        recipe.loss_fn, tx, autocast_dtype=autocast_dtype(options.precision), loss_scale=loss_scale
    )

    def eval_fn(state: TrainState, batch: Any) -> Any:
        return recipe.measure(evaluated_params(options, state), state.rest, batch)

    return recipe, state, step_fn, eval_fn


def evaluated_params(options: TrainOptions, state: TrainState) -> Any:
    """The parameters that are judged: with ``--ema`` the averaged ones."""
    return state.params if options.ema is None else averaging.averaged_params(state.opt_state)


def checkpoints_of(folder: Path, recipe: Recipe) -> Checkpoints:
    """The checkpoints of a run in a folder."""
    mode: Any = recipe.best
    return Checkpoints(folder / "checkpoints", monitor=f"val_{recipe.headline}", mode=mode)


def _make_folder(folder: Path, *, keep: bool) -> None:
    """Fails before training, not after it, where results cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--out: expected a folder that can be written to, found {folder} ({error.strerror})"
        ) from error
    if not keep:
        for name in ("checkpoints", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)


def _write(folder: Path, run: Run, recipe: Recipe, console: Any) -> None:
    try:
        save_parameters(folder / "params.npz", run.state.params)
        written = ["config.toml", "metrics.csv", "steps.csv", "params.npz", "checkpoints"]
        curves = read_curves(folder)
        if curves.rows.get("step"):
            plot_curves(folder / "curves.png", {folder.name: curves}, recipe.title)
            written.append("curves.png")
    except OSError as error:
        raise UsageError(f"--out: could not write to {folder} ({error.strerror})") from error
    console.print(f"wrote {', '.join(sorted(written))} into {folder}")
