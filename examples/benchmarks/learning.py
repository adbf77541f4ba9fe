"""Whether a network can learn formula-driven images, and whether what it learnt is of use on real ones.

```
python examples/benchmarks/learning.py                         # fractaldb-60, about five minutes on two cores
python examples/benchmarks/learning.py --name rcdb-1k          # the first 60 categories of another family
python examples/benchmarks/learning.py --quick                 # a smoke test, less than half a minute
```

A small convolutional network learns to tell 60 categories apart, and is asked about instances it has not seen. There
are as many images as one likes, so it sees many of them a few times each: a few images that it sees often it learns by
heart, and tells no others apart. Points are single pixels: a patch of 3×3, meant for images of 362 pixels, would be a
tenth of one of 32.

Then it is cut off after its third convolution and frozen: a logistic regression on what comes out there, averaged over
the quarters of the image, has to read scikit-learn's handwritten digits from a few labels for each. (What comes last
knows the categories best and other images worse; the same layer is used of every network, and the last is shown too.)
The same is done with the same network before it learnt anything, on the same labels. Every figure is the mean over
seeds, with the standard deviation behind it; a seed draws the weights, the order of the images and the digits that are
labelled.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
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
CHANNELS = (32, 64, 96, 128)
LABELLED = (2, 5, 20)


class Network(nn.Module):
    """Four convolutions that each halve the image, an average over it, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
        )
        self.head = nn.Linear(CHANNELS[-1], CATEGORIES)

    def features(self, images: Tensor) -> list[Tensor]:
        """What comes out of each convolution: (B, channels, height, width)."""
        found = []
        for convolution in self.convolutions:
            images = convolution(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 60) of images (B, 1, 32, 32)."""
        return self.head(self.features(images)[-1].mean((2, 3)))


def draw(name: str, split: str, instances: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) in [0, 1], light on dark, and labels (N,)."""
    entry = find_entry(name)
    options = {"image_size": IMAGE_SIZE, "draw_size": IMAGE_SIZE, "mode": "L", "as_tensor": True}
    if find_family(entry.family).points is not None:
        options |= {"points": POINTS, "patches": False}
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
    """The fraction of the images whose category it tells."""
    network.eval()
    right = [
        (network(part).argmax(1) == truth) for part, truth in zip(images.split(500), labels.split(500), strict=True)
    ]
    return torch.cat(right).float().mean().item()


@torch.no_grad()
def features_of_digits(network: Network) -> dict[str, np.ndarray]:
    """The frozen features of the digits, enlarged to 32 × 32, by where they are taken: (1797, features) each."""
    pixels = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
    network.eval()
    *_, third, last = network.features(nn.functional.interpolate(pixels, size=IMAGE_SIZE, mode="bilinear"))
    return {
        "third convolution": nn.functional.adaptive_avg_pool2d(third, 2).flatten(1).numpy(),
        "last convolution": last.mean((2, 3)).numpy(),
    }


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


def read_all(features: np.ndarray, seed: int) -> list[float]:
    """The accuracy with each number of labels."""
    return [read_digits(features, count, seed) for count in LABELLED]


def learn(name: str, seeds: int, epochs: int, instances: int) -> tuple[list[float], dict[str, list[list[float]]]]:
    """Of each seed: the fraction of the unseen instances told apart, and how well digits are read, by title."""
    images, labels = draw(name, "train", instances)
    unseen, their_labels = draw(name, "validation", 20)
    told: list[float] = []
    read: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = Network()
        for where, features in features_of_digits(network).items():
            read[f"{where}, random weights"].append(read_all(features, seed))
        train(network, images, labels, epochs, seed)
        for where, features in features_of_digits(network).items():
            read[f"{where}, trained on {name}"].append(read_all(features, seed))
        told.append(accuracy(network, unseen, their_labels))
        print(f"seed {seed}: {told[-1]:.1%} of the unseen instances", flush=True)
        read["the pixels themselves"].append(read_all(load_digits().data, seed))
    return told, read


def better(read: dict[str, list[list[float]]], name: str) -> list[float]:
    """By how much trained features of the third convolution are better than random ones: of each seed and number."""
    trained, random = (
        np.array(read[f"third convolution, {weights}"]) for weights in (f"trained on {name}", "random weights")
    )
    return (trained - random).mean(1).tolist()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Learn formula-driven images, then read digits with the features.")
    parser.add_argument("--name", default="fractaldb-60", help="a dataset of at least 60 categories")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs; at least 2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--instances", type=int, default=1000, help="training images of each category")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth little")
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs, args.instances = 2, 2, 200
    return args


def main() -> None:
    """Measure and print Markdown."""
    args = parse_arguments()
    told, read = learn(args.name, args.seeds, args.epochs, args.instances)
    order = sorted(read, key=lambda title: (not title.startswith("third"), not title.startswith("last")))
    lines = [
        f"`{args.name}`, {CATEGORIES} categories of {args.instances} training instances at {IMAGE_SIZE} px, "
        f"{args.epochs} epochs, {args.seeds} seeds: {spread(told)} of the unseen instances told apart "
        f"(chance {1 / CATEGORIES:.1%}).",
        "",
        "| digits read from | " + " | ".join(f"{count} labels a digit" for count in LABELLED) + " |",
        "| --- |" + " --- |" * len(LABELLED),
        *(
            f"| {title} | " + " | ".join(spread(column) for column in zip(*read[title], strict=True)) + " |"
            for title in order
        ),
        "",
        f"Third convolution, trained less random, paired by seed: {spread(better(read, args.name))}.",
    ]
    report = "\n".join(lines)
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
