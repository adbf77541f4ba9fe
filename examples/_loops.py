"""What the loops without `Trainer` share: handwritten digits, a small network, the options of the command."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hf_kakurenbo.hiding import HidingPolicy, create_policy, list_policies


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,437 images of 64 numbers in [0, 1] with their labels to train on, and 360 to test on."""
    data = load_digits()
    pixels = torch.tensor(data.data, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1437], order[1437:]
    return TensorDataset(pixels[train], labels[train]), TensorDataset(pixels[test], labels[test])


def network() -> nn.Module:
    """A small network, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def mean_loss(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of a batch from those of its samples, (B,): each counts by its weight, if the policy gives weights."""
    return losses.mean() if weights is None else (losses * weights).mean()


@torch.no_grad()
def accuracy(model: nn.Module, dataset: TensorDataset) -> float:
    """The fraction of right predictions."""
    images, labels = dataset.tensors
    return float((model(images).argmax(dim=1) == labels).float().mean())


def parse(description: str | None, output: str) -> tuple[HidingPolicy, argparse.Namespace]:
    """The policy and the other options of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=list_policies(), default="infobatch")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output_dir", type=Path, default=Path(output), help="A checkpoint in it is resumed from.")
    options = parser.parse_args()
    return create_policy(options.policy, {}), options
