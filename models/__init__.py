"""Reference networks in Flax NNX, and the pure functions that training uses."""

from jaxopt_core.extras import needs_extra

with needs_extra("models"):
    from jaxopt_core.models import initializers, layers
    from jaxopt_core.models.densenet import DenseNet, densenet121, densenet169
    from jaxopt_core.models.mlp import MLP
    from jaxopt_core.models.pure import PureModel, pure
    from jaxopt_core.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152

__all__ = [
    "MLP",
    "DenseNet",
    "PureModel",
    "ResNet",
    "densenet121",
    "densenet169",
    "initializers",
    "layers",
    "pure",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]
