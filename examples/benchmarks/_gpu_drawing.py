"""How fast images are drawn on a device, and whether they come as fast as a training takes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from _gpu_stages import Result, Setting
from _trainings import make_vit
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from transformers import PrinterCallback, TrainerCallback

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer, load_fdsl
from hf_kakurenbo.fdsl import FDSLDataset

# Of the data path: the families whose drawing differs.
_OF_PATH = ("fractaldb", "exfractaldb", "rcdb", "visualatom")


def _sizes(setting: Setting) -> tuple[int, int, int]:
    """Image size, images in a batch, batches."""
    return (32, 4, 2) if setting.rehearse else (224, 256, 6)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _images_per_second(one: Callable[[], Any], images: int, batches: int, device: str) -> list[float]:
    """Of each batch after one that is not counted."""
    rates = []
    for _ in range(batches + 1):
        _synchronize(device)
        started = time.perf_counter()
        one()
        _synchronize(device)
        rates.append(images / (time.perf_counter() - started))
    return rates[1:]


def _load(setting: Setting, family: str, image_size: int) -> FDSLDataset:
    return load_fdsl(f"{family}-1k", image_size=image_size, as_tensor=True, device=setting.device)


# ---- Drawing ----


def measure_family(setting: Setting, family: str) -> Result:
    """Images a second of whole batches, drawn alone and with their parameters.

    Returns:
        `drawn` and `loaded`, images a second of each batch; `bytes` at the peak of drawing; `on_cpu`, images a second
        of one thread of the CPU.
    """
    size, images, batches = _sizes(setting)
    dataset = _load(setting, family, size)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:images].tolist()
    instances, keys = zip(*(dataset._vary(index) for index in chosen), strict=True)
    draw = partial(dataset.family.render_batch, instances, dataset._drawing, keys, setting.device)
    found: Result = {"drawn": _images_per_second(draw, images, batches, setting.device)}
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        draw()
        found["bytes"] = torch.cuda.max_memory_allocated()
    found["loaded"] = _images_per_second(lambda: dataset.__getitems__(chosen), images, batches, setting.device)
    on_cpu = load_fdsl(dataset.name, image_size=size, as_tensor=True)
    few = chosen[: max(images // 8, 1)]
    found["on_cpu"] = _images_per_second(lambda: [on_cpu[index] for index in few], len(few), 1, "cpu")
    return found


# ---- What trainings take ----


def _vit(setting: Setting, name: str, size: int) -> nn.Module:
    if setting.rehearse:
        return make_vit(size, 8, 1, 16, 2)
    return make_vit(size, 16, 12, *{"DeiT-Tiny": (192, 3), "ViT-S/16": (384, 6)}[name])


def measure_consumption(setting: Setting) -> Result:
    """Images a second that a training takes of a batch that is there already, in half precision, as it is and compiled.

    Returns:
        Images a second of each step, by network.
    """
    size, images, batches = _sizes(setting)
    found: Result = {}
    pixels = torch.rand(images, 3, size, size, device=setting.device)
    labels = torch.arange(images, device=setting.device) % 10
    for name in ("DeiT-Tiny", "ViT-S/16"):
        for compiles in (False, True):
            model = _vit(setting, name, size).to(setting.device)
            backend = "aot_eager" if setting.rehearse else "inductor"
            run = torch.compile(model, backend=backend) if compiles else model
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

            def step(run: Any = run, optimizer: Any = optimizer) -> None:
                with torch.autocast(setting.device, torch.bfloat16):
                    loss = run(pixel_values=pixels, labels=labels).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

            step()
            rates = _images_per_second(step, images, 4 * batches, setting.device)
            found[f"{name}, compiled" if compiles else name] = rates
    return found


# ---- The data path ----


class DeviceAugmentation:
    """Collates images that are on a device into augmented batches there: crops at random, mirrored, erased, normalized.

    All images of a batch are changed at once, each by numbers of its own from the device's generator.

    Args:
        size: of the images that it returns, in pixels.
    """

    MEAN, STD, SMALLEST, ERASED = 0.1, 0.25, 0.5, 0.25

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: `pixel_values` (B, 3, size, size) float32 and `labels` (B,), on the device of the images."""
        images = torch.stack([example["image"] for example in examples]).float().div_(255)
        labels = torch.tensor([example["label"] for example in examples])
        images = self.erased(self.cropped(images)).sub_(self.MEAN).div_(self.STD)
        return {"pixel_values": images, "labels": labels.to(images.device, non_blocking=True)}

    def cropped(self, images: Tensor) -> Tensor:
        """A square of at least `SMALLEST` of each side, at random, mirrored at random, resized."""
        count, device = len(images), images.device
        scale = self.SMALLEST + (1 - self.SMALLEST) * torch.rand(count, device=device)
        shift = (2 * torch.rand(count, 2, device=device) - 1) * (1 - scale).unsqueeze(1)
        mirrored = 1 - 2.0 * (torch.rand(count, device=device) < 0.5)
        nothing = torch.zeros_like(scale)
        rows = torch.stack([scale * mirrored, nothing, shift[:, 0], nothing, scale, shift[:, 1]], dim=1)
        grid = functional.affine_grid(rows.view(count, 2, 3), [count, 3, self.size, self.size], align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)

    def erased(self, images: Tensor) -> Tensor:
        """A rectangle of a quarter of each side at random, in some of the images."""
        count, device, side = len(images), images.device, self.size // 4
        corner = torch.rand(2, count, 1, device=device) * (self.size - side)
        place = torch.arange(self.size, device=device)
        down, right = ((place >= start) & (place < start + side) for start in corner)
        chosen = torch.rand(count, 1, 1, device=device) < self.ERASED
        inside = (down.unsqueeze(2) & right.unsqueeze(1) & chosen).unsqueeze(1)
        return images.masked_fill(inside, 0.0)


