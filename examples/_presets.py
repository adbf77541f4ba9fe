"""The programs with which the papers pre-trained on images from formulas, as defaults of `pretrain_fdsl.py`.

docs/presets.md compares each with the published one, line by line.
"""

from __future__ import annotations

from typing import Any

# What DeiT (Touvron et al. 2021) and all programs share.
_SHARED: dict[str, Any] = {
    "image_size": 224,
    "augment": True,
    "mixup": 0.8,
    "cutmix": 1.0,
    "drop_path": 0.1,
    "label_smoothing_factor": 0.1,
    "lr_scheduler_type": "cosine",
    "min_learning_rate": 1e-5,
    "weight_decay": 0.05,
    "decay_tokens": False,
    "max_grad_norm": 0.0,
    "dataloader_drop_last": True,
    "eval_accumulation_steps": 16,
    "bf16": True,
    "dataloader_num_workers": 12,
    "dataloader_persistent_workers": True,
    "ddp_find_unused_parameters": False,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 100,
}
# Nakashima et al., AAAI 2022, arXiv 2103.13023: github.com/nakashima-kodai/FractalDB-Pretrained-ViT-PyTorch.
_NAKASHIMA = {
    **_SHARED,
    "num_train_epochs": 300,
    "warmup_learning_rate": 1e-6,
    "pixel_mean": [0.5],
    "pixel_std": [0.5],
}
# Kataoka et al., CVPR 2022, arXiv 2206.09132: github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch. It takes mean and
# standard deviation from timm 0.4.12, whose DeiT has those of ImageNet, and its first rate from timm's defaults.
_KATAOKA = {
    **_SHARED,
    "learning_rate": 1e-3,
    "warmup_learning_rate": 1e-4,
    "per_device_train_batch_size": 64,
    "pixel_mean": [0.485, 0.456, 0.406],
    "pixel_std": [0.229, 0.224, 0.225],
    "repeated_augmentation": 3,
    "streaming": False,
}
_ON_4_GPUS = {**_KATAOKA, "num_train_epochs": 300, "warmup_steps": 5 / 300}
_ON_128_GPUS = {**_KATAOKA, "timm_model": "deit_base_patch16_224", "num_train_epochs": 90, "warmup_steps": 5 / 90}
# Takashima et al., CVPR 2023, arXiv 2303.01112: github.com/masora1030/CVPR2023-FDSL-on-VisualAtom.
_TAKASHIMA = {"warmup_learning_rate": 1e-6, "warmup_steps": 5000}

PRESETS: dict[str, dict[str, Any]] = {
    # A batch of 1,024 on 4 GPUs.
    "deit-tiny-fractaldb-1k": {
        **_NAKASHIMA,
        "fdsl": "fractaldb-1k",
        "timm_model": "deit_tiny_patch16_224",
        "warmup_steps": 10 / 300,
        "base_learning_rate": 3e-4,
        "per_device_train_batch_size": 256,
    },
    # A batch of 256 on 4 GPUs.
    "vit-base-rcdb-1k": {**_ON_4_GPUS, "fdsl": "rcdb-1k", "timm_model": "deit_base_patch16_224"},
    "deit-tiny-visualatom-1k": {
        **_ON_4_GPUS,
        **_TAKASHIMA,
        "fdsl": "visualatom-1k",
        "timm_model": "deit_tiny_patch16_224",
    },
    # A batch of 8,192 on 128 GPUs.
    "vit-base-exfractaldb-21k": {**_ON_128_GPUS, "fdsl": "exfractaldb-21k"},
    "vit-base-visualatom-21k": {**_ON_128_GPUS, **_TAKASHIMA, "fdsl": "visualatom-21k"},
    # Nakamura et al., ICCV 2023, arXiv 2307.14710: github.com/ryoo-nakamura/OFDB. A batch of 256 on 8 GPUs: 3 updates
    # in an epoch, of which the program keeps every ten-thousandth.
    "vit-tiny-ofdb2d-1k": {
        **_NAKASHIMA,
        "fdsl": "ofdb2d-1k",
        "timm_model": "vit_tiny_patch16_224",
        "num_train_epochs": 80_000,
        "warmup_steps": 5 / 80_000,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 32,
        "random_erasing": 0.5,
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "save_strategy": "steps",
        "save_steps": 30_000,
    },
}
