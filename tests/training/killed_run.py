"""A run as a process, to be killed: ``python -m tests.training.killed_run FOLDER``.

It goes on where its checkpoints end, and writes the final parameters to ``FOLDER/done.npz``.
"""

import sys
import time
from pathlib import Path

import jaxopt_core as jo
from jaxopt_core.training import Callback, Checkpoints, CsvLogger, fit, save_parameters
from tests.training.problems import Shuffled, eval_fn, start


class Slow(Callback):
    """Gives whoever kills it time to do so."""

    def on_start(self, run):
        sys.stdout.write(f"at {run.step}\n")
        sys.stdout.flush()

    def on_steps(self, _, __):
        time.sleep(0.01)


def main(folder, pause=True):
    state, step = start(jo.adamw(lr=1e-2))
    run = fit(
        state,
        Shuffled(),
        step,
        epochs=30,
        eval_data=Shuffled(seed=7),
        eval_fn=eval_fn,
        steps_per_dispatch=3,
        checkpoints=Checkpoints(folder / "checkpoints", every_steps=5),
        resume=True,
        callbacks=[CsvLogger(folder), *([Slow()] if pause else [])],
    )
    if run.stop_reason == "epochs":
        save_parameters(folder / "done.npz", run.state.params)
    else:
        sys.stdout.write(f"{run.stop_reason} {run.step}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
