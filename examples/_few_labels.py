"""What a pre-trained model is worth: fine-tuned on a few handwritten digits, beside one that starts from nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from _common import HIDDEN_SHARE, say
from _table import Outcome
from image_classification import digits
from torch import Tensor
from torchvision.transforms import v2
from transformers import (
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

SCRATCH = "from scratch"

# Of the columns of the table, which fits 80.
_WIDTHS = (20, 16, 14, 14)


@dataclass
class FewLabelsArguments:
    """The comparison that ends the job without arguments."""

    finetune: bool = field(
        default=False,
        metadata={
            "help": "Pre-train without hiding too, fine-tune both on few handwritten digits, and compare; on in the "
            "job without arguments."
        },
    )
    labels_per_digit: int = field(default=10, metadata={"help": "How many digits of each kind are labelled."})
    finetune_seeds: int = field(default=5, metadata={"help": "How often: other digits are labelled each time."})
    finetune_epochs: int = field(default=100, metadata={"help": "Epochs of each fine-tuning."})
    finetune_learning_rate: float = field(default=2e-3, metadata={"help": "Learning rate of each fine-tuning."})

    def __post_init__(self) -> None:
        for name in ("labels_per_digit", "finetune_seeds", "finetune_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")


class Digits(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Some of the digits, in the size that the model takes, moved about a little when they are trained on.

    Args:
        images: (N, 3, size, size) uint8.
        labels: (N,).
        moved: whether to move them.
        normalise: as in pre-training.
    """

    def __init__(self, images: Tensor, labels: Tensor, moved: bool, normalise: v2.Normalize) -> None:
        normalise = [v2.ToDtype(torch.float32, scale=True), normalise]
        self.transform = v2.Compose([v2.RandomAffine(0, translate=(0.1, 0.1)), *normalise] if moved else normalise)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.transform(self.images[index]), "labels": self.labels[index]}


def all_digits(image_size: int) -> tuple[Tensor, Tensor]:
    """All 1,797 digits, light on dark: (N, 3, image_size, image_size) uint8 and labels (N,)."""
    rows = digits()
    to_tensor = v2.Compose([v2.RGB(), v2.Resize(image_size - 4, v2.InterpolationMode.BICUBIC), v2.Pad(2)])
    images = [v2.functional.pil_to_tensor(to_tensor(image)) for image in rows["image"]]
    return torch.stack(images), torch.tensor(rows["label"])


