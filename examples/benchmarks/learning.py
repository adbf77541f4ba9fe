"""Whether a network can learn formula-driven images, and whether what it learnt is of use on real ones.

```
python examples/benchmarks/learning.py                         # fractaldb-60, about five minutes on two cores
python examples/benchmarks/learning.py --name rcdb-1k          # the first 60 categories of another family
python examples/benchmarks/learning.py --quick                 # a smoke test, seconds
```

A small convolutional network learns to tell 60 categories apart, and is asked about instances it has not seen. Then its
last layer is cut off and the rest frozen: a logistic regression on its features has to read scikit-learn's handwritten
digits, from a few labels for each. The same is done with the features of the same network before it learnt anything.
Every figure is the mean over seeds, with the standard deviation behind it; a seed draws the weights, the order of the
images and the digits that are labelled.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.fdsl.catalog import find_entry, find_family

CATEGORIES = 60
IMAGE_SIZE = 32
POINTS = 2_000
"""Of a fractal: 100,000 points would make one blot of most at 32 pixels."""
FEATURES = 128


class Network(nn.Module):
    """Four convolutions, an average over the image, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 32, 1), (32, 64, 2), (64, 96, 2), (96, FEATURES, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(FEATURES, CATEGORIES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 60) of images (B, 1, 32, 32)."""
        return self.head(self.features(images))


def draw(name: str, split: str, instances: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) in [0, 1], light on dark, and labels (N,)."""
    entry = find_entry(name)
    points = POINTS if find_family(entry.family).points is not None else None
    options = {"image_size": IMAGE_SIZE, "mode": "L", "as_tensor": True, "points": points}
    dataset = load_fdsl(name, split, categories=CATEGORIES, instances=instances, **options)
    images = torch.stack([example["image"] for example in dataset]).float() / 255
    if images.mean() > 0.5:
        images = 1 - images
    return images, torch.arange(len(dataset)) // instances


def train(network: Network, images: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    """Train it on all categories."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    batches = len(images) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * batches)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator)[: batches * 64].view(batches, 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """The share of the images whose category it tells."""
    network.eval()
    right = [
        (network(part).argmax(1) == truth) for part, truth in zip(images.split(500), labels.split(500), strict=True)
    ]
    return torch.cat(right).float().mean().item()


@torch.no_grad()
def features_of_digits(network: Network) -> np.ndarray:
    """The frozen features of the digits, enlarged to 32 × 32: (1797, 128)."""
    pixels = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
    network.eval()
    large = nn.functional.interpolate(pixels, size=IMAGE_SIZE, mode="bilinear")
    return network.features(large).numpy()


def read_digits(features: np.ndarray, labels_per_digit: int, seed: int) -> float:
    """The accuracy of a logistic regression on the features of digits that it has not seen."""
    truth = load_digits().target
    order = np.random.default_rng(seed).permutation(len(truth))
    known = np.concatenate([order[truth[order] == digit][:labels_per_digit] for digit in range(10)])
    unknown = np.setdiff1d(order, known)
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    reader.fit(features[known], truth[known])
    return float(reader.score(features[unknown], truth[unknown]))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    return f"{np.mean(values):.1%} ± {np.std(values, ddof=1):.1%}"


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description="Learn formula-driven images, then read digits with the features.")
    parser.add_argument("--name", default="fractaldb-60", help="a dataset of at least 60 categories")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs; at least 2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--instances", type=int, default=100, help="training images of each category")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth little")
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs, args.instances = 2, 1, 8
    images, labels = draw(args.name, "train", args.instances)
    unseen, their_labels = draw(args.name, "validation", 20)
    told: list[float] = []
    labelled = (2, 5, 20)
    found: dict[str, list[list[float]]] = {"random weights": [], f"trained on {args.name}": []}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        network = Network()
        for title, results in found.items():
            if title != "random weights":
                train(network, images, labels, args.epochs, seed)
                told.append(accuracy(network, unseen, their_labels))
                print(f"seed {seed}: {told[-1]:.1%} of the unseen instances", flush=True)
            features = features_of_digits(network)
            results.append([read_digits(features, count, seed) for count in labelled])
    pixels = load_digits().data
    found["the pixels themselves"] = [
        [read_digits(pixels, count, seed) for count in labelled] for seed in range(args.seeds)
    ]
    lines = [
        f"`{args.name}`, {CATEGORIES} categories of {args.instances} training instances at {IMAGE_SIZE} px, "
        f"{args.epochs} epochs, {args.seeds} seeds: {spread(told)} of the unseen instances told apart "
        f"(chance {1 / CATEGORIES:.1%}).",
        "",
        "| digits read from frozen features of | " + " | ".join(f"{count} labels a digit" for count in labelled) + " |",
        "| --- |" + " --- |" * len(labelled),
        *(
            f"| {title} | " + " | ".join(spread(column) for column in zip(*results, strict=True)) + " |"
            for title, results in found.items()
        ),
    ]
    report = "\n".join(lines)
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
