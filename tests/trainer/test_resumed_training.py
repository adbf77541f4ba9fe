"""A resumed training has the rows, the order, the policy and the options that it was saved with, or says what not."""

import itertools
import json
import os
import random
import re
import shutil
import sys
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset, Sampler, Subset
from transformers import Trainer

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.hiding import HidingPolicy, Selection, register_policy
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME
from processes import run_ranks
from stream_toy import NotingTrainer, rows
from toy import (
    LinearClassifier,
    TextClassifier,
    epochs,
    make_trainer,
    pad,
    same_tensors,
    same_weights,
    samples,
    skip_where_ranks_cannot_resume,
    texts,
)

# 7 batches of 32 in a full epoch; from the second on 60 of 203 samples are hidden, which leaves 5 batches.
COUNT, FULL, LATER, EPOCHS = 203, 7, 5, 3
FIRST_EPOCH, MID_EPOCH, SECOND_EPOCH = 3, FULL + 2, FULL + LATER
SAVED = {FIRST_EPOCH, FULL, MID_EPOCH, SECOND_EPOCH}
OPTIONS = {
    "hiding_policy": "first_ids",
    "max_hidden_fraction": 0.3,
    "num_train_epochs": EPOCHS,
    "per_device_train_batch_size": 32,
    "model": LinearClassifier,
}
LOGGER = "hf_kakurenbo"


def wide(value):
    return pytest.param(value, marks=pytest.mark.wide)


def train(folder, checkpoint=None, trainer=NotingTrainer, **options):
    """Train, each batch's ids noted as `batches` by epoch."""
    made = make_trainer(folder, trainer, **{**OPTIONS, "save_strategy": "no", **options})
    made.train(None if checkpoint is None else str(checkpoint))
    return made


