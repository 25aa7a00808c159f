"""PyTorch's side of the comparisons of networks: torchvision's structure and names, restated in torch.nn.

Images and feature maps go in and come out with channels last; weights, gradients and buffers are keyed by
PyTorch's names and in PyTorch's layout, as numpy arrays.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Layer", "Run", "densenet", "layer", "mlp", "names", "resnet", "trained", "weights"]

torch.set_num_threads(1)

Arrays = dict[str, np.ndarray]


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(inplanes, planes, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = shortcut(inplanes, 4 * planes, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(inplanes, outplanes, stride):
    if stride == 1 and inplanes == outplanes:
        return None
    return nn.Sequential(nn.Conv2d(inplanes, outplanes, 1, stride, bias=False), nn.BatchNorm2d(outplanes))


class ResNet(nn.Module):
    def __init__(self, block, layers, num_classes, width, cifar_stem):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, *((3, 1, 1) if cifar_stem else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
        inplanes = width
        for index, count in enumerate(layers):
            planes, blocks = width * 2**index, []
            for i in range(count):
                blocks.append(block(inplanes, planes, 2 if index and not i else 1))
                inplanes = planes * block.expansion
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inplanes, num_classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, channels, growth_rate):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class DenseNet(nn.Module):
    def __init__(self, growth_rate, block_config, channels, num_classes):
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            norm0=nn.BatchNorm2d(channels),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
        for i, count in enumerate(block_config, start=1):
            layers = {
                f"denselayer{j + 1}": DenseLayer(channels + j * growth_rate, growth_rate)
                for j in range(count)
            }
            parts[f"denseblock{i}"] = nn.Sequential(OrderedDict(layers))
            channels += count * growth_rate
            if i < len(block_config):
                transition = OrderedDict(
                    norm=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2),
                )
                parts[f"transition{i}"] = nn.Sequential(transition)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


class MLP(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x):
        for hidden in self.layers[:-1]:
            x = F.relu(hidden(x))
        return self.layers[-1](x)


def resnet(
    block: str, layers: Sequence[int], num_classes: int = 1000, width: int = 64, cifar_stem: bool = False
) -> nn.Module:
    """torchvision's ResNet; ``block`` is "BasicBlock" or "Bottleneck"."""
    return ResNet(
        {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}[block], layers, num_classes, width, cifar_stem
    )


def densenet(
    growth_rate: int, block_config: Sequence[int], num_init_features: int, num_classes: int = 1000
) -> nn.Module:
    """torchvision's DenseNet."""
    return DenseNet(growth_rate, block_config, num_init_features, num_classes)


def mlp(widths: Sequence[int]) -> nn.Module:
    """Linear layers in a list called ``layers``, with ReLUs between them."""
    return MLP(widths)


def names(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that a network saves, without its memory."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def weights(module: nn.Module, seed: int = 0) -> Arrays:
    """Weights and buffers of a network in the middle of training: nothing is exactly zero or one."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            found[name] = np.asarray(3)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            found[name] = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 25
            found[name] = rng.normal(size=tensor.shape) / np.sqrt(fan_in)
    return found


class Run(NamedTuple):
    """What came of a training run.

    Attributes:
      evaluated: logits in evaluation mode, before the first step.
      logits: in training mode, at the first step.
      losses: of every step.
      grads: of every parameter, at the first step.
      state: parameters and buffers after the last step.
    """

    evaluated: np.ndarray
    logits: np.ndarray
    losses: np.ndarray
    grads: Arrays
    state: Arrays


def trained(
    module: nn.Module,
    state: Mapping[str, np.ndarray],
    batches: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    lr: float,
    dtype: str,
) -> Run:
    """Trains with cross entropy and SGD with momentum 0.9, one step for each batch of inputs and labels."""
    kind = getattr(torch, dtype)
    module = module.to(kind)
    module.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    tensors = [(_channels_second(torch.tensor(x).to(kind)), torch.tensor(y)) for x, y in batches]
    with torch.no_grad():
        evaluated = module.eval()(tensors[0][0])
    module.train()
    losses, first = [], None
    for x, labels in tensors:
        optimizer.zero_grad()
        logits = module(x)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        losses.append(loss.item())
        if first is None:
            grads = {name: _array(parameter.grad) for name, parameter in module.named_parameters()}
            first = _array(logits)
        optimizer.step()
    after = {name: _array(tensor) for name, tensor in module.state_dict().items()}
    return Run(_array(evaluated), first, np.array(losses), grads, after)


class Layer(NamedTuple):
    """What came of a layer.

    Attributes:
      outputs: one for each call in training mode, and a last one in evaluation mode.
      grads: of the parameters and, called ``input``, of the last input: gradients of the sum of the last
        training output times its cosine.
      state: parameters and buffers at the end.
    """

    outputs: list[np.ndarray]
    grads: Arrays
    state: Arrays


def layer(
    name: str,
    arguments: Mapping[str, Any],
    state: Mapping[str, np.ndarray] | None,
    inputs: Sequence[np.ndarray],
    *,
    dtype: str = "float64",
) -> tuple[Arrays, Layer]:
    """Calls ``torch.nn.<name>(**arguments)`` on each input in turn; returns the weights that it had."""
    kind = getattr(torch, dtype)
    moved = name.startswith(("Conv", "BatchNorm", "GroupNorm", "MaxPool", "AvgPool"))
    module = getattr(nn, name)(**arguments).to(kind)
    state = weights(module) if state is None else state
    module.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    outputs = []
    for array in inputs:
        x = torch.tensor(array)
        if x.is_floating_point():
            x = x.to(kind).requires_grad_()
        module.zero_grad()
        y = module(_channels_second(x) if moved else x)
        (y * y.cos()).sum().backward()
        outputs.append(y)
    grads = {key: _array(p.grad) for key, p in module.named_parameters()}
    if x.is_floating_point():
        grads["input"] = _array(x.grad)
    outputs.append(module.eval()(_channels_second(x) if moved else x))
    after = {key: _array(tensor) for key, tensor in module.state_dict().items()}
    return dict(state), Layer([_array(_channels_last(y) if moved else y) for y in outputs], grads, after)


def _channels_second(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