def few_of_each(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of so many of each kind, and of all others."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    few = torch.cat([order[labels[order] == digit][:count] for digit in range(10)])
    others = torch.ones(len(labels), dtype=torch.bool)
    others[few] = False
    return few, others.nonzero().squeeze(1)


def accuracy_with_few_labels(
    make_model: Callable[[], PreTrainedModel],
    images: Tensor,
    labels: Tensor,
    args: FewLabelsArguments,
    normalise: v2.Normalize,
    seed: int,
) -> float:
    """Fine-tune on a few digits of each kind; the fraction of all others that is then read rightly."""
    few, others = few_of_each(labels, args.labels_per_digit, seed)
    set_seed(seed)
    training = TrainingArguments(
        output_dir="unused",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        num_train_epochs=args.finetune_epochs,
        per_device_train_batch_size=25,
        per_device_eval_batch_size=256,
        learning_rate=args.finetune_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.05,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(make_model(), training, train_dataset=Digits(images[few], labels[few], True, normalise))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    predictions = trainer.predict(Digits(images[others], labels[others], False, normalise)).predictions
    return float((predictions.argmax(axis=1) == labels[others].numpy()).mean())


def compare_few_labels(
    args: FewLabelsArguments,
    outcomes: Sequence[Outcome],
    folders: Sequence[str],
    config: PreTrainedConfig,
    normalise: v2.Normalize,
    training: TrainingArguments,
) -> None:
    """Fine-tune from scratch and from each pre-trained model; print a table, draw a figure, store the accuracies.

    Args:
        args: the few labels.
        outcomes: of the pre-trainings.
        folders: where each of them saved its model.
        config: that of a model with random weights and a head for ten classes.
        normalise: as in pre-training.
        training: the arguments of the pre-trainings.
    """
    size = getattr(config, "image_size", None) or config.pretrained_cfg["input_size"][-1]
    images, labels = all_digits(size)
    starts: dict[str, Callable[[], PreTrainedModel]] = {
        SCRATCH: lambda: AutoModelForImageClassification.from_config(config)
    }
    for outcome, folder in zip(outcomes, folders, strict=True):
        starts[outcome.title] = _with_new_head(folder, config)
    count = f"{args.labels_per_digit} handwritten digits of each kind"
    say(training, f"\nFine-tuning on {count}, {args.finetune_seeds} times")
    transformers.utils.logging.set_verbosity_error()  # of the new head it would tell each time
    seeds = range(training.seed, training.seed + args.finetune_seeds)
    found = {
        title: [accuracy_with_few_labels(make, images, labels, args, normalise, seed) for seed in seeds]
        for title, make in starts.items()
    }
    (Path(training.output_dir) / "few_labels.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    say(training, f"\n{_table(found, outcomes)}")
    figure = Path(training.output_dir) / "pretraining.png"
    draw(figure, found, dict(zip((outcome.title for outcome in outcomes), folders, strict=True)))
    say(training, f"\nThe curves: {figure}")


def _with_new_head(folder: str, config: PreTrainedConfig) -> Callable[[], PreTrainedModel]:
    names = {"id2label": config.id2label, "label2id": config.label2id}
    return lambda: AutoModelForImageClassification.from_pretrained(
        folder, num_labels=len(config.id2label), ignore_mismatched_sizes=True, **names
    )


def _table(found: dict[str, list[float]], outcomes: Sequence[Outcome]) -> str:
    trained = {outcome.title: outcome for outcome in outcomes}
    header = ("accuracy on digits", "backpropagated", "images drawn", "wall time")
    lines = [f"{'pre-training':<16}" + "".join(map("{:>{}}".format, header, _WIDTHS))]
    lines.append("-" * len(lines[0]))
    for title, accuracies in found.items():
        mean = f"{np.mean(accuracies):.2%}"
        spread = f" ± {np.std(accuracies, ddof=1):.2%}" if len(accuracies) > 1 else ""
        cells = ["-"] * 3
        if title in trained:
            outcome = trained[title]
            drawn = outcome.backpropagated + outcome.forward_only
            cells = [f"{outcome.backpropagated:,}", f"{drawn:,}", outcome.time]
        lines.append(f"{title:<16}" + "".join(map("{:>{}}".format, (mean + spread, *cells), _WIDTHS)))
    return "\n".join([*lines, lines[1]])


def draw(path: Path, found: dict[str, list[float]], folders: dict[str, str]) -> None:
    """Draw the loss and the hidden fraction of the pre-trainings, and the accuracies after fine-tuning.

    Args:
        path: the PNG file.
        found: accuracies by title.
        folders: where each pre-training saved `trainer_state.json`, by title.
    """
    figure, (losses, shares, digits_read) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    colors = {title: f"C{index}" for index, title in enumerate(found)}
    for title, folder in folders.items():
        history = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        logged = [(entry["epoch"], float(entry["loss"])) for entry in history if "loss" in entry]
        losses.plot(*zip(*logged, strict=True), color=colors[title], label=title)
        hidden = [(entry["epoch"], entry[HIDDEN_SHARE]) for entry in history if HIDDEN_SHARE in entry]
        if hidden:
            shares.plot(*zip(*hidden, strict=True), color=colors[title], label=title)
    losses.set(title="Pre-training", xlabel="epoch", ylabel="loss of the visible samples")
    losses.legend(frameon=False)
    shares.set(title="Samples not trained on", xlabel="epoch", ylabel="hidden fraction", ylim=(0, None))
    for place, (title, accuracies) in enumerate(found.items()):
        digits_read.plot([place] * len(accuracies), accuracies, "o", color=colors[title], alpha=0.5)
        digits_read.plot([place - 0.2, place + 0.2], [np.mean(accuracies)] * 2, color=colors[title], lw=2)
    digits_read.set(title="Fine-tuned on few digits", ylabel="accuracy", xlim=(-0.5, len(found) - 0.5))
    digits_read.set_xticks(range(len(found)), [title.replace(" ", "\n", 1) for title in found])
    for axes in (losses, shares, digits_read):
        axes.spines[["top", "right"]].set_visible(False)
    beside = path.with_suffix(".part.png")
    figure.savefig(beside, dpi=120)
    plt.close(figure)
    beside.replace(path)
