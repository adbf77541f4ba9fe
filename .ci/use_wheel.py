"""Uses the installed package as a new user would: the command, images from formulas, a training that hides."""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import hf_kakurenbo

PLACE = Path(sysconfig.get_path("purelib"))


def command(*arguments: str) -> str:
    """What the installed command prints."""
    program = Path(sysconfig.get_path("scripts")) / "hf-kakurenbo"
    return subprocess.run([str(program), *arguments], check=True, capture_output=True, text=True).stdout


def train(folder: str) -> hf_kakurenbo.SampleLedger:
    """Train a tiny network to know images of four categories, and hide them."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    images = hf_kakurenbo.load_fdsl("fractaldb-test", image_size=16, points=200, mode="L", as_tensor=True)

    def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([example["image"] for example in examples]).float() / 255
        return {"pixel_values": pixels, "labels": torch.tensor([example["label"] for example in examples])}

    config = ViTConfig(
        image_size=16,
        patch_size=8,
        num_channels=1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=images.categories,
    )
    args = hf_kakurenbo.KakurenboConfig(
        output_dir=folder,
        num_train_epochs=3,
        per_device_train_batch_size=8,
        move_back=False,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    model = ViTForImageClassification(config)
    trainer = hf_kakurenbo.KakurenboTrainer(model=model, args=args, train_dataset=images, data_collator=collate)
    trainer.train()
    return trainer.ledger


if __name__ == "__main__":
    assert PLACE in Path(hf_kakurenbo.__file__).parents, f"{hf_kakurenbo.__file__} is not the installed package"
    assert command("--version") == f"hf-kakurenbo {hf_kakurenbo.__version__}\n"
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "grid.png"
        command("fdsl", "preview", "fractaldb-test", "--image-size", "32", "--out", str(grid))
        assert grid.read_bytes().startswith(b"\x89PNG")
        ledger = train(folder)
    # 32 images, at most 30 %, of which 0.6 in the last third: 5.
    assert int(ledger.hidden.sum()) == 5, ledger.hidden
    print(f"hf_kakurenbo {hf_kakurenbo.__version__} works on Python {sys.version.split()[0]}.")
