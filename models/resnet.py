"""Residual networks with torchvision's structure, names and starting values."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.initializers import kaiming_normal
from jaxopt_core.models.layers import BatchNorm2d, Conv2d, Linear, max_pool2d

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]

NormLayer = Callable[..., nnx.Module]

_fan_out = kaiming_normal(mode="fan_out")


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, of ResNet-18 and 34.

    Args:
        inplanes: channels of the input.
        planes: channels of the output.
        stride: of the first convolution, and of the shortcut.
        groups: must be 1, as in torchvision.
        base_width: must be 64, as in torchvision.
        norm_layer: called as ``norm_layer(channels, param_dtype=, rngs=)``.
        param_dtype: of the parameters.
        rngs: where the starting values come from.

    Raises:
        ValueError: other ``groups`` or ``base_width``.

    Example:
        >>> block = nnx.eval_shape(lambda: BasicBlock(8, 16, stride=2, rngs=nnx.Rngs(0)))
        >>> block.conv1.kernel.shape, block.downsample[0].kernel.shape
        ((3, 3, 8, 16), (1, 1, 8, 16))
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        groups: int = 1,
        base_width: int = 64,
        norm_layer: NormLayer = BatchNorm2d,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if groups != 1 or base_width != 64:
            raise ValueError("BasicBlock only supports groups=1 and base_width=64")
        make: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = _conv3x3(inplanes, planes, stride, **make)
        self.bn1 = norm_layer(planes, **make)
        self.conv2 = _conv3x3(planes, planes, **make)
        self.bn2 = norm_layer(planes, **make)
        self.downsample = _shortcut(inplanes, planes, stride, norm_layer, make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(N, H, W, inplanes)`` to ``(N, H / stride, W / stride, planes)``."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return jax.nn.relu(y + _through(self.downsample, x))


class Bottleneck(nnx.Module):
    """Convolutions of 1x1, 3x3 (which has the stride) and 1x1 and a shortcut, of ResNet-50 to 152.

    Args:
        inplanes: channels of the input.
        planes: a quarter of the output's channels.
        stride: of the 3x3 convolution, and of the shortcut.
        groups: of the 3x3 convolution.
        base_width: the 3x3 convolution has ``planes * base_width / 64 * groups`` channels.
        norm_layer: called as ``norm_layer(channels, param_dtype=, rngs=)``.
        param_dtype: of the parameters.
        rngs: where the starting values come from.

    Example:
        >>> block = nnx.eval_shape(lambda: Bottleneck(64, 16, rngs=nnx.Rngs(0)))
        >>> block.conv2.kernel.shape, block.conv3.kernel.shape, list(block.downsample)
        ((3, 3, 16, 16), (1, 1, 16, 64), [])
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        groups: int = 1,
        base_width: int = 64,
        norm_layer: NormLayer = BatchNorm2d,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        make: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        width = int(planes * (base_width / 64.0)) * groups
        outplanes = planes * self.expansion
        self.conv1 = _conv1x1(inplanes, width, **make)
        self.bn1 = norm_layer(width, **make)
        self.conv2 = _conv3x3(width, width, stride, groups, **make)
        self.bn2 = norm_layer(width, **make)
        self.conv3 = _conv1x1(width, outplanes, **make)
        self.bn3 = norm_layer(outplanes, **make)
        self.downsample = _shortcut(inplanes, outplanes, stride, norm_layer, make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(N, H, W, inplanes)`` to ``(N, H / stride, W / stride, 4 * planes)``."""
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return jax.nn.relu(y + _through(self.downsample, x))


class ResNet(nnx.Module):
    """A residual network for images, torchvision's ``ResNet``.

    Submodules have torchvision's names (``layer1/0/conv1/kernel`` is its ``layer1.0.conv1.weight``).
    Convolutions start Kaiming normal by fan-out, normalisations at one and zero, ``fc`` as every Linear.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, with the stride of a
    bottleneck in its 3x3 convolution, as torchvision has it.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        layers: blocks in each of the four stages.
        num_classes: logits. Default 1000.
        zero_init_residual: start the last normalisation of every block at zero, so that a block starts
            as its shortcut. Default False.
        groups: see :class:`Bottleneck`. Default 1.
        width_per_group: see :class:`Bottleneck`. Default 64.
        norm_layer: called as ``norm_layer(channels, param_dtype=, rngs=)``. Default batch normalisation.
        cifar_stem: begin with a 3x3 convolution of stride 1 and no pooling, for images of 32x32.
            Default False: 7x7 of stride 2, and 3x3 maxima of stride 2.
        in_channels: channels of the images. Default 3.
        width: channels of the first stage, doubled in each further one. Default 64.
        remat: keep only the blocks' inputs for the gradient and compute their inside again: less memory
            for a third more time. Default False.
        param_dtype: of parameters and statistics. Default float32.
        rngs: where the starting values come from.

    Raises:
        ValueError: ``layers`` is not four positive integers.

    Example:
        >>> def logits(images):
        ...     model = ResNet(BasicBlock, (1, 1, 1, 1), 10, cifar_stem=True, rngs=nnx.Rngs(0))
        ...     return model(images)
        >>> jax.eval_shape(logits, jnp.zeros((2, 32, 32, 3))).shape
        (2, 10)
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        norm_layer: NormLayer = BatchNorm2d,
        *,
        cifar_stem: bool = False,
        in_channels: int = 3,
        width: int = 64,
        remat: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers: expected four positive integers, found {tuple(layers)}")
        make: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.cifar_stem = cifar_stem
        self.remat = remat
        window, stride, padding = (3, 1, 1) if cifar_stem else (7, 2, 3)
        self.conv1 = Conv2d(
            in_channels, width, window, stride, padding, bias=False, kernel_init=_fan_out, **make
        )
        self.bn1 = norm_layer(width, **make)
        inplanes = width

        def stage(index: int) -> nnx.List[Any]:
            nonlocal inplanes
            planes, stride = width * 2**index, 1 if index == 0 else 2
            blocks = []
            for i in range(layers[index]):
                blocks.append(
                    block(
                        inplanes, planes, stride if i == 0 else 1, groups, width_per_group, norm_layer, **make
                    )
                )
                inplanes = planes * block.expansion
            return nnx.List(blocks)

        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(index) for index in range(4))
        self.fc = Linear(inplanes, num_classes, **make)
        if zero_init_residual:
            for _, module in nnx.iter_modules(self):
                last = getattr(module, {BasicBlock: "bn2", Bottleneck: "bn3"}.get(type(module), ""), None)
                if last is not None:
                    last.scale[...] = jnp.zeros_like(last.scale[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images ``(N, H, W, in_channels)`` to logits ``(N, num_classes)``."""
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        if not self.cifar_stem:
            x = max_pool2d(x, 3, stride=2, padding=1)
        for s, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            for i, block in enumerate(stage):
                with jax.named_scope(f"layer{s}.{i}"):
                    x = _rematerialised(block, x) if self.remat else block(x)
        with jax.named_scope("fc"):
            return self.fc(x.mean((1, 2)))


def resnet18(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> ResNet:
    """ResNet-18: 11.7M parameters; the options are those of :class:`ResNet`.

    Example:
        >>> model = nnx.eval_shape(lambda: resnet18(10, cifar_stem=True, rngs=nnx.Rngs(0)))
        >>> model.layer4[0].conv1.kernel.shape
        (3, 3, 256, 512)
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, rngs=rngs, **options)


def resnet34(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> ResNet:
    """ResNet-34: 21.8M parameters; the options are those of :class:`ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, rngs=rngs, **options)


def resnet50(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> ResNet:
    """ResNet-50: 25.6M parameters; the options are those of :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, rngs=rngs, **options)


def resnet101(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> ResNet:
    """ResNet-101: 44.5M parameters; the options are those of :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, rngs=rngs, **options)


def resnet152(num_classes: int = 1000, *, rngs: nnx.Rngs, **options: Any) -> ResNet:
    """ResNet-152: 60.2M parameters; the options are those of :class:`ResNet`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, rngs=rngs, **options)


def _conv3x3(inplanes: int, planes: int, stride: int = 1, groups: int = 1, **make: Any) -> Conv2d:
    return Conv2d(inplanes, planes, 3, stride, 1, groups=groups, bias=False, kernel_init=_fan_out, **make)


def _conv1x1(inplanes: int, planes: int, stride: int = 1, **make: Any) -> Conv2d:
    return Conv2d(inplanes, planes, 1, stride, bias=False, kernel_init=_fan_out, **make)


def _shortcut(
    inplanes: int, outplanes: int, stride: int, norm_layer: NormLayer, make: dict[str, Any]
) -> nnx.List[Any]:
    """A projection where the shape changes; an empty list, which has no leaves, where it does not."""
    if stride == 1 and inplanes == outplanes:
        return nnx.List([])
    return nnx.List([_conv1x1(inplanes, outplanes, stride, **make), norm_layer(outplanes, **make)])


def _through(layers: nnx.List[Any], x: jax.Array) -> jax.Array:
    for layer in layers:
        x = layer(x)
    return x


@nnx.remat
def _rematerialised(block: nnx.Module, x: jax.Array) -> jax.Array:
    return block(x)
