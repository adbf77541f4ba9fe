"""What pre-training on formulas does as the papers' programs: schedule, weight decay, repeated augmentation, memory."""

import math
import pickle

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from transformers import TimmWrapperForImageClassification

from hf_kakurenbo import KakurenboConfig, load_fdsl

pytestmark = pytest.mark.usefixtures("examples_on_the_path")


@pytest.fixture
def parts(example):
    return example("_formula_trainer"), example("_augmentation")


def make_trainer(parts, folder, categories=4, recipe=None, augmentation=None, instances=8, validation=2, **arguments):
    trainers, augmenting = parts
    recipe = recipe or trainers.RecipeArguments()
    augmentation = augmentation or augmenting.AugmentationArguments()
    options = {"image_size": 16, "draw_size": 16, "points": 30, "mode": "L", "as_tensor": True}
    images = [
        load_fdsl("exfractaldb-1k", split, categories=categories, instances=count, **options)
        for split, count in (("train", instances), ("validation", validation))
    ]
    from _timm import timm_config

    names = images[0].features["label"].names
    model = TimmWrapperForImageClassification(timm_config("test_vit", 16, names, {"patch_size": 8}))
    args = KakurenboConfig(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        save_strategy="no",
        **arguments,
    )
    recipe.set_learning_rate(args)
    return trainers.FormulaTrainer(
        model=model,
        args=args,
        recipe=recipe,
        train_dataset=images[0],
        eval_dataset=images[1],
        data_collator=augmenting.ByteCollator(augmentation, 16, training=True),
        eval_collator=augmenting.ByteCollator(augmentation, 16, training=False),
        finish=augmenting.FinishedBatches(augmentation, categories),
        compute_loss_func=augmenting.soft_cross_entropy if augmentation.mixes else None,
    )


def test_what_evaluation_keeps_does_not_grow_with_the_categories(parts, tmp_path):
    """The logits of 21,000 categories times 2 images in each would be 3.5 GB, of 100 in each 176 GB."""
    kept = {}
    for categories, each in ((4, 30), (60, 2)):
        trainer = make_trainer(parts, tmp_path, categories, validation=each, eval_accumulation_steps=2)
        trainer.compute_metrics = lambda prediction, categories=categories: (
            kept.update({categories: prediction.predictions}) or {}
        )
        trainer.evaluate()
    assert {predictions.nbytes for predictions in kept.values()} == {120 * 8}
    assert all(predictions.shape == (120,) for predictions in kept.values())


def test_accuracy_is_of_the_best_guesses(parts, tmp_path):
    trainer = make_trainer(parts, tmp_path)
    output = trainer.predict(trainer.eval_dataset)
    model = trainer.model.eval()
    batch = trainer.finish(trainer.eval_collator([trainer.eval_dataset[i] for i in range(len(trainer.eval_dataset))]))
    with torch.no_grad():
        guesses = model(pixel_values=batch["pixel_values"]).logits.argmax(1)
    assert output.predictions.tolist() == guesses.tolist()
    assert output.metrics["test_accuracy"] == (guesses == batch["labels"]).float().mean().item()


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_weights_without_decay_are_those_of_timm(parts, tmp_path, name):
    trainer = make_trainer(parts, tmp_path, recipe=parts[0].RecipeArguments(decay_tokens=False))
    network = timm.create_model(name, num_classes=3)
    spared = network.no_weight_decay()
    wanted = {key for key, weight in network.named_parameters() if weight.ndim > 1 and key not in spared}
    assert set(trainer.get_decay_parameter_names(network)) == wanted
    trainer.recipe.decay_tokens = True
    assert set(trainer.get_decay_parameter_names(network)) == wanted | {"cls_token", "pos_embed"}


@given(
    updates=st.integers(2, 300),
    warmup=st.floats(0, 0.9),
    first=st.floats(0, 0.5),
    least=st.floats(0, 0.5),
)
def test_the_schedule_is_that_of_timm(updates, warmup, first, least):
    from _formula_trainer import timm_cosine

    warmup = int(warmup * updates)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    wanted = CosineLRScheduler(
        optimizer, updates, lr_min=least * 0.5, warmup_t=warmup, warmup_lr_init=first * 0.5, t_in_epochs=False
    )
    for update in range(updates):
        found = 0.5 * timm_cosine(update, updates, warmup, first, least)
        assert math.isclose(found, wanted._get_lr(update)[0], rel_tol=1e-9, abs_tol=1e-12)


def test_the_optimizer_has_the_rates_of_the_recipe(parts, tmp_path):
    recipe = parts[0].RecipeArguments(base_learning_rate=3e-4, min_learning_rate=1e-5, warmup_learning_rate=1e-6)
    trainer = make_trainer(
        parts,
        tmp_path,
        recipe=recipe,
        per_device_train_batch_size=8,
        num_train_epochs=5,
        warmup_steps=4,
        logging_steps=1,
        hiding_policy="none",
    )
    rate = 3e-4 * 8 / 512
    assert trainer.args.learning_rate == pytest.approx(rate)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    first, least = 1e-6 / rate, 1e-5 / rate
    wanted = [rate * parts[0].timm_cosine(update, 20, 4, first, least) for update in range(20)]
    assert rates == pytest.approx(wanted)