class Saving(NotingTrainer):
    """Saves after the updates of which checkpoints are resumed from."""

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        self.control.should_save = self.state.global_step in SAVED
        super()._maybe_log_save_evaluate(*args, **kwargs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Makes a training that was saved after some updates, once for each set of options."""
    made = {}

    def of(dataset=None, **options):
        name = repr(sorted(options.items(), key=str)) + repr(type(dataset))
        if name not in made:
            folder = tmp_path_factory.mktemp("saved")
            dataset = samples() if dataset is None else dataset
            options = {"dataset": dataset, "trainer": Saving, **options}
            made[name] = train(folder, **options), folder
        return made[name]

    return of


def reported(caplog):
    """What the library has warned of."""
    return [record.getMessage() for record in caplog.records if record.name.startswith(LOGGER)]


def refused(folder, checkpoint, trainer=NotingTrainer, **options):
    """The message of a training that is refused before it has made a step."""
    made = make_trainer(folder, trainer, **{**OPTIONS, "save_strategy": "no", **options})
    step = int(checkpoint.name.rpartition("-")[2])
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is what is tested)
        made.train(str(checkpoint))
    assert not getattr(made, "batches", {}), "it has trained"
    assert made.state.global_step == step
    assert str(checkpoint) in str(error.value)
    assert 'hiding_policy="none"' in str(error.value)
    return str(error.value)


# ---- The same training ----

EVERY_KIND = {
    "a list": samples,
    "a table": lambda: rows().remove_columns("sample_id").with_format("torch"),
    "a part": lambda: Subset(samples() * 2, list(range(COUNT))),
}


@pytest.mark.parametrize("step", [wide(FULL), MID_EPOCH, wide(SECOND_EPOCH)])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_with_nothing_changed_nothing_is_said(saved, tmp_path, caplog, kind, step):
    whole, folder = saved(EVERY_KIND[kind]())
    resumed = train(tmp_path, folder / f"checkpoint-{step}", dataset=EVERY_KIND[kind]())
    assert reported(caplog) == []
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


# ---- Rows ----


def shuffled(dataset):
    return [dataset[index] for index in random.Random(1).sample(range(COUNT), COUNT)]


OTHERS = {
    "another dataset": lambda: samples(seed=5),
    "another one with the same labels": lambda: [
        {"x": other["x"], "labels": own["labels"]} for other, own in zip(samples(seed=5), samples(), strict=True)
    ],
    "backwards": lambda: samples()[::-1],
    "shuffled": lambda: shuffled(samples()),
    "sorted": lambda: sorted(samples(), key=lambda sample: int(sample["labels"])),
}


@pytest.mark.parametrize("step", [FULL, wide(MID_EPOCH)])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_rows_are_refused(saved, tmp_path, kind, step):
    _, folder = saved()
    message = refused(tmp_path, folder / f"checkpoint-{step}", dataset=OTHERS[kind]())
    assert "of other rows than the training dataset has, or of the same in another order: the values of 'x'" in message
    assert "Resume with what it was saved with, start a new training from its weights" in message


def test_other_rows_of_a_table_are_refused_whatever_is_made_of_them(saved, tmp_path):
    table = rows().remove_columns("sample_id").with_format("torch")
    _, folder = saved(table)
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    for other in (table.shuffle(seed=1), table.sort("labels"), table.select(range(COUNT - 1, -1, -1))):
        assert "of other rows" in refused(tmp_path, checkpoint, dataset=other)

    def noisy(batch):  # as an augmentation does
        return {"x": [torch.tensor(x) + torch.rand(16) for x in batch["x"]], "labels": batch["labels"]}

    resumed = train(tmp_path, checkpoint, dataset=table.with_transform(noisy), remove_unused_columns=False)
    assert resumed.state.epoch == EPOCHS


def test_with_hiding_off_other_rows_can_be_trained_on(saved, tmp_path):
    _, folder = saved()
    checkpoint = folder / f"checkpoint-{FULL}"
    plain = make_trainer(tmp_path, dataset=samples(seed=5), **{**OPTIONS, "hiding_policy": "none"})
    plain.train(str(checkpoint))
    assert plain.state.epoch == EPOCHS


class Text(LinearClassifier):
    def forward(self, x, labels, name=None):
        return super().forward(x, labels)


def test_the_same_rows_with_other_values_are_reported(saved, tmp_path, caplog):
    named = (
        rows().add_column("name", [f"row {row}" for row in range(COUNT)]).with_format("torch", columns=["x", "labels"])
    )
    options = {"remove_unused_columns": False, "model": Text}
    collate = {"trainer_options": {"data_collator": torch.utils.data.default_collate}}
    _, folder = saved(named, **options, **collate)
    halved = named.map(lambda row: {"x": row["x"] / 2})
    resumed = train(tmp_path, folder / f"checkpoint-{MID_EPOCH}", dataset=halved, **options, **collate)
    assert reported(caplog) == [
        f"The rows are those that {folder / f'checkpoint-{MID_EPOCH}'} was saved with, but with other values of 'x'."
    ]
    assert resumed.state.epoch == EPOCHS


class Computed(Dataset):
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return SAMPLES[index]


SAMPLES = samples()


class Fingerprinted(Computed):
    def __init__(self, rows_fingerprint):
        self.rows_fingerprint = rows_fingerprint


def test_rows_that_cannot_be_compared_are_reported(saved, tmp_path, caplog):
    whole, folder = saved(Computed())
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    resumed = train(tmp_path, checkpoint, dataset=Computed())
    assert reported(caplog) == [
        f"It was not checked that the training dataset has the rows that {checkpoint} was saved with: those of "
        "Computed are made when they are asked for. Give it a string attribute `rows_fingerprint` that says which they "
        "are."
    ]
    assert same_weights(resumed, whole)
    caplog.clear()
    _, folder = saved(Fingerprinted("of 2025"))
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    assert "'rows_fingerprint'" in refused(tmp_path, checkpoint, dataset=Fingerprinted("of 2026"))
    train(tmp_path, checkpoint, dataset=Fingerprinted("of 2025"))
    assert reported(caplog) == []


class Caching(Computed):
    """Keeps what it has made once, and counts."""

    def __init__(self):
        self.made = [None] * COUNT
        self.times = [0] * COUNT
        self.labels = [int(sample["labels"]) for sample in SAMPLES]

    def __getitem__(self, index):
        self.times[index] += 1
        self.made[index] = self.made[index] or super().__getitem__(index)
        return self.made[index]


def test_what_a_training_changes_in_its_dataset_is_not_held_against_it(saved, tmp_path, caplog):
    dataset = Caching()
    whole, folder = saved(dataset)
    assert min(dataset.times) > 0
    resumed = train(tmp_path, folder / f"checkpoint-{MID_EPOCH}", dataset=dataset)
    fresh = train(tmp_path, folder / f"checkpoint-{MID_EPOCH}", dataset=Caching())
    assert reported(caplog) == []
    assert same_weights(resumed, whole)
    assert same_weights(fresh, whole)
    other = Caching()
    other.labels = other.labels[::-1]
    assert "the values of 'labels'" in refused(tmp_path, folder / f"checkpoint-{MID_EPOCH}", dataset=other)


def test_a_dataset_swapped_in_the_loader_is_the_one_that_is_compared(saved, tmp_path):
    _, folder = saved()

    class Swapping(NotingTrainer):
        def get_train_dataloader(self):
            self.train_dataset = samples(seed=5)
            return super().get_train_dataloader()

    assert "of other rows" in refused(tmp_path, folder / f"checkpoint-{FULL}", Swapping)


# ---- Order ----


class Own(Sampler):
    """Draws from a generator of its own, so that the order of an epoch depends on how many it has drawn."""

    def __init__(self):
        self.generator = random.Random(0)

    def __len__(self):
        return COUNT

    def __iter__(self):
        return iter(self.generator.sample(range(COUNT), COUNT))


class WithOwnSampler(Saving):
    def _get_train_sampler(self, dataset=None):
        return Own()


OTHER_ORDERS = {
    "seed": ({}, {"seed_argument": 2}, "What has changed since: seed: 42 -> 2."),
    "data_seed": ({}, {"data_seed": 7}, "What has changed since: data_seed: None -> 7."),
    "strategy": (
        {},
        {"train_sampling_strategy": "sequential"},
        "What has changed since: train_sampling_strategy: random -> sequential",
    ),
    "another sampler": (
        {},
        {"trainer": WithOwnSampler},
        "What has changed since: sampler: SeedableRandomSampler -> Own.",
    ),
    "the same sampler": (
        {"trainer": WithOwnSampler},
        {},
        "No option has changed, so Own does not draw the same order from the same states of the random generators: let "
        "it follow from the epoch that its `set_epoch` gets.",
    ),
    "groups": (
        {
            "dataset": texts(COUNT),
            "model": TextClassifier,
            "trainer_options": {"data_collator": pad},
            "train_sampling_strategy": "group_by_length",
        },
        {"per_device_train_batch_size": 11},
        "What has changed since: samples of a rank in an update: 32 -> 11.",
    ),
}


def arguments_of(options):
    """`seed` of `make_trainer` is another one."""
    options = dict(options)
    seed = options.pop("seed_argument", None)
    if seed is None:
        return options

    class Seeded(NotingTrainer):
        def __init__(self, args, **kwargs):
            args.seed = seed
            super().__init__(args=args, **kwargs)

    return {**options, "trainer": Seeded}


@pytest.mark.parametrize("kind", OTHER_ORDERS)
def test_another_order_within_an_epoch_is_refused(saved, tmp_path, kind):
    options, changed, cause = OTHER_ORDERS[kind]
    _, folder = saved(**options)
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    message = refused(tmp_path, checkpoint, **{**options, **arguments_of(changed)})
    assert "was saved in the middle of epoch 1, and this training would continue it in another order" in message
    assert cause in message
    assert "from a checkpoint saved at the end of an epoch" in message


@pytest.mark.parametrize("step", [FULL, wide(SECOND_EPOCH)])
@pytest.mark.parametrize("kind", ["seed", "data_seed", "strategy"])
def test_another_order_after_an_epoch_is_reported(saved, tmp_path, caplog, kind, step):
    options, changed, cause = OTHER_ORDERS[kind]
    whole, folder = saved(**options)
    checkpoint = folder / f"checkpoint-{step}"
    resumed = train(tmp_path, checkpoint, **{**options, **arguments_of(changed)})
    change = cause.removeprefix("What has changed since: ").removesuffix(".")
    assert reported(caplog) == [f"Resuming {checkpoint} with other options than it was saved with: {change}."]
    visible = list(range(60, COUNT))
    for epoch in range(1 + (step == SECOND_EPOCH), EPOCHS):
        trained = list(itertools.chain(*resumed.batches[epoch]))
        assert sorted(trained) == visible
        assert trained != list(itertools.chain(*whole.batches[epoch]))


# ---- Policy, rule, options ----


def test_other_options_are_reported_in_one_line_and_used(saved, tmp_path, caplog):
    _, folder = saved(max_hidden_fraction=0.4, policy_options={})
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    options = {"max_hidden_fraction": 0.1, "num_train_epochs": 4, "lr_compensation": False, "policy_options": "{}"}
    resumed = train(tmp_path, checkpoint, **options)
    assert reported(caplog) == [
        f"Resuming {checkpoint} with other options than it was saved with: max_hidden_fraction: 0.4 -> 0.1; "
        "lr_compensation: True -> False; num_train_epochs: 3 -> 4."
    ]
    later = [entry["kakurenbo/visible_samples"] for entry in epochs(resumed)][2:]
    assert later == [COUNT - 20] * 2
    assert resumed.state.epoch == 4


SCALE = COUNT / (COUNT - 60)  # of the learning rate, where 60 samples are hidden


def test_max_steps_instead_of_epochs(saved, tmp_path, caplog):
    _, folder = saved()
    resumed = train(tmp_path, folder / f"checkpoint-{MID_EPOCH}", max_steps=15)
    assert "max_steps: -1 -> 15" in reported(caplog)[0]
    assert (resumed.state.global_step, resumed.state.max_steps) == (15, 15)
    trained = [len(list(itertools.chain(*resumed.batches[epoch]))) for epoch in (1, 2)]
    assert trained == [COUNT - 60 - 2 * 32, 3 * 32]
    assert resumed.watch.rates == pytest.approx([0.01 * (1 - step / 15) * SCALE for step in range(MID_EPOCH, 15)])


def test_epochs_instead_of_max_steps(saved, tmp_path, caplog):
    _, folder = saved(max_steps=16)
    resumed = train(tmp_path, folder / f"checkpoint-{SECOND_EPOCH}")
    assert "max_steps: 16 -> -1" in reported(caplog)[0]
    assert resumed.state.epoch == EPOCHS
    # One epoch of three is left: to within a step of a full epoch the rate falls from a third to 0.
    rates = [0.01 / 3 * (1 - update / LATER) * SCALE for update in range(LATER)]
    assert resumed.watch.rates == pytest.approx(rates, abs=0.01 / (EPOCHS * FULL) * SCALE)


def test_another_precision_of_the_ledger(saved, tmp_path, caplog):
    whole, folder = saved(hiding_policy="kakurenbo", confidence_threshold=0.3, learning_rate=0.05)
    checkpoint = folder / f"checkpoint-{SECOND_EPOCH}"
    options = {"hiding_policy": "kakurenbo", "confidence_threshold": 0.3, "learning_rate": 0.05}
    resumed = train(tmp_path, checkpoint, ledger_precision="compact", **options)
    assert "ledger_precision: auto -> compact." in reported(caplog)[0]
    assert whole.watch.hidden[-1].any()
    assert torch.equal(resumed.watch.hidden[0], whole.watch.hidden[-len(resumed.watch.hidden)])


@register_policy("noting")
class NotingPolicy(HidingPolicy):
    """Decides by what it has counted itself."""

    def __init__(self):
        self.counts = None

    def select(self, ledger, epoch, progress):
        hidden = torch.zeros(len(ledger), dtype=torch.bool)
        if self.counts is not None:
            hidden |= self.counts > epoch
        return Selection(hidden, int(hidden.sum()))

    def wants_refresh(self, epoch):
        return False

    def observe(self, ledger, trained, epoch):
        self.counts = torch.zeros(len(ledger), dtype=torch.int32) if self.counts is None else self.counts
        self.counts += torch.from_numpy(trained)

    def state_dict(self):
        return {} if self.counts is None else {"counts": self.counts}

    def load_state_dict(self, state):
        self.counts = state["counts"]


@register_policy("last_ids")
class LastIds(HidingPolicy):
    """Hides the last 11 samples, which leaves whole batches."""

    def select(self, ledger, epoch, progress):
        return Selection(torch.arange(len(ledger)) >= len(ledger) - 11, 11)

    def wants_refresh(self, epoch):
        return True


@pytest.mark.parametrize("policy", ["first_ids", "noting"])
def test_a_policy_that_decides_by_the_ledger_alone_may_take_over(saved, tmp_path, caplog, policy):
    _, folder = saved(hiding_policy=policy)
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    resumed = train(tmp_path, checkpoint, hiding_policy="last_ids")
    assert reported(caplog) == [
        f"Resuming {checkpoint} with other options than it was saved with: hiding_policy: {policy} -> last_ids."
    ]
    # The interrupted epoch hides what it began with.
    assert resumed.watch.hidden[0].nonzero().flatten().tolist() == (list(range(60)) if policy == "first_ids" else [])
    for hidden in resumed.watch.hidden[1:]:
        assert hidden.nonzero().flatten().tolist() == list(range(COUNT - 11, COUNT))


@pytest.mark.parametrize("step", [FULL, MID_EPOCH])
def test_a_policy_that_keeps_more_than_the_ledger_may_not(saved, tmp_path, step):
    _, folder = saved()
    message = refused(tmp_path, folder / f"checkpoint-{step}", hiding_policy="noting")
    assert (
        "It was saved with hiding_policy='first_ids'; 'noting' decides by what it has noted of each sample" in message
    )


def test_in_the_first_epoch_any_policy_may_take_over(saved, tmp_path, caplog):
    _, folder = saved()
    resumed = train(tmp_path, folder / f"checkpoint-{FIRST_EPOCH}", hiding_policy="noting")
    assert "hiding_policy: first_ids -> noting" in reported(caplog)[0]
    assert resumed._training.run.policy.counts.tolist() == [EPOCHS] * COUNT


def by_loss(outputs, inputs):
    loss = torch.nn.functional.cross_entropy(outputs["logits"], inputs["labels"], reduction="none")
    return SampleStatistics(loss, loss < 1, (-loss).exp())


def by_margin(outputs, inputs):
    return by_loss(outputs, inputs)


TASK = "single_label_classification"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (by_loss, by_margin, "'test_resumed_training:by_loss' and cannot be compared with those by .*by_margin"),
        (by_loss, TASK, f"by_loss' and cannot be compared with those by '{TASK}' .`statistics_fn`."),
        (TASK, by_loss, f"measured by '{TASK}' and cannot be compared with those by .*by_loss"),
        (None, by_loss, f"measured by '{TASK}' and cannot be compared with those by .*by_loss"),
        (by_loss, None, "by_loss' and cannot be compared with those by 'a built-in rule'"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
)
def test_losses_by_another_rule_are_refused(saved, tmp_path, old, new, message):
    _, folder = saved(statistics_fn=old)
    found = refused(tmp_path, folder / f"checkpoint-{MID_EPOCH}", statistics_fn=new)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [(None, TASK), (TASK, None), (by_loss, "test_resumed_training:by_loss"), ("elsewhere:by_loss", by_loss)],
    ids=["named", "no more named", "by its name", "of another name"],
)
def test_the_same_rule_under_another_name_is_the_same(saved, tmp_path, monkeypatch, old, new):
    if old == "elsewhere:by_loss":  # as `__main__` is when a script is started in another way
        module = ModuleType("elsewhere")
        module.by_loss = by_loss
        monkeypatch.setitem(sys.modules, "elsewhere", module)
    whole, folder = saved(statistics_fn=old)
    resumed = train(tmp_path, folder / f"checkpoint-{MID_EPOCH}", statistics_fn=new)
    assert same_weights(resumed, whole)


def test_an_epoch_that_a_plain_trainer_began_is_resumed_twice(tmp_path, caplog):
    steps = {"save_strategy": "steps", "save_steps": 2}
    plain = {name: value for name, value in OPTIONS.items() if "hid" not in name}
    make_trainer(tmp_path / "plain", Trainer, **plain, **steps).train()
    train(tmp_path / "hiding", tmp_path / "plain" / "checkpoint-2", **steps)
    caplog.clear()
    resumed = train(tmp_path / "resumed", tmp_path / "hiding" / "checkpoint-4")
    assert reported(caplog) == []
    assert [len(batches) for batches in resumed.batches.values()] == [FULL - 4, LATER, LATER]


# ---- Checkpoints of earlier releases ----


def aged(checkpoint, folder):
    """A copy of a checkpoint without what it says of its training, as the first release wrote it."""
    copy = folder / checkpoint.name
    shutil.copytree(checkpoint, copy)
    with safe_open(checkpoint / LEDGER_NAME, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    scalars = json.loads(metadata["scalars"])
    assert scalars["trainer"].pop("description")
    assert metadata["format"] == "1"
    save_file(tensors, copy / LEDGER_NAME, {"format": "1", "scalars": json.dumps(scalars)})
    return copy


@pytest.mark.parametrize("step", [wide(FIRST_EPOCH), FULL, MID_EPOCH, wide(SECOND_EPOCH)])
def test_a_checkpoint_of_the_first_release_resumes_as_it_did(saved, tmp_path, caplog, step):
    whole, folder = saved()
    resumed = train(tmp_path / "resumed", aged(folder / f"checkpoint-{step}", tmp_path), max_hidden_fraction=0.3)
    assert reported(caplog) == []
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


@pytest.mark.parametrize("kind", ["data_seed", "strategy"])
def test_its_order_is_known_by_what_it_had_trained_on(saved, tmp_path, kind):
    _, folder = saved()
    old = aged(folder / f"checkpoint-{MID_EPOCH}", tmp_path)
    assert "continue it in another order" in refused(tmp_path / "resumed", old, **OTHER_ORDERS[kind][1])


# ---- Several ranks ----


def refusals_on_ranks(folder, checkpoint, cases):
    """What is reported on each rank, in each case."""
    messages = []
    for options in cases:
        options = {**OPTIONS, "per_device_train_batch_size": 16, **options}
        if options.pop("backwards", False):
            options["dataset"] = samples()[::-1]
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is what is tested)
            make_trainer(folder, **options).train(str(checkpoint))
        messages.append(str(error.value))
    return messages


@pytest.mark.wide
def test_every_rank_is_told_the_same(saved, tmp_path):
    _, folder = saved()
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    cases = [{"data_seed": 7}, {"backwards": True}, {"hiding_policy": "noting"}, {"dataset": samples(150)}]
    first, second = run_ranks(2, refusals_on_ranks, tmp_path, checkpoint, cases)
    assert first == second
    parts = ["data_seed: None -> 7", "of other rows", "'noting' decides by", "a dataset of 203 samples"]
    assert all(part in message for part, message in zip(parts, first, strict=True))


def refusal_where_one_rank_cannot_read(folder, checkpoint):
    own = folder / f"rank-{os.environ['RANK']}" / checkpoint.name
    shutil.copytree(checkpoint, own)
    if os.environ["RANK"] == "1":
        save_file({"loss": torch.zeros(COUNT)}, own / LEDGER_NAME, {"format": "7", "scalars": "{}"})
    with pytest.raises(ValueError, match="this release of hf_kakurenbo reads '1'") as error:
        make_trainer(folder, **{**OPTIONS, "per_device_train_batch_size": 16}).train(str(own))
    return str(error.value)


@pytest.mark.wide
def test_a_ledger_that_one_rank_cannot_read_ends_the_training_on_all(saved, tmp_path):
    _, folder = saved()
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    first, second = run_ranks(2, refusal_where_one_rank_cannot_read, tmp_path, checkpoint)
    assert first == f"rank 1: {second}"
    assert "Resume with the release that wrote it" in second


def resumed_on_ranks(folder, checkpoint, options):
    made = make_trainer(folder, NotingTrainer, **{**OPTIONS, "per_device_train_batch_size": 16, **options})
    made.train(str(checkpoint))
    return {"batches": made.batches, "weights": made.model.state_dict(), "ledger": made.ledger.state_dict()}


@pytest.mark.wide
@pytest.mark.parametrize(("step", "changed"), [(MID_EPOCH, {}), (FULL, {"data_seed": 7})], ids=str)
def test_ranks_go_on_with_what_one_process_has_saved(saved, tmp_path, step, changed):
    skip_where_ranks_cannot_resume()
    whole, folder = saved()
    ranks = run_ranks(2, resumed_on_ranks, tmp_path, folder / f"checkpoint-{step}", changed)
    left = list(itertools.chain(*whole.batches[1]))[2 * 32 if step == MID_EPOCH else 0 :]
    together = zip(*(rank["batches"][1] for rank in ranks), strict=True)
    trained = list(itertools.chain(*itertools.chain(*together)))[
        : len(left)
    ]  # what comes after fills up the last batch
    assert trained == left if step == MID_EPOCH else sorted(trained) == sorted(left) and trained != left
    assert same_tensors(ranks[0]["weights"], ranks[1]["weights"])
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])
