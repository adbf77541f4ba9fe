"""A plain PyTorch loop that hides: no Trainer, no Accelerate; resumed where it was killed, on one process or several.

Handwritten digits, a small network, InfoBatch, whose weights the loop applies. Nothing is downloaded; it takes seconds
on a CPU. Kill it and run it again: it continues with the update that was next.

    python examples/loop_pytorch.py
    python examples/loop_pytorch.py --policy kakurenbo --epochs 20
    torchrun --nproc_per_node 2 examples/loop_pytorch.py
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from _loops import accuracy, digits, mean_loss, network, parse
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from hf_kakurenbo.data import VisibleLoader
from hf_kakurenbo.hiding import AlignedScheduler, HidingPolicy, HidingRun, forward_only, single_label_statistics

BATCH_SIZE, SAVE_EVERY = 48, 10


def train(
    dataset: Dataset, policy: HidingPolicy, folder: Path, epochs: int
) -> tuple[nn.Module, HidingRun, list[float]]:
    """Train a network, from the checkpoint of the folder if there is one; it, the run, and the losses on this rank."""
    model = network()
    wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    run = HidingRun(len(dataset), policy)
    loader = VisibleLoader(dataset, run, BATCH_SIZE, drop_last=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * loader.full_batches)
    scheduler = AlignedScheduler(schedule, optimizer)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "run": run}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        for name, state in torch.load(checkpoint, weights_only=True).items():
            parts[name].load_state_dict(state)

    losses = []
    for epoch in range(run.next_epoch, epochs):
        if loader.begin_epoch(epoch, progress=epoch / epochs):  # a new one, and none that continues
            scheduler.begin_epoch(len(loader), loader.full_batches, run.lr_scale)
        for ids, (images, labels) in loader:
            logits = wrapped(images)
            loss = mean_loss(nn.functional.cross_entropy(logits, labels, reduction="none"), run.weights_of(ids))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            run.record(ids, single_label_statistics(logits, labels))
            run.batches_done += 1
            losses.append(loss.item())
            if run.batches_done % SAVE_EVERY == 0:
                save(parts, checkpoint)
        run.finish_epoch()
        if epoch + 1 < epochs and run.wants_refresh():
            with run.refreshing() as chosen, forward_only(model):
                for ids, (images, labels) in loader.batches_of(chosen):
                    run.record(ids, single_label_statistics(model(images), labels))
        save(parts, checkpoint)
    return model, run, losses


def save(parts: dict, checkpoint: Path) -> None:
    """Write the states of all parts, whole or not at all. Every rank has a say in that of the run; one writes."""
    states = {name: part.state_dict() for name, part in parts.items()}
    if not dist.is_initialized() or dist.get_rank() == 0:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(states, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)


def main() -> None:
    """Train and test."""
    policy, options = parse(__doc__, "outputs/loop_pytorch")
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    data, test = digits()
    model, run, _ = train(data, policy, options.output_dir, options.epochs)
    if not dist.is_initialized() or dist.get_rank() == 0:
        trained = f"{run.trained_samples:,} of {run.replaced_samples:,} samples trained on"
        print(f"{trained}, accuracy {accuracy(model, test):.1%}")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
