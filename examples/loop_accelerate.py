"""A loop with Accelerate that hides, and accumulates gradients: resumed where it was killed, on one process or several.

Handwritten digits, a small network, InfoBatch, whose weights the loop applies. Nothing is downloaded; it takes seconds
on a CPU. Model and optimizer are prepared as ever. The loader shares its batches among the ranks by itself.

    python examples/loop_accelerate.py
    accelerate launch --config_file examples/accelerate_configs/two_cpu_processes.yaml examples/loop_accelerate.py
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch
from _loops import accuracy, digits, mean_loss, network, parse
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from hf_kakurenbo.data import VisibleLoader
from hf_kakurenbo.hiding import AlignedScheduler, HidingPolicy, HidingRun, forward_only, single_label_statistics

BATCH_SIZE, ACCUMULATION, SAVE_EVERY = 24, 2, 10


def train(
    dataset: Dataset, policy: HidingPolicy, folder: Path, epochs: int, accelerator: Accelerator
) -> tuple[nn.Module, HidingRun, list[float]]:
    """Train a network, from the checkpoint of the folder if there is one; it, the run, and the losses on this rank."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    run = HidingRun(len(dataset), policy, accelerator.device)
    loader = VisibleLoader(dataset, run, BATCH_SIZE, drop_last=True, device=accelerator.device)
    updates = math.ceil(loader.full_batches / ACCUMULATION)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * updates)
    scheduler = AlignedScheduler(schedule, optimizer)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(run, scheduler)
    checkpoint = folder / "checkpoint"
    if checkpoint.exists():
        accelerator.load_state(str(checkpoint))

    losses = []
    for epoch in range(run.next_epoch, epochs):
        if loader.begin_epoch(epoch, progress=epoch / epochs):  # a new one, and none that continues
            scheduler.begin_epoch(math.ceil(len(loader) / ACCUMULATION), updates, run.lr_scale)
        for ids, (images, labels) in loader:
            with accelerator.accumulate(model):
                logits = model(images)
                loss = mean_loss(nn.functional.cross_entropy(logits, labels, reduction="none"), run.weights_of(ids))
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                scheduler.step()
            run.record(ids, single_label_statistics(logits, labels))
            run.batches_done += 1
            losses.append(loss.item())
            if run.batches_done % SAVE_EVERY == 0:
                save(accelerator, checkpoint)
        run.finish_epoch()
        if epoch + 1 < epochs and run.wants_refresh():
            bare = accelerator.unwrap_model(model)
            with run.refreshing() as chosen, forward_only(bare), accelerator.autocast():
                for ids, (images, labels) in loader.batches_of(chosen):
                    run.record(ids, single_label_statistics(bare(images), labels))
        save(accelerator, checkpoint)
    return accelerator.unwrap_model(model), run, losses


def save(accelerator: Accelerator, checkpoint: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    beside = checkpoint.with_suffix(".part")
    accelerator.save_state(str(beside))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(checkpoint, ignore_errors=True)
        beside.rename(checkpoint)
    accelerator.wait_for_everyone()


def main() -> None:
    """Train and test."""
    policy, options = parse(__doc__, "outputs/loop_accelerate")
    accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATION)
    data, test = digits()
    model, run, _ = train(data, policy, options.output_dir, options.epochs, accelerator)
    trained = f"{run.trained_samples:,} of {run.replaced_samples:,} samples trained on"
    accelerator.print(f"{trained}, accuracy {accuracy(model.cpu(), test):.1%}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