def measure_data_path(setting: Setting) -> Result:
    """Images a second from formulas, drawn and augmented on the device: loaded alone, and trained on.

    Returns:
        By family: `loaded`, images a second of each batch of a loader; `trained`, of an epoch of DeiT-Tiny with nothing
        hidden; `hiding`, how long an epoch with 30 % hidden takes as a fraction of that one.
    """
    size, images, batches = _sizes(setting)
    found: Result = {}
    for family in _OF_PATH:
        dataset = _load(setting, family, size)
        part = Subset(dataset, np.random.default_rng(0).permutation(len(dataset))[: images * 2 * batches].tolist())
        loader = iter(DataLoader(part, images, collate_fn=DeviceAugmentation(size)))
        loaded = _images_per_second(partial(next, loader), images, batches, setting.device)
        found[family] = {"loaded": loaded, **_train_on(setting, part, size, images)}
    return found


class EpochClock(TrainerCallback):
    """Notes when epochs end, all that is done on the device included, and the refresh.

    Args:
        device: which.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note it."""
        _synchronize(self.device)
        self.ends.append(time.perf_counter())


def _train_on(setting: Setting, images: Any, size: int, batch: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        args = KakurenboConfig(
            output_dir=folder,
            num_train_epochs=4,
            hiding_warmup_epochs=2,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            bf16=True,
            use_cpu=setting.rehearse,
            max_hidden_fraction=0.3,
            fraction_factors=[1.0],
            fraction_milestones=[0.0],
            move_back=False,
            dataloader_pin_memory=False,  # what is on the device is not to be pinned
            remove_unused_columns=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        model = (
            make_vit(size, 8, 1, 16, 2, classes=1000)
            if setting.rehearse
            else make_vit(size, 16, 12, 192, 3, classes=1000)
        )
        clock = EpochClock(setting.device)
        trainer = KakurenboTrainer(
            model=model, args=args, train_dataset=images, data_collator=DeviceAugmentation(size), callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        # The first epoch finds what is found once, the last one has no refresh.
        plain, hiding, _ = np.diff(clock.ends).tolist()
        return {"trained": len(images) / plain, "hiding": hiding / plain}