def test_a_learning_rate_that_is_given_stays(parts):
    args = KakurenboConfig(output_dir="out", learning_rate=1e-2, use_cpu=True)
    parts[0].RecipeArguments(base_learning_rate=3e-4).set_learning_rate(args)
    assert args.learning_rate == 1e-2


@given(images=st.integers(1, 2000), repeats=st.integers(1, 4), batch=st.integers(1, 300), epoch=st.integers(0, 5))
def test_repeated_augmentation(images, repeats, batch, epoch):
    from _formula_trainer import RepeatedSampler

    sampler = RepeatedSampler(images, repeats, batch, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert order == list(sampler)
    assert len(order) == len(sampler) == (images // 256 * 256 or images)
    counts = np.bincount(order, minlength=images)
    assert counts.max() <= repeats
    assert (counts > 0).sum() <= math.ceil(len(order) / repeats) + sampler.at_once
    whole = sampler.at_once * repeats
    for start in range(0, len(order) - whole, whole):
        assert set(np.bincount(order[start : start + whole])) <= {0, repeats}


@pytest.mark.parametrize("policy", ["none", "kakurenbo"])
def test_repeated_images_are_trained_on(parts, tmp_path, policy):
    trainer = make_trainer(
        parts,
        tmp_path,
        categories=40,
        instances=16,
        recipe=parts[0].RecipeArguments(repeated_augmentation=3),
        augmentation=parts[1].AugmentationArguments(augment=True, mixup=0.8, cutmix=1.0),
        hiding_policy=policy,
        move_back=False,
        num_train_epochs=3,
        per_device_train_batch_size=48,
        dataloader_drop_last=True,
        max_grad_norm=0.0,
    )
    trainer.train()
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])
    epochs = 3 * (512 // 48)
    assert trainer.state.global_step == epochs if policy == "none" else 0 < trainer.state.global_step <= epochs


def test_finished_batches(parts):
    """By hand: normalised, smoothed where mixed, evaluation untouched; an odd batch stays odd."""
    augmentation = parts[1].AugmentationArguments(
        augment=True, mixup=0.8, cutmix=1.0, pixel_mean=[0.2, 0.3, 0.4], pixel_std=[0.5, 0.25, 1.0]
    )
    finish = parts[1].FinishedBatches(augmentation, num_classes=3, label_smoothing=0.1)
    gray = torch.full((5, 1, 4, 4), 102, dtype=torch.uint8)
    batch = {"pixel_values": gray, "labels": torch.arange(5) % 3, "sample_id": torch.arange(5)}
    evaluated = finish({**batch, "augmented": torch.zeros(5, dtype=torch.bool)})
    assert set(evaluated) == {"pixel_values", "labels", "sample_id"}
    assert evaluated["pixel_values"][0, :, 0, 0].tolist() == pytest.approx([0.4, 0.4, 0.0], abs=1e-6)
    assert evaluated["labels"] is batch["labels"]
    np.random.seed(0)
    trained = finish({**batch, "augmented": torch.ones(5, dtype=torch.bool)})
    assert trained["pixel_values"].shape == (5, 3, 4, 4)
    assert trained["labels"].shape == (5, 3)
    assert trained["labels"].sum(1).tolist() == pytest.approx([1.0] * 5)
    assert trained["labels"].min() == pytest.approx(0.1 / 3, abs=1e-6)


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_mixing_without_copies_is_that_of_timm(parts, options):
    augmentation = parts[1].AugmentationArguments(**options)
    quick = parts[1].FinishedBatches(augmentation, num_classes=4).mix
    plain = timm.data.Mixup(augmentation.mixup, augmentation.cutmix, num_classes=4, label_smoothing=0.0)
    for seed in range(5):
        images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 4
        made = []
        for mix in (quick, plain):
            np.random.seed(seed)
            made.append(mix(images.clone(), labels))
        torch.testing.assert_close(made[0][0], made[1][0])
        torch.testing.assert_close(made[0][1], made[1][1])


@pytest.mark.parametrize("way", ["tensors", "pil"])
def test_collators_reach_workers_that_are_spawned(parts, way):
    arguments = parts[1].AugmentationArguments(augment=True, augment_with=way, mixup=0.8)
    images = load_fdsl("exfractaldb-test", image_size=16, draw_size=16, points=30, as_tensor=way == "tensors")
    collator = pickle.loads(pickle.dumps(parts[1].ByteCollator(arguments, 8, training=True)))
    batch = collator([images[number] for number in range(3)])
    assert batch["pixel_values"].shape == (3, 3, 8, 8)
    assert batch["pixel_values"].dtype == torch.uint8


def test_pil_turns_black_where_no_bits_are_left(parts):
    from PIL import Image

    arguments = parts[1].AugmentationArguments(augment=True, augment_with="pil")
    transform = parts[1]._timm_transform(arguments, 8)
    policy = next(step for step in transform.transforms if hasattr(step, "ops"))
    (posterize,) = (operation for operation in policy.ops if operation.name.startswith("Posterize"))
    posterize.prob, posterize.magnitude, posterize.magnitude_std = 1.0, 10, 0
    assert np.asarray(posterize(Image.new("RGB", (4, 4), (200, 100, 50)))).max() == 0
