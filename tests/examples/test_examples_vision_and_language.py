"""The examples of segmentation, language modelling and instruction tuning, reduced to seconds; and their parts."""

import hashlib
import importlib
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import PeftConfig, PeftModel
from PIL import Image
from sklearn.metrics import jaccard_score
from test_examples import EXAMPLES, REFRESHED, SMALL, THREE_EPOCHS, TRAINED, command, results, together
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSemanticSegmentation,
    AutoTokenizer,
    EvalPrediction,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.fdsl import load_fdsl_segmentation

SEGMENTATION, CAUSAL, MASKED, SFT = "segmentation", "causal", "masked", "sft"
JOBS = {
    SEGMENTATION: ["semantic_segmentation.py"],
    CAUSAL: ["language_modeling.py"],
    MASKED: ["language_modeling.py", "--objective", "masked"],
    SFT: ["sft_lora.py", "--reading_steps", "20"],
}
TITLE = {
    SEGMENTATION: "mean IoU",
    CAUSAL: "perplexity (lower is better)",
    MASKED: "perplexity (lower is better)",
    SFT: "token accuracy",
}
SCORE = {
    SEGMENTATION: "eval_mean_iou",
    CAUSAL: "eval_perplexity",
    MASKED: "eval_perplexity",
    SFT: "eval_mean_token_accuracy",
}
# Every loss of every step is compared, not that of an epoch; batches of one size make as many steps of each script.
EACH_STEP = ["--logging_strategy", "steps", "--logging_steps", "1", "--per_device_train_batch_size", "32"]
# Runs one script after another, each as if it were alone, without loading the libraries for each.
ONE_AFTER_ANOTHER = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""


