"""Reference networks in Flax NNX, and the pure functions that training uses."""

from jaxopt_core.extras import needs_extra

with needs_extra("models"):
    from jaxopt_core.models.mlp import MLP
    from jaxopt_core.models.pure import PureModel, pure

__all__ = ["MLP", "PureModel", "pure"]
