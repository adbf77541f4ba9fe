"""Ledgers of a few samples, and what a training would have measured of them."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import Measurements

LOSSES = st.sampled_from([0.0, 1e-30, 0.1, 0.1, 0.5, 2.0, 7.5, math.inf, math.nan]) | st.floats(0, 10, width=32)
SAMPLES = st.lists(
    st.tuples(LOSSES, st.booleans(), st.sampled_from([0.0, 0.7, 0.9, 0.95, 1.0])), min_size=1, max_size=40
)
SEEDS = st.tuples(st.integers(0, 2**32), st.integers(1, 50))


def ledger_of(samples, kind=SampleLedger):
    ledger = kind(len(samples))
    update(ledger, range(len(samples)), samples)
    return ledger


def update(ledger, ids, samples):
    loss, correct, confidence = (torch.tensor(field) for field in zip(*samples, strict=True))
    ledger.update(Measurements.of(torch.tensor(list(ids)), loss.float(), correct, confidence.float()))


def hidden_ids(selection):
    return set(selection.hidden.nonzero().squeeze(1).tolist())


def usual(count, seed=0):
    """Samples with losses as they are in a training, most of them small."""
    random = np.random.default_rng(seed)
    losses = random.lognormal(-1, 1.5, count).astype(np.float32)
    return [(float(loss), bool(loss < 0.7), float(np.exp(-loss))) for loss in losses]
