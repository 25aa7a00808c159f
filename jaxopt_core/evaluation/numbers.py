"""Scores of predicted numbers: errors of ratings, and how well a language model predicts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxopt_core.evaluation.masks import kept

__all__ = ["Perplexity", "SquaredError"]


class SquaredError:
    """Root mean square error and mean absolute error, summed in float64.

    Example:
        >>> error = SquaredError()
        >>> error.add([3.0, 4.0], [3.0, 2.0])
        >>> error.add([1.0, 9.0], [2.0, 0.0], mask=[True, False])
        >>> print(f"{error.rmse:.4f} {error.mae:.4f}")
        1.2910 1.0000
    """

    def __init__(self) -> None:
        self.squares, self.absolutes, self.count = 0.0, 0.0, 0

    def add(self, targets: Any, predicted: Any, mask: Any = None) -> None:
        """Adds a batch of numbers of any shape, the same for both.

        Raises:
            ValueError: shapes that do not fit.
        """
        targets, predicted = kept(mask, targets, predicted)
        if targets.shape != predicted.shape:
            raise ValueError(f"expected the targets' shape {targets.shape}, got {predicted.shape}")
        differences = predicted.astype(np.float64) - targets.astype(np.float64)
        self.squares += float(np.sum(differences**2))
        self.absolutes += float(np.sum(np.abs(differences)))
        self.count += differences.size

    def merge(self, other: SquaredError) -> None:
        """Adds what another one summed."""
        self.squares += other.squares
        self.absolutes += other.absolutes
        self.count += other.count

    @property
    def rmse(self) -> float:
        """Root of the mean of the squares; NaN of nothing."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    @property
    def mae(self) -> float:
        """Mean of the absolute differences; NaN of nothing."""
        return self.absolutes / self.count if self.count else math.nan


class Perplexity:
    """Exponential of the mean loss per token, and the same in bits.

    Example:
        >>> score = Perplexity()
        >>> score.add(-np.log([0.5, 0.25, 0.125]))
        >>> print(f"{score.perplexity:.4f} {score.bits_per_token:.4f} {score.bits_per_byte(12):.4f}")
        4.0000 2.0000 0.5000
    """

    def __init__(self) -> None:
        self.nats, self.tokens = 0.0, 0

    def add(self, losses: Any, mask: Any = None) -> None:
        """Adds the negative log-probability of each token in nats, of any shape.

        That is what ``cross_entropy(logits, targets, reduction="none")`` gives; not the mean of a batch.
        ``mask`` is of the shape of the losses or of their first axes.
        """
        (losses,) = kept(mask, losses)
        self.nats += float(np.sum(losses, dtype=np.float64))
        self.tokens += losses.size

    def merge(self, other: Perplexity) -> None:
        """Adds what another one summed."""
        self.nats += other.nats
        self.tokens += other.tokens

    @property
    def perplexity(self) -> float:
        """As good as a guess among so many equally likely tokens; NaN of nothing."""
        return math.exp(self.nats / self.tokens) if self.tokens else math.nan

    @property
    def bits_per_token(self) -> float:
        """Mean loss in bits, which for a model of characters is bits per character."""
        return self.nats / self.tokens / math.log(2) if self.tokens else math.nan

    def bits_per_byte(self, size: int) -> float:
        """Bits for each byte of the text, which compares models with different tokens.

        Args:
            size: bytes of the text that the tokens stand for.
        """
        return self.nats / math.log(2) / size
