"""How fast images reach a model in pre-training on formulas: by tensors, and by PIL and timm's transforms.

```
python examples/benchmarks/data_path.py             # a minute
python examples/benchmarks/data_path.py --quick     # a smoke test
```

In one thread, both ways in turns, batch by batch, of the same numbers of images: drawing at the published size;
cropping to 224 pixels with RandAugment; and finishing, which is normalising, erasing, mixup and CutMix. The first two
are a worker's; the last is done where the model is, on a GPU if there is one, and here on the CPU. A figure is the
median over the rounds, in milliseconds an image; the ratios are of sums of medians.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from _augmentation import PIL, TENSORS, AugmentationArguments, ByteCollator, FinishedBatches
from _report import processor, seconds, table, versions

from hf_kakurenbo import load_fdsl

NAMES = ("fractaldb-1k", "exfractaldb-1k", "rcdb-1k", "visualatom-1k")
SIZE, BATCH = 224, 64


def make_stages(name: str, way: str) -> list[Callable[[Any], Any]]:
    """From indices to a batch as the model takes it: drawing, augmenting, finishing."""
    arguments = AugmentationArguments(
        augment=True, augment_with=way, mixup=0.8, cutmix=1.0, pixel_mean=[0.5], pixel_std=[0.5]
    )
    draw_size = load_fdsl(name).draw_size
    mode = "RGB" if arguments.with_pil else "L"
    images = load_fdsl(name, image_size=draw_size, draw_size=draw_size, mode=mode, as_tensor=not arguments.with_pil)
    return [
        images.__getitems__,
        ByteCollator(arguments, SIZE, training=True),
        FinishedBatches(arguments, images.categories, 0.1),
    ]


def timed(stages: list[Callable[[Any], Any]], batch: Any) -> list[float]:
    """Milliseconds an image, of each stage."""
    taken, count = [], len(batch)
    for stage in stages:
        made: list[Any] = []
        taken.append(1000 * seconds(lambda made=made, stage=stage, batch=batch: made.append(stage(batch))) / count)
        batch = made[0]
    return taken


def measure(name: str, rounds: int) -> dict[str, np.ndarray]:
    """The medians of the stages, by way."""
    ways = {way: make_stages(name, way) for way in (PIL, TENSORS)}
    taken: dict[str, list[list[float]]] = {way: [] for way in ways}
    generator = np.random.default_rng(0)
    for number in range(rounds + 1):
        indices = generator.integers(0, 1_000_000, BATCH).tolist()
        for way, stages in ways.items():
            spent = timed(stages, indices)
            if number:  # the first round compiles
                taken[way].append(spent)
    return {way: np.median(spent, axis=0) for way, spent in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of one dataset")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(f"{processor()}, one thread. {versions(['torch', 'timm', 'pillow', 'numba'])}.\n")
    rows = []
    for name in NAMES[:1] if quick else NAMES:
        medians = measure(name, 1 if quick else 9)
        for way, (drawing, augmenting, finishing) in medians.items():
            worker = 1000 / (drawing + augmenting)
            cells = [name, way, *(f"{part:.2f}" for part in (drawing, augmenting, finishing)), f"{worker:,.0f}"]
            rows.append([*cells, f"{1000 / (drawing + augmenting + finishing):,.0f}"])
        ratios = [medians[PIL][:end].sum() / medians[TENSORS][:end].sum() for end in (2, 3)]
        rows.append([name, "times as fast", "", "", "", *(f"{ratio:.1f}" for ratio in ratios)])
    header = ["images", "way", "drawing, ms", "augmenting, ms", "finishing, ms", "images/s a worker", "with finishing"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
