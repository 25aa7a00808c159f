"""Options as a TOML file, written beside the results and read back."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from jaxopt_core.cli.errors import UsageError, choose
from jaxopt_core.cli.options import TASKS, TrainOptions

__all__ = ["check_value", "read_config", "write_config"]

# They say what to do with a run, and are no part of what it is.
_TRANSIENT = {"config", "resume", "resume_step"}


def write_config(path: Path, task: str, options: TrainOptions) -> None:
    """Writes every option; what is not given (None) has no line."""
    import jax

    import jaxopt_core

    del jaxopt_core
    lines = [
        f"# jaxopt-core train {task} --config {path.name}",
        f"# made with jax {jax.__version__} on {jax.default_backend()}",
        f"task = {_toml(task)}",
    ]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is not None and field.name not in _TRANSIENT:
            lines.append(f"{field.name} = {_toml(value)}")
    path.write_text("\n".join(lines) + "\n")


def read_config(path: Path, task: str | None = None) -> tuple[str, TrainOptions]:
    """Reads a configuration; what it leaves out has the task's default.

    Args:
      path: of the file.
      task: for which it must be; default: the one that it names.

    Raises:
      UsageError: it cannot be read, is no TOML, is for another task, or has an unknown name or a value of
        another type.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config: {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config: {path}: expected TOML ({error})") from error
    named = values.pop("task", task)
    if named is None:
        raise UsageError(f'--config: {path}: expected a line such as task = "digits", found none')
    name = choose(f"--config: {path}: task", str(named), TASKS)
    if task is not None and name != task:
        raise UsageError(f"--config: {path}: is for {name}, not for {task}")
    kind = TASKS[name]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in _TRANSIENT}
    read = {}
    for key, value in values.items():
        option = choose(f"--config: {path}", key.replace("-", "_"), fields)
        read[option] = check_value(f"--config: {path}: {key}", value, str(fields[option].type))
    return name, kind(**read)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def check_value(where: str, value: Any, kind: str) -> Any:
    """A value of TOML as the option whose annotation is ``kind`` holds it.

    Raises:
      UsageError: it is of another type; begins with ``where``.
    """
    kind = kind.removesuffix(" | None")
    if kind == "float" and type(value) in (int, float):
        return float(value)
    if kind == "Path" and isinstance(value, str):
        return Path(value)
    if (
        kind.startswith("tuple")
        and isinstance(value, list | tuple)
        and all(type(each) is int for each in value)
    ):
        return tuple(value)
    if kind in ("int", "str", "bool") and type(value).__name__ == kind:
        return value
    expected = {"tuple[int, ...]": "a list of integers", "Path": "a path"}.get(
        kind, f"a value of type {kind}"
    )
    raise UsageError(f"{where}: expected {expected}, found {value!r}")
