"""The presets of `pretrain_fdsl.py`: the figures of the published programs, and what docs/presets.md says of them."""

from dataclasses import fields
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# From the scripts and configuration files that docs/presets.md names: the images, the network, epochs, batch of a GPU,
# warm-up as a fraction or in updates, its first rate, erasing, repeats.
PROGRAMS = {
    "deit-tiny-fractaldb-1k": ("fractaldb-1k", "deit_tiny", 300, 256, 10 / 300, 1e-6, 0.25, 1),
    "vit-base-rcdb-1k": ("rcdb-1k", "deit_base", 300, 64, 5 / 300, 1e-4, 0.25, 3),
    "deit-tiny-visualatom-1k": ("visualatom-1k", "deit_tiny", 300, 64, 5000, 1e-6, 0.25, 3),
    "vit-base-exfractaldb-21k": ("exfractaldb-21k", "deit_base", 90, 64, 5 / 90, 1e-4, 0.25, 3),
    "vit-base-visualatom-21k": ("visualatom-21k", "deit_base", 90, 64, 5000, 1e-6, 0.25, 3),
    "vit-tiny-ofdb2d-1k": ("ofdb2d-1k", "vit_tiny", 80_000, 32, 5 / 80_000, 1e-6, 0.5, 1),
}


@pytest.fixture
def script(example):
    return example("pretrain_fdsl")


def arguments(script, monkeypatch, *options):
    """The arguments as the script reads them: of the model, the formulas, the augmentation, the recipe, training."""
    monkeypatch.setattr("sys.argv", ["pretrain_fdsl.py", *options, "--output_dir", "out", "--use_cpu", "true"])
    classes = (
        *(script.ModelArguments, script.FormulaArguments, script.AugmentationArguments, script.RecipeArguments),
        script.KakurenboConfig,
    )
    return script.parse_arguments(classes, ("fdsl", "preset"), script.TINY_DEFAULTS, script.PRESETS)


def test_every_option_of_a_preset_is_one(script):
    classes = (script.ModelArguments, script.FormulaArguments, script.AugmentationArguments, script.RecipeArguments)
    known = {option.name for kind in (*classes, script.KakurenboConfig) for option in fields(kind)}
    assert set(script.PRESETS) == set(PROGRAMS)
    assert [option for preset in script.PRESETS.values() for option in preset if option not in known] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_presets_have_the_figures_of_the_programs(script, monkeypatch, name):
    model, data, augmentation, recipe, args = arguments(script, monkeypatch, "--preset", name, "--bf16", "false")
    images, network, epochs, batch, warmup, first, erasing, repeats = PROGRAMS[name]
    assert (data.fdsl, model.timm_model) == (images, f"{network}_patch16_224")
    assert (args.num_train_epochs, args.per_device_train_batch_size) == (epochs, batch)
    assert (args.warmup_steps, recipe.warmup_learning_rate) == (pytest.approx(warmup), first)
    assert (augmentation.random_erasing, recipe.repeated_augmentation) == (erasing, repeats)
    assert (recipe.min_learning_rate, args.weight_decay, recipe.decay_tokens) == (1e-5, 0.05, False)
    assert (args.max_grad_norm, args.dataloader_drop_last) == (0.0, True)
    assert (augmentation.mixup, augmentation.cutmix, args.label_smoothing_factor) == (0.8, 1.0, 0.1)
    assert (model.drop_path, data.image_size, data.draw_size, data.points) == (0.1, 224, None, None)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        (["--preset", "deit-tiny-fractaldb-1k"], 1.5e-4),
        (["--preset", "deit-tiny-fractaldb-1k", "--per_device_train_batch_size", "1024"], 6e-4),
        (["--preset", "deit-tiny-fractaldb-1k", "--learning_rate", "1e-2"], 1e-2),
        (["--preset", "vit-base-visualatom-21k"], 1e-3),
    ],
)
def test_the_learning_rate_is_of_the_whole_batch(script, monkeypatch, options, rate):
    *_, recipe, args = arguments(script, monkeypatch, *options, "--bf16", "false")
    recipe.set_learning_rate(args)
    assert args.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize("page", ["presets.md", "pipeline.md"])
def test_the_pages_name_every_preset(script, page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert [name for name in script.PRESETS if f"| `{name}` |" not in text] == []
