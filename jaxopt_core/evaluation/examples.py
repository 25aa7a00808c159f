"""Pictures of examples: those that went wrong, and what predictions hang on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.evaluation._figure import StrPath, bare, picture
from jaxopt_core.figures import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_attributions", "plot_mistakes"]


def plot_mistakes(
    path: StrPath,
    images: Any,
    targets: Any,
    probabilities: Any,
    names: Sequence[str] | None = None,
    *,
    most: int = 12,
) -> int:
    """Draws the wrong examples of which the model was surest, with its three likeliest classes.

    Args:
        path: the PNG to write.
        images: ``(N, height, width)`` or ``(N, height, width, 1 or 3)``, of any range.
        targets: int of shape ``(N,)``.
        probabilities: of shape ``(N, classes)``.
        names: of the classes. Default: their numbers.
        most: how many are drawn. Default 12.

    Returns:
        How many examples are wrong.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: shapes that do not fit.
    """
    images, targets, probabilities = map(np.asarray, (images, targets, probabilities))
    if probabilities.ndim != 2 or not len(images) == len(targets) == len(probabilities):
        raise ValueError(
            f"expected images, targets and probabilities of as many examples, got shapes "
            f"{images.shape}, {targets.shape} and {probabilities.shape}"
        )
    names = [str(i) for i in range(probabilities.shape[1])] if names is None else list(names)
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    shown = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:most]
    order = "; the surest first" if len(shown) > 1 else ""
    columns = min(6, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    with picture(path, (2.0 * columns + 0.5, 2.6 * lines + 0.5)) as figure:
        figure.suptitle(f"{len(wrong)} of {len(targets)} wrong{order}", x=0.02, ha="left", fontsize=12)
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid:
            bare(axes)
        for axes, index in zip(grid, shown, strict=False):
            _image(axes, images[index])
            axes.spines[:].set_visible(True)
            axes.set_xlabel("\n\n", fontsize=9)  # room for the three lines
            axes.set_title(
                f"{names[targets[index]]}, not {names[predicted[index]]}", fontsize=10, loc="center"
            )
            likeliest = np.argsort(-probabilities[index], kind="stable")[:3]
            for line, number in enumerate(likeliest):
                text = f"{names[number]}  {probabilities[index, number]:.3f}"
                style = {"color": COLORS[2], "weight": "bold"} if number == targets[index] else {}
                place = {"xy": (0.5, 0), "xycoords": "axes fraction", "xytext": (0, -4 - 11 * line)}
                axes.annotate(
                    text, **place, textcoords="offset points", ha="center", va="top", fontsize=8, **style
                )
    return len(wrong)


def plot_attributions(
    path: StrPath, images: Any, maps: Mapping[str, Any], titles: Sequence[str] | None = None
) -> None:
    """Draws images in the first row, and below it a row for each kind of attribution.

    Args:
        path: the PNG to write.
        images: ``(N, height, width)`` or ``(N, height, width, 1 or 3)``; all are drawn.
        maps: name -> attributions of the images' shape, of which the channels are summed. What has a sign is
            drawn from blue (against the class) to red (for it).
        titles: of the columns. Default None.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: attributions of another shape than the images.
    """
    images = np.asarray(images)
    arrays = {name: np.asarray(array) for name, array in maps.items()}
    for name, array in arrays.items():
        if array.shape != images.shape:
            raise ValueError(f"{name}: expected the images' shape {images.shape}, got {array.shape}")
    count, lines = len(images), 1 + len(arrays)
    with picture(path, (1.5 * count + 1.2, 1.6 * lines + 0.4)) as figure:
        grid = figure.subplots(lines, count, squeeze=False)
        for axes in grid.ravel():
            bare(axes)
        for i, image in enumerate(images):
            _image(grid[0, i], image)
            if titles is not None:
                grid[0, i].set_title(titles[i], fontsize=9)
        for row, (name, array) in zip(grid[1:], arrays.items(), strict=True):
            summed = array.sum(axis=-1) if array.ndim == 4 else array
            signed = bool((summed < 0).any())
            for axes, values in zip(row, summed, strict=True):
                top = np.abs(values).max() or 1.0
                cmap, low = ("RdBu_r", -top) if signed else ("magma", 0)
                axes.imshow(values, cmap=cmap, vmin=low, vmax=top)
            row[0].set_ylabel(name, fontsize=9)


def _image(axes: Axes, image: NDArray[Any]) -> None:
    image = np.asarray(image, np.float64)
    low, high = image.min(), image.max()
    scaled = (image - low) / (high - low) if high > low else np.zeros_like(image)
    axes.imshow(scaled[..., 0] if scaled.ndim == 3 and scaled.shape[-1] == 1 else scaled, cmap="gray_r")
