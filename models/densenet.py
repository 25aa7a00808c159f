"""Densely connected networks with torchvision's structure, names and starting values."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.initializers import kaiming_normal
from jaxopt_core.models.layers import BatchNorm2d, Conv2d, Dropout, Linear, avg_pool2d, max_pool2d

__all__ = ["DenseNet", "densenet121", "densenet169"]

_fan_in = kaiming_normal()


class DenseNet(nnx.Module):
    """A densely connected network for images, torchvision's ``DenseNet``.

    Every layer sees the outputs of all layers before it in its block. Submodules have torchvision's names
    (``features/denseblock1/denselayer1/conv1/kernel`` is its
    ``features.denseblock1.denselayer1.conv1.weight``). Convolutions start Kaiming normal by fan-in,
    normalisations at one and zero, the classifier's bias at zero.

    Source: Huang et al., "Densely Connected Convolutional Networks", 2017 (DenseNet-BC).

    Args:
        growth_rate: channels that each layer adds. Default 32.
        block_config: layers in each block. Default (6, 12, 24, 16).
        num_init_features: channels of the first convolution. Default 64.
        bn_size: a layer's 1x1 convolution has ``bn_size * growth_rate`` channels. Default 4.
        drop_rate: dropout of what each layer adds. Default 0.
        num_classes: logits. Default 1000.
        in_channels: channels of the images. Default 3.
        remat: keep only the blocks' feature maps for the gradient and compute each layer's inside
            again, as torchvision's ``memory_efficient``: what is kept grows with the number of layers and
            not with its square. Default False.
        param_dtype: of parameters and statistics. Default float32.
        rngs: where the starting values come from, and dropout's random numbers.

    Raises:
        ValueError: ``block_config`` has no blocks, or an empty one.

    Example:
        >>> def logits(images):
        ...     return DenseNet(12, (4, 4, 4), 24, num_classes=10, rngs=nnx.Rngs(0))(images)
        >>> jax.eval_shape(logits, jnp.zeros((2, 32, 32, 3))).shape
        (2, 10)
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        remat: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if not block_config or min(block_config) < 1:
            raise ValueError(f"block_config: expected positive integers, found {tuple(block_config)}")
        make: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.features = _Features(
            growth_rate, block_config, num_init_features, bn_size, drop_rate, in_channels, remat, make
        )
        self.classifier = Linear(
            self.features.num_features, num_classes, bias_init=nnx.initializers.zeros, **make
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``(N, H, W, in_channels)`` to logits ``(N, num_classes)``."""
        return self.classifier(jax.nn.relu(self.features(x)).mean((1, 2)))


def densenet121(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> DenseNet:
    """DenseNet-121: 8.0M parameters; the options are those of :class:`DenseNet`.

    Example:
        >>> model = nnx.eval_shape(lambda: densenet121(rngs=nnx.Rngs(0)))
        >>> model.features.denseblock4.denselayer16.conv2.kernel.shape
        (3, 3, 128, 32)
    """
    return DenseNet(32, (6, 12, 24, 16), 64, num_classes=num_classes, rngs=rngs, **options)


def densenet169(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> DenseNet:
    """DenseNet-169: 14.1M parameters; the options are those of :class:`DenseNet`."""
    return DenseNet(32, (6, 12, 32, 32), 64, num_classes=num_classes, rngs=rngs, **options)


class _Features(nnx.Module):
    def __init__(
        self,
        growth_rate: int,
        block_config: Sequence[int],
        channels: int,
        bn_size: int,
        drop_rate: float,
        in_channels: int,
        remat: bool,
        make: dict[str, Any],
    ) -> None:
        self.blocks = len(block_config)
        self.conv0 = Conv2d(in_channels, channels, 7, 2, 3, bias=False, kernel_init=_fan_in, **make)
        self.norm0 = BatchNorm2d(channels, **make)
        for i, layers in enumerate(block_config, start=1):
            block = _DenseBlock(layers, channels, growth_rate, bn_size, drop_rate, remat, make)
            setattr(self, f"denseblock{i}", block)
            channels += layers * growth_rate
            if i < len(block_config):
                setattr(self, f"transition{i}", _Transition(channels, channels // 2, make))
                channels //= 2
        # Called so whatever the number of blocks, as torchvision does.
        self.norm5 = BatchNorm2d(channels, **make)
        self.num_features = channels

    def __call__(self, x: jax.Array) -> jax.Array:
        x = max_pool2d(jax.nn.relu(self.norm0(self.conv0(x))), 3, stride=2, padding=1)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"denseblock{i}")(x)
            if i < self.blocks:
                x = getattr(self, f"transition{i}")(x)
        return self.norm5(x)


class _DenseBlock(nnx.Module):
    def __init__(
        self,
        layers: int,
        channels: int,
        growth_rate: int,
        bn_size: int,
        drop_rate: float,
        remat: bool,
        make: dict[str, Any],
    ) -> None:
        self.layers = layers
        self.remat = remat
        for i in range(layers):
            layer = _DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate, make)
            setattr(self, f"denselayer{i + 1}", layer)

    def __call__(self, x: jax.Array) -> jax.Array:
        features = [x]
        for i in range(1, self.layers + 1):
            layer = getattr(self, f"denselayer{i}")
            features.append(_rematerialised(layer, features) if self.remat else layer(features))
        return jnp.concatenate(features, axis=-1)


class _DenseLayer(nnx.Module):
    def __init__(
        self, channels: int, growth_rate: int, bn_size: int, drop_rate: float, make: dict[str, Any]
    ) -> None:
        inner = bn_size * growth_rate
        self.norm1 = BatchNorm2d(channels, **make)
        self.conv1 = Conv2d(channels, inner, 1, bias=False, kernel_init=_fan_in, **make)
        self.norm2 = BatchNorm2d(inner, **make)
        self.conv2 = Conv2d(inner, growth_rate, 3, padding=1, bias=False, kernel_init=_fan_in, **make)
        self.dropout = Dropout(drop_rate, rngs=make["rngs"]) if drop_rate > 0 else nnx.data(None)

    def __call__(self, features: list[jax.Array]) -> jax.Array:
        x = jnp.concatenate(features, axis=-1)
        x = self.conv1(jax.nn.relu(self.norm1(x)))
        x = self.conv2(jax.nn.relu(self.norm2(x)))
        return x if self.dropout is None else self.dropout(x)


class _Transition(nnx.Module):
    def __init__(self, channels: int, outputs: int, make: dict[str, Any]) -> None:
        self.norm = BatchNorm2d(channels, **make)
        self.conv = Conv2d(channels, outputs, 1, bias=False, kernel_init=_fan_in, **make)

    def __call__(self, x: jax.Array) -> jax.Array:
        return avg_pool2d(self.conv(jax.nn.relu(self.norm(x))), 2)


@nnx.remat
def _rematerialised(layer: _DenseLayer, features: list[jax.Array]) -> jax.Array:
    return layer(features)
