"""Batches with a position that can be saved, readers for the files that people have, and embedded data."""

from jaxopt_core.data.augment import mixup, normalize, random_crop, random_flip, spec_augment
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.bpe import BPE
from jaxopt_core.data.cifar import CIFAR10_CLASSES, load_cifar10
from jaxopt_core.data.dataset import Dataset, Split
from jaxopt_core.data.digits import load_digits
from jaxopt_core.data.files import DataFileError
from jaxopt_core.data.idx import read_idx
from jaxopt_core.data.iterables import FromIterable
from jaxopt_core.data.mel import hz_to_mel, log_mel, mel_filters, mel_to_hz
from jaxopt_core.data.mnist import load_mnist
from jaxopt_core.data.position import Batches
from jaxopt_core.data.prefetching import Prefetch, prefetch
from jaxopt_core.data.ratings import RatingData, load_movielens, make_low_rank_ratings
from jaxopt_core.data.recordings import load_recordings
from jaxopt_core.data.speech import SpeechData
from jaxopt_core.data.streaming import RandomAccess, Stream
from jaxopt_core.data.text import ByteTokenizer, TextData, Tokenizer, load_pydoc, load_text, windows
from jaxopt_core.data.tones import make_spoken_digits, speak
from jaxopt_core.data.wav import read_wav

__all__ = [
    "BPE",
    "CIFAR10_CLASSES",
    "Arrays",
    "Batches",
    "ByteTokenizer",
    "DataFileError",
    "Dataset",
    "FromIterable",
    "Prefetch",
    "RandomAccess",
    "RatingData",
    "SpeechData",
    "Split",
    "Stream",
    "TextData",
    "Tokenizer",
    "hz_to_mel",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_movielens",
    "load_pydoc",
    "load_recordings",
    "load_text",
    "log_mel",
    "make_low_rank_ratings",
    "make_spoken_digits",
    "mel_filters",
    "mel_to_hz",
    "mixup",
    "normalize",
    "prefetch",
    "random_crop",
    "random_flip",
    "read_idx",
    "read_wav",
    "speak",
    "spec_augment",
    "windows",
]
