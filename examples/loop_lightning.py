"""A Lightning training that hides, by a callback: resumed where it was killed, on one process or several.

Handwritten digits, a small network, InfoBatch, whose weights the `training_step` applies. Nothing is downloaded; it
takes seconds on a CPU. It needs Lightning: pip install "hf-kakurenbo[lightning]".

    python examples/loop_lightning.py
    torchrun --nproc_per_node 2 examples/loop_lightning.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from _loops import accuracy, digits, mean_loss, network, parse
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import Dataset

from hf_kakurenbo.data import IdentifiedBatch, VisibleLoader
from hf_kakurenbo.hiding import HidingPolicy, HidingRun, single_label_statistics
from hf_kakurenbo.integrations.lightning import HidingCallback

BATCH_SIZE, SAVE_EVERY = 48, 10


class Classifier(LightningModule):
    """The network, with a loss in which samples count by their weights."""

    def __init__(self, run: HidingRun) -> None:
        super().__init__()
        self.run, self.model, self.losses = run, network(), []

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        return self.model(images)

    def training_step(self, identified: IdentifiedBatch, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch, and the statistics of its samples for the callback."""
        ids, (images, labels) = identified
        logits = self(images)
        loss = mean_loss(nn.functional.cross_entropy(logits, labels, reduction="none"), self.run.weights_of(ids))
        self.losses.append(loss.item())
        return {"loss": loss, "statistics": single_label_statistics(logits, labels)}

    def configure_optimizers(self) -> dict[str, Any]:
        """A schedule for epochs with nothing hidden; the callback keeps it in step with shorter ones."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(dataset: Dataset, policy: HidingPolicy, folder: Path, epochs: int, **options: Any) -> Classifier:
    """Train a network, from the newest checkpoint of the folder if there is one."""
    run = HidingRun(len(dataset), policy)
    loader = VisibleLoader(dataset, run, BATCH_SIZE, drop_last=True)
    module = Classifier(run)
    hiding = HidingCallback(loader, lambda model, batch: single_label_statistics(model(batch[0]), batch[1]))
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=SAVE_EVERY, enable_version_counter=False)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[hiding, saving],
        reload_dataloaders_every_n_epochs=1,  # a shorter epoch has another length
        logger=False,
        **options,
    )
    checkpoint = folder / "last.ckpt"
    trainer.fit(module, loader, ckpt_path=checkpoint if checkpoint.exists() else None)
    return module


def main() -> None:
    """Train and test."""
    policy, options = parse(__doc__, "outputs/loop_lightning")
    data, test = digits()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    module = train(data, policy, options.output_dir, options.epochs, devices=processes)
    if module.global_rank == 0:
        run = module.run
        trained = f"{run.trained_samples:,} of {run.replaced_samples:,} samples trained on"
        print(f"{trained}, accuracy {accuracy(module.model, test):.1%}")


if __name__ == "__main__":
    main()
