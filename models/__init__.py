"""Reference networks in Flax NNX, and the pure functions that training uses."""

from jaxopt_core.extras import needs_extra

with needs_extra("models"):
    from jaxopt_core.models import initializers, layers
    from jaxopt_core.models.densenet import DenseNet, densenet121, densenet169
    from jaxopt_core.models.gpt2 import GPT2LMHeadModel, GPT2Model
    from jaxopt_core.models.lstm import LSTMClassifier, Seq2Seq
    from jaxopt_core.models.mlp import MLP
    from jaxopt_core.models.pure import PureModel, pure
    from jaxopt_core.models.recommender import MatrixFactorization, NeuralCF
    from jaxopt_core.models.recurrent import GRU, LSTM
    from jaxopt_core.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
    from jaxopt_core.models.speech import SpeechModel
    from jaxopt_core.models.transformer import TransformerEncoder, TransformerEncoderLayer

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "DenseNet",
    "GPT2LMHeadModel",
    "GPT2Model",
    "LSTMClassifier",
    "MatrixFactorization",
    "NeuralCF",
    "PureModel",
    "ResNet",
    "Seq2Seq",
    "SpeechModel",
    "TransformerEncoder",
    "TransformerEncoderLayer",
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
