"""Optional dependencies: imported where they are used, and named when they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package that only one of the extras installs is not there."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Wraps imports of optional packages, and says what to install when one is missing.

    Args:
        extra: the extra of jaxopt-core that installs what is imported inside.

    Raises:
        MissingExtraError: names the missing module and the extra. A missing module of
            jaxopt_core itself is a defect, and passes unchanged.

    Example:
        >>> with needs_extra("train"):
        ...     import matplotlib
        >>> with needs_extra("train"):
        ...     import module_nobody_has
        Traceback (most recent call last):
        ...
        jaxopt_core.extras.MissingExtraError: module_nobody_has is not installed; it comes with ...
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "jaxopt_core":
            raise
        raise MissingExtraError(
            f"{error.name} is not installed; it comes with pip install 'jaxopt-core[{extra}]'",
            name=error.name,
        ) from error
