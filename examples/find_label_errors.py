"""Find wrong labels: flip some on purpose, train with hiding, and look among the samples that were never learnt.

Handwritten digits (8 × 8 pixels, 1,797 of them), 3 % of the labels replaced by another one at random; a small network.
`ledger_history=True` keeps what every epoch measured, so that the samples predicted wrongly in every epoch can be asked
for. Nothing is downloaded; it takes seconds on a CPU.

    python examples/find_label_errors.py
    python examples/find_label_errors.py --flipped 0.1 --num_train_epochs 20

It prints how many of the suspects are wrong (precision) and how many of the wrong ones are suspects (recall). It writes
a picture of the most suspicious ones and the report of the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from PIL import ImageDraw
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import set_seed

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

NAMES = [str(digit) for digit in range(10)]
COLUMNS, ROWS, TILE, LINE = 8, 4, 80, 18


class Network(nn.Module):
    """A small network over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and the logits of a batch."""
        logits = self.layers(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def digits_with_wrong_labels(fraction: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """The digits, a fraction of them with another label; and which these are, (N,) bool."""
    digits = load_digits()
    random = np.random.default_rng(seed)
    count = len(digits.target)
    wrong = np.zeros(count, dtype=bool)
    wrong[random.choice(count, round(fraction * count), replace=False)] = True
    labels = np.where(wrong, (digits.target + random.integers(1, 10, count)) % 10, digits.target)
    images = [PILImage.fromarray(np.uint8(image * 255 / 16)) for image in digits.images]
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features), wrong


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """A batch of images as numbers in [0, 1]."""
    pixels = np.stack([np.asarray(row["image"], dtype=np.float32) / 255 for row in rows])
    return {"pixel_values": torch.from_numpy(pixels), "labels": torch.tensor([row["label"] for row in rows])}


def draw(dataset: Dataset, suspects: np.ndarray, wrong: np.ndarray, path: Path) -> None:
    """The first suspects, each with its label, and a mark where it is one of the wrong ones."""
    sheet = PILImage.new("RGB", (COLUMNS * TILE, ROWS * (TILE + LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, sample in enumerate(suspects[: COLUMNS * ROWS].tolist()):
        left, top = place % COLUMNS * TILE, place // COLUMNS * (TILE + LINE)
        row = dataset[sample]
        image = row["image"].resize((TILE - 8, TILE - 8), PILImage.Resampling.NEAREST)
        sheet.paste(image.convert("RGB"), (left + 4, top + 4))
        verdict = "wrong" if wrong[sample] else "right"
        pen.text((left + 6, top + TILE - 1), f"{NAMES[row['label']]}: {verdict}", fill="black")
    sheet.save(path)


def main() -> None:
    """Flip, train, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipped", type=float, default=0.03, help="The fraction of the labels that is replaced.")
    parser.add_argument("--num_train_epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/label_errors"))
    options = parser.parse_args()
    dataset, wrong = digits_with_wrong_labels(options.flipped, options.seed)
    set_seed(options.seed)
    args = KakurenboConfig(
        output_dir=str(options.output_dir),
        num_train_epochs=options.num_train_epochs,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        ledger_history=True,
        seed=options.seed,
        remove_unused_columns=False,
        logging_steps=20,
        report_to=[],
        save_strategy="no",
    )
    trainer = KakurenboTrainer(model=Network(), args=args, train_dataset=dataset, data_collator=collate)
    trainer.train()

    history = trainer.ledger.history
    suspects = np.flatnonzero(history.never_learnt())
    suspects = suspects[np.argsort(history.data_map().confidence[suspects], kind="stable")]
    found = int(wrong[suspects].sum())
    options.output_dir.mkdir(parents=True, exist_ok=True)
    draw(dataset, suspects, wrong, options.output_dir / "suspects.png")
    trainer.hiding_report(options.output_dir / "report.html")
    print(f"never learnt: {len(suspects)} of {len(dataset):,} samples")
    print(f"wrong labels among them: {found} of {int(wrong.sum())}")
    print(f"precision {found / max(len(suspects), 1):.1%}, recall {found / max(int(wrong.sum()), 1):.1%}")
    print(f"hidden at least once: {int((trainer.ledger.times_hidden.numpy()[wrong] > 0).sum())} of the wrong ones")
    print(f"written to {options.output_dir}: suspects.png, report.html")


if __name__ == "__main__":
    main()