def with_base_class(script, folder):
    """A copy of a script that trains with the trainer of Transformers, or of TRL."""
    source = (EXAMPLES / script).read_text(encoding="utf-8")
    source = source.replace("import KakurenboConfig, KakurenboTrainer", "import KakurenboConfig")
    source = source.replace("return KakurenboTrainer(", "return Trainer(")
    source = source.replace("(KakurenboMixin, SFTTrainer)", "(SFTTrainer)")
    assert not re.search(r"KakurenboTrainer|\(KakurenboMixin", source)
    (folder / script).write_text(source, encoding="utf-8")
    return str(folder / script)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """All jobs without arguments, with our trainer and with the one below: what was said, and two folders."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    small = [*SMALL, *THREE_EPOCHS, *EACH_STEP]
    plain = [
        [
            with_base_class(script, theirs),
            *options,
            *small,
            "--hiding_policy",
            "none",
            "--output_dir",
            str(theirs / job),
        ]
        for job, (script, *options) in JOBS.items()
    ]
    commands = [[sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(plain)]]
    commands += [command(*arguments, *small, "--output_dir", job) for job, arguments in JOBS.items()]
    done = together(commands, ours, PYTHONPATH=str(EXAMPLES))
    for each in done:
        assert each.returncode == 0, each.stderr
    return dict(zip(JOBS, done[1:], strict=True)), ours, theirs


def shown(job, value):
    return f"{value:,.4g}" if job in (CAUSAL, MASKED) else f"{value:.2%}"


@pytest.mark.wide
@pytest.mark.parametrize("job", JOBS)
def test_the_table_says_what_was_measured(jobs, job):
    done, folder, _ = jobs
    _, _, rest = done[job].stdout.partition(f"{'with hiding':>18}{'without hiding':>18}\n")
    assert rest, "there is no table"
    rows = {name: cells for name, *cells in (re.split(r"\s{2,}", line) for line in rest.splitlines()[1:5])}
    hiding, plain = results(folder / job), results(folder / job / "without_hiding")
    assert list(rows) == [TITLE[job], "samples backpropagated", "samples forward-only", "wall time"]
    assert rows[TITLE[job]] == [shown(job, each[SCORE[job]]) for each in (hiding, plain)]
    assert rows["samples backpropagated"] == [str(hiding["kakurenbo/trained_samples"]), "360"] == [str(TRAINED), "360"]
    assert rows["samples forward-only"] == [str(hiding["kakurenbo/refreshed_samples"]), "0"] == [str(REFRESHED), "0"]
    assert [line for line in done[job].stdout.splitlines() if len(line) > 80] == []
    assert done[job].stdout.startswith("World size 1 | F = 0.3 | global batch 32 | seed 42 | cpu\n")


@pytest.mark.wide
@pytest.mark.parametrize("job", JOBS)
def test_with_nothing_hidden_it_is_the_trainer_below(jobs, job):
    _, ours, theirs = jobs
    logs, weights = [], []
    for folder in (ours / job / "without_hiding", theirs / job):
        history = [entry for entry in results(folder, "trainer_state.json")["log_history"] if "loss" in entry]
        logs.append([(entry["loss"], entry["grad_norm"], entry["learning_rate"]) for entry in history])
        name = "adapter_model.safetensors" if job == SFT else "model.safetensors"
        weights.append((folder / name).read_bytes())
    assert len(logs[0]) == 3 * 4
    assert logs[0] == logs[1]
    assert weights[0] == weights[1]


@pytest.mark.wide
@pytest.mark.parametrize("job", JOBS)
def test_what_is_saved_loads_back(jobs, job):
    _, folder, _ = jobs
    saved = folder / job
    if job == SEGMENTATION:
        model = AutoModelForSemanticSegmentation.from_pretrained(saved)
        assert list(model.config.id2label.values()) == ["ground", "disc", "three waves", "five waves", "eight waves"]
        assert model.config.semantic_loss_ignore_index == 255
        return
    auto_class = AutoModelForMaskedLM if job == MASKED else AutoModelForCausalLM
    if job == SFT:
        # The adapters name the model below them, a folder beside them.
        assert PeftConfig.from_pretrained(saved).base_model_name_or_path == "sft/before"
        base = AutoModelForCausalLM.from_pretrained(saved / "before")
        before = base.get_output_embeddings().weight.clone()
        model = PeftModel.from_pretrained(base, saved)
        assert any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)
        assert torch.equal(model.get_output_embeddings().weight, before)
        return
    model, loading = auto_class.from_pretrained(saved, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert max(AutoTokenizer.from_pretrained(saved)("The for statement")["input_ids"]) < model.config.vocab_size


@pytest.mark.wide
def test_perplexity_is_the_exponential_of_the_loss(jobs, example):
    _, folder, _ = jobs
    for job in (CAUSAL, MASKED):
        found = results(folder / job)
        assert found["eval_perplexity"] == pytest.approx(math.exp(found["eval_loss"]))
    assert example("language_modeling").perplexity({"eval_loss": 1000.0}) == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["language_modeling.py", "--objective", "both"], "--objective must be 'causal' or 'masked', got 'both'"),
        (["language_modeling.py", "--block_size", "1"], "--block_size must be at least 2, got 1"),
        (["language_modeling.py", "--mlm_probability", "1"], r"--mlm_probability must be in \(0, 1\), got 1.0"),
        (
            ["language_modeling.py", "--train_file", "a.csv"],
            "no column 'text'; it has: review. Name the right one with",
        ),
        (
            ["language_modeling.py", "--train_file", "a.csv", "--text_column_name", "review", "--block_size", "999"],
            "The texts do not fill one block of 999 tokens",
        ),
    ],
)
def test_wrong_arguments_end_with_a_message(options, message, last_words, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("review\n" + "good\n" * 10, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert re.search(message, last_words(*options))
    assert not (tmp_path / "out").exists()


@pytest.mark.wide
def test_a_model_without_a_mask_cannot_be_asked_for_masked_tokens(jobs, last_words, tmp_path, monkeypatch):
    _, folder, _ = jobs
    monkeypatch.chdir(tmp_path)
    said = last_words("language_modeling.py", "--objective", "masked", "--model_name_or_path", str(folder / CAUSAL))
    assert "has no token for what is masked; train it with --objective causal" in said


def test_without_trl_it_says_what_to_install(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "sft_lora", raising=False)
    with pytest.raises(SystemExit, match=r"needs TRL and PEFT: `pip install 'trl>=1\.16' peft`"):
        example("sft_lora")


# ---- Scenes ----


def test_a_scene_is_a_function_of_its_number(example):
    module = example("_scenes")
    first = [module.draw_scene(index, 48, seed=3) for index in (0, 61, 7)]
    again = [module.draw_scene(index, 48, seed=3) for index in (7, 61, 0)]
    for one, other in zip(first, reversed(again), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(first[0].image, module.draw_scene(0, 48, seed=4).image)
    assert not np.array_equal(first[0].image, first[1].image)
    dataset = module.scenes(3, 48)
    assert np.array_equal(np.asarray(dataset[2]["image"]), module.draw_scene(2, 48).image)
    assert np.array_equal(np.asarray(dataset[2]["label"]), module.draw_scene(2, 48).mask)


@pytest.mark.wide
def test_scenes_are_the_same_in_another_process(example):
    program = (
        f"import sys, hashlib; sys.path.insert(0, {str(EXAMPLES)!r}); from _scenes import draw_scene\n"
        "scene = draw_scene(5, 64); print(hashlib.sha256(scene.image.tobytes() + scene.mask.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    scene = example("_scenes").draw_scene(5, 64)
    assert done.stdout.strip() == hashlib.sha256(scene.image.tobytes() + scene.mask.tobytes()).hexdigest()


def test_the_mask_is_where_the_objects_are(example):
    module = example("_scenes")
    found = set()
    for index in range(60):
        scene = module.draw_scene(index, 64)
        assert scene.image.shape == (64, 64, 3)
        assert scene.mask.shape == (64, 64)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        drawn = (scene.image != scene.ground).any(axis=2)
        assert not (drawn & (scene.mask == 0)).any()
        # An object may by chance have the colour of the ground below it.
        assert (drawn | (scene.mask == 0)).mean() > 0.999
        found |= set(np.unique(scene.mask).tolist())
        assert_bordered(scene.mask, module.IGNORED)
    assert found == {0, 1, 2, 3, 4, module.IGNORED}


def assert_bordered(mask, ignored):
    """Between pixels of different classes lies a border."""
    for one, other in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1])):
        assert not ((one != other) & (one != ignored) & (other != ignored)).any()


def test_the_class_is_the_number_of_waves(example, monkeypatch):
    module = example("_scenes")
    monkeypatch.setattr(module, "MOST_OBJECTS", 1)
    seen = set()
    for index in range(40):
        mask = module.draw_scene(index, 256).mask
        rows, columns = np.nonzero(mask)
        if len(rows) == 0 or min(rows.min(), columns.min()) == 0 or max(rows.max(), columns.max()) == 255:
            continue  # no object, or one that leaves the image
        (number,) = set(np.unique(mask).tolist()) - {0, module.IGNORED}
        seen.add(number)
        assert number_of_waves(mask > 0) == module.WAVES[number - 1]
    assert seen == {1, 2, 3, 4}


def number_of_waves(shape):
    """The frequency that the radius of a shape has most of along its contour; 0 if it has none to speak of."""
    rows, columns = np.nonzero(shape)
    y, x = rows - rows.mean(), columns - columns.mean()
    angle = ((np.arctan2(y, x) / (2 * np.pi) % 1) * 64).astype(int)
    radius = np.array([np.hypot(x, y)[angle == each].max() for each in range(64)])
    share = np.abs(np.fft.rfft(radius)) / radius.sum()
    # The first two are of a shape off its centre, and of an ellipse.
    strongest = 3 + int(np.argmax(share[3:12]))
    return strongest if share[strongest] > 0.04 else 0


def test_mean_iou_is_that_of_scikit_learn(example):
    module = example("semantic_segmentation")
    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 4, (2, 3, 8, 8))
    labels[random.random(labels.shape) < 0.2] = 255
    asked = labels != 255
    found = module.mean_iou(EvalPrediction(predicted, labels))
    assert found["mean_iou"] == pytest.approx(jaccard_score(labels[asked], predicted[asked], average="macro"))
    assert found["pixel_accuracy"] == pytest.approx((labels == predicted)[asked].mean())
    # Class 2 is neither there nor predicted, and class 1 is never right.
    found = module.mean_iou(EvalPrediction(np.array([[[0, 3, 1]]]), np.array([[[0, 3, 0]]])))
    assert found["mean_iou"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_masks_and_images_are_mirrored_together(example):
    module = example("semantic_segmentation")
    preparation = module.Preparation(module.DataTrainingArguments(do_reduce_labels=True), size=4)
    mask = np.array([[0, 1, 2, 255]] * 4, dtype=np.uint8)
    row = {"image": [Image.fromarray(np.stack([mask] * 3, axis=2))] * 8, "label": [Image.fromarray(mask)] * 8}
    torch.manual_seed(0)
    batch = preparation.transform(augment=True)(row)
    whole = torch.tensor([255, 0, 1, 255])
    mirrored = [bool((labels == whole.flip(0)).all()) for labels in batch["labels"]]
    assert 0 < sum(mirrored) < 8
    plain = preparation.transform(augment=False)(row)
    for flipped, pixels, labels in zip(mirrored, batch["pixel_values"], batch["labels"], strict=True):
        assert torch.equal(pixels, plain["pixel_values"][0].flip(-1) if flipped else plain["pixel_values"][0])
        assert torch.equal(labels[0], whole.flip(0) if flipped else whole)
    assert labels.dtype == torch.int64
    assert pixels.shape == (3, 4, 4)


def test_classes_of_a_users_masks_are_counted(example):
    module = example("semantic_segmentation")
    masks = [Image.fromarray(np.array(values, dtype=np.uint8)) for values in ([[0, 255]], [[5, 1]])]
    data = DatasetDict(train=Dataset.from_dict({"label": masks}))
    assert module.count_classes(data, module.DataTrainingArguments()) == 6
    assert module.count_classes(data, module.DataTrainingArguments(do_reduce_labels=True)) == 5


def test_images_from_formulas_with_masks_are_trained_on(example, tmp_path):
    module = example("semantic_segmentation")
    transform = module.Preparation(module.DataTrainingArguments(label_column_name="mask"), size=32).transform(True)
    data = load_fdsl_segmentation("segrcdb-test", image_size=64)
    args = KakurenboConfig(
        str(tmp_path),
        per_device_train_batch_size=4,
        num_train_epochs=2,
        report_to="none",
        use_cpu=True,
        hiding_warmup_epochs=0,
        remove_unused_columns=False,
    )
    trainer = KakurenboTrainer(
        model=module.make_model(module.ModelArguments(), list(data.classes)),
        args=args,
        train_dataset=data.with_transform(transform),
        data_collator=module.collate,
    )
    trainer.train()
    assert trainer.state.global_step == 4
    assert torch.isfinite(trainer.ledger.loss).all()
    assert 0 < trainer.ledger.loss.mean() < 2 * math.log(255)


# ---- Blocks of text ----


def test_blocks_are_the_texts_end_to_end(example):
    module = example("language_modeling")
    texts = ["def f(x): return x", "a text", "", "import this"] * 3
    tokenizer = example("_text").train_byte_level_tokenizer(texts, 8, vocab_size=300)
    data = DatasetDict(train=Dataset.from_dict({"text": texts}))
    blocks = module.make_blocks(data, tokenizer, "text", block_size=8, causal=True)["train"]
    tokens = [token for block in blocks["input_ids"] for token in block]
    assert {len(block) for block in blocks["input_ids"]} == {8}
    assert blocks["labels"] == blocks["input_ids"]
    assert "".join(texts).startswith(tokenizer.decode(tokens))
    assert len(tokens) > sum(len(tokenizer(text)["input_ids"]) for text in texts) - 8


def test_validation_is_masked_once_and_training_each_time(example):
    tokenizer = example("_text").train_tokenizer(["some words of a text " * 8], 16, mask_token="[MASK]")
    collator = example("language_modeling").MaskingCollator(tokenizer, 0.3)
    blocks = Dataset.from_dict({"input_ids": [tokenizer("some words of a text " * 3)["input_ids"][:16]] * 6})
    torch.manual_seed(1)
    first = collator.mask_once(blocks)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1)), "the masks of validation change the training"
    second = collator.mask_once(blocks)
    assert first["labels"] == second["labels"]
    assert first["input_ids"] == second["input_ids"]
    assert collator(list(first))["labels"].tolist() == list(first["labels"])
    anew = [collator(list(blocks))["labels"] for _ in range(2)]
    assert not torch.equal(*anew)
    masked = torch.tensor(first["labels"][:]) != -100
    assert 0 < masked.float().mean() < 0.6


def test_questions_are_of_the_standard_library(example):
    module = example("sft_lora")
    questions = module.library_questions()
    assert len(questions) > 1000
    answers = dict(zip(questions["prompt"], questions["completion"], strict=True))
    assert answers["What does math.sqrt do?"] == " Return the square root of x."
    assert all(answer.strip() and "\n" not in answer for answer in answers.values())


# ---- The benchmark ----


def test_the_benchmark_pairs_what_it_compares(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLES / "benchmarks"), str(EXAMPLES), *sys.path])
    module = importlib.import_module("tasks")
    asked = []

    def train(job, seed, epochs, options):
        asked.append((seed, epochs, options.get("hiding_policy")))
        share = 1.0 if options.get("hiding_policy") == "none" else 0.75
        return module.Figures(10 * seed + share, share, 1 - share, 2 * share * epochs)

    monkeypatch.setattr(module, "train", train)
    ways = {module.PLAIN: {"hiding_policy": "none"}, module.DEFAULT: {}}
    found = [module.one_seed(None, ways, seed, epochs=8) for seed in (0, 1)]
    assert asked == [(seed, *each) for seed in (0, 1) for each in ((8, "none"), (8, None), (6, "none"))]
    job = module.Job(None, {}, ("perplexity", None), 2)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in module.table(job, found).splitlines()]
    assert rows[0] == ["", "perplexity", "difference to without hiding", "backpropagated", "forward-only", "time"]
    assert rows[2:] == [
        [module.PLAIN, "6.00 ± 7.07", "", "100.0%", "0.0%", "1"],
        [module.DEFAULT, "5.75 ± 7.07", "-0.25 ± 0.00", "75.0%", "25.0%", "0.75 ± 0.00"],
        [module.SHORTER, "6.00 ± 7.07", "+0.00 ± 0.00", "75.0%", "0.0%", "0.75 ± 0.00"],
    ]


@pytest.mark.wide
@pytest.mark.parametrize("task", ["segmentation", "causal", "masked"])
def test_the_benchmark_runs(task):
    program = [sys.executable, str(EXAMPLES / "benchmarks" / "tasks.py"), task, "--quick"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "| without hiding | " in done.stdout
    assert "| without hiding, shorter | " in done.stdout
