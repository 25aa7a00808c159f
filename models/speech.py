"""Speech recognition: convolutions over a spectrogram, recurrent layers, CTC."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.batch_norm import BatchNorm2d
from jaxopt_core.models.layers import Conv2d, Dropout, Linear
from jaxopt_core.models.recurrent import GRU, LSTM

__all__ = ["SpeechModel"]

_KERNELS = ((41, 11), (21, 11))
_STRIDES = ((2, 2), (2, 1))


class SpeechModel(nnx.Module):
    """Two convolutions, bidirectional recurrent layers and a linear layer, for ``ctc_loss``.

    ::

        conv        Conv2d(1, channels, (41, 11), stride (2, 2)), BatchNorm2d, Hardtanh(0, 20),
                    Conv2d(channels, channels, (21, 11), stride (2, 1)), BatchNorm2d, Hardtanh(0, 20)
        rnn         bidirectional GRU or LSTM of channels * ceil(features / 4) inputs
        fc          Linear, then log_softmax

    Source: Amodei et al., "Deep Speech 2", 2016, section 3, with its two-dimensional convolutions over
    frequency and time. What lies beyond an utterance's length is zeroed before and after every
    convolution, normalisation and activation, so that a padded utterance has the features of an unpadded one;
    in training the statistics of ``BatchNorm2d`` see the padding's zeros, as in PyTorch.

    Args:
        num_classes: classes, the blank among them.
        features: frequencies of the spectrogram. Default 161, of windows of 20 ms at 16 kHz.
        channels: of the convolutions. Default 32.
        hidden_size: features of each direction of the recurrent layers. Default 512.
        num_layers: recurrent layers. Default 3.
        rnn: ``"gru"`` (default) or ``"lstm"``.
        dropout: between the recurrent layers and before ``fc``. Default 0.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Raises:
        ValueError: another kind of recurrent layer; a spectrogram with another number of features.

    Example:
        >>> model = SpeechModel(5, features=16, channels=2, hidden_size=8, num_layers=1, rngs=nnx.Rngs(0))
        >>> log_probs, lengths = model(jnp.ones((2, 20, 16)), jnp.array([20, 15]))
        >>> log_probs.shape, lengths.tolist()
        ((10, 2, 5), [10, 8])
    """

    def __init__(
        self,
        num_classes: int,
        features: int = 161,
        channels: int = 32,
        hidden_size: int = 512,
        num_layers: int = 3,
        rnn: Literal["gru", "lstm"] = "gru",
        dropout: float = 0.0,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if rnn not in ("gru", "lstm"):
            raise ValueError(f"rnn: expected 'gru' or 'lstm', found {rnn!r}")
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        self.features = features
        layers: list[Any] = []
        for kernel, stride, inputs in zip(_KERNELS, _STRIDES, (1, channels), strict=True):
            padding = (kernel[0] // 2, kernel[1] // 2)
            layers += [Conv2d(inputs, channels, kernel, stride, padding, **kinds)]
            layers += [BatchNorm2d(channels, **kinds), _hardtanh]
            features = -(-features // stride[0])
        self.conv = nnx.List(layers)
        self.rnn = {"gru": GRU, "lstm": LSTM}[rnn](
            channels * features,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=True,
            **kinds,
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(2 * hidden_size, num_classes, **kinds)

    def __call__(self, spectrogram: jax.Array, lengths: Any = None) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of the classes in every second frame.

        Args:
            spectrogram: ``(N, T, features)``.
            lengths: ``(N,)`` frames of each utterance. Default: all.

        Returns:
            ``(ceil(T / 2), N, num_classes)`` log-probabilities, as ``ctc_loss`` takes them, and ``(N,)``
            how many of their frames count: ``ceil(lengths / 2)``.
        """
        if spectrogram.ndim != 3 or spectrogram.shape[-1] != self.features:
            raise ValueError(f"expected a spectrogram (N, T, {self.features}), got {spectrogram.shape}")
        batch, frames, _ = spectrogram.shape
        lengths = jnp.full(batch, frames, jnp.int32) if lengths is None else jnp.asarray(lengths)
        x = spectrogram.swapaxes(1, 2)[..., None]  # (N, F, T, 1), PyTorch's (N, 1, F, T)
        x = _zeroed(x, lengths)
        for i, layer in enumerate(self.conv):
            with jax.named_scope(f"conv.{i}"):
                before, x = x.shape[2], layer(x)
            if x.shape[2] != before:
                lengths = (lengths + 1) // 2
            x = _zeroed(x, lengths)
        # Channels before frequencies, as PyTorch flattens them, so that its recurrent weights fit.
        x = x.transpose(0, 2, 3, 1).reshape(batch, x.shape[2], -1)
        with jax.named_scope("rnn"):
            x, _ = self.rnn(x, None, lengths)
        with jax.named_scope("fc"):
            log_probs = jax.nn.log_softmax(self.fc(self.dropout(x)), axis=-1)
        return log_probs.swapaxes(0, 1), lengths


def _zeroed(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """``(N, F, T, C)`` with zeros beyond each length."""
    inside = jnp.arange(x.shape[2], dtype=lengths.dtype)[None] < lengths[:, None]
    return jnp.where(inside[:, None, :, None], x, 0)


def _hardtanh(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 20)
