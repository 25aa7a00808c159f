"""How good a model is, how sure that is, and why it fails: scores over batches, intervals and pictures."""

from jaxopt_core.evaluation.attributions import IntegratedGradients, integrated_gradients, saliency
from jaxopt_core.evaluation.classes import Confusion
from jaxopt_core.evaluation.collecting import collect
from jaxopt_core.evaluation.cross_validation import Folds, cross_validate, make_folds
from jaxopt_core.evaluation.examples import plot_attributions, plot_mistakes
from jaxopt_core.evaluation.intervals import Interval, confidence_interval
from jaxopt_core.evaluation.layers import activation_scales, layer_norms, layer_outputs
from jaxopt_core.evaluation.numbers import Perplexity, SquaredError
from jaxopt_core.evaluation.pictures import plot_confusion, plot_errors, plot_layers, plot_positions, plot_roc
from jaxopt_core.evaluation.ranking import Ranking
from jaxopt_core.evaluation.roc import RocCurve, roc_auc, roc_curves
from jaxopt_core.evaluation.words import ErrorRate, ctc_greedy, edit_distance

__all__ = [
    "Confusion",
    "ErrorRate",
    "Folds",
    "IntegratedGradients",
    "Interval",
    "Perplexity",
    "Ranking",
    "RocCurve",
    "SquaredError",
    "activation_scales",
    "collect",
    "confidence_interval",
    "cross_validate",
    "ctc_greedy",
    "edit_distance",
    "integrated_gradients",
    "layer_norms",
    "layer_outputs",
    "make_folds",
    "plot_attributions",
    "plot_confusion",
    "plot_errors",
    "plot_layers",
    "plot_mistakes",
    "plot_positions",
    "plot_roc",
    "roc_auc",
    "roc_curves",
    "saliency",
]
