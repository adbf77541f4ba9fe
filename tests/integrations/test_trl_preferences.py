"""TRL's preference trainers under the mixin: what each sample is ranked by is its own part of TRL's loss."""

import re

import pytest
import torch

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.data import BatchIds
from hf_kakurenbo.hiding.statistics import preference_statistics
from hf_kakurenbo.integrations.registry import make_observer
from preference_toy import NUM_SAMPLES, family, loss_alone, make, trl_class
from processes import run_ranks
from toy import epochs, losses, same_tensors, same_weights

# At learning rate 0 a loss is the same whenever it is measured; two samples in seven are hidden by the loss alone.
STILL = {"learning_rate": 0.0, "move_back": False, "disable_dropout": True}

DPO = {
    "several losses": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "forward KL": {"f_divergence_type": "forward_kl"},
    "JS divergence": {"f_divergence_type": "js_divergence", "loss_type": ["hinge"]},
    "alpha divergence": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    "alpha divergence at its limit": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0},
    "length-desensitised": {"ld_alpha": 0.3},
    "weighted": {"use_weighting": True},
}
LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down"]
LOSSES += ["discopop", "sft", "sigmoid_norm"]


def measured(trainer, indices):
    """What the mixin would record of a batch of these samples, and TRL's loss of it."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index] for index in indices]))
    given = dict(batch)
    with torch.no_grad(), make_observer(trainer)(trainer.model) as seen:
        loss = trl_class(trainer).compute_loss(trainer, trainer.model, batch)
    return seen.statistics(given, BatchIds(torch.tensor(indices), None), 0.9, loss), loss


def test_every_loss_of_dpo_is_taken_apart_as_trl_puts_it_together(tmp_path):
    trainer = make("DPO", tmp_path, plain=True, loss_type=LOSSES, label_smoothing=0.1)
    trainer.model.eval()
    chosen = [0, 3, 5, 9]
    for loss_type in LOSSES:
        trainer.loss_types, trainer.loss_weights = [loss_type], [1.0]
        statistics, _ = measured(trainer, chosen)
        alone = torch.tensor([loss_alone(trainer, index) for index in chosen])
        torch.testing.assert_close(statistics.loss, alone, rtol=1e-4, atol=1e-5, msg=loss_type)
        assert len(alone.unique()) == len(chosen), "a loss that is the same for all says nothing"


def test_no_loss_of_dpo_is_forgotten(tmp_path):
    trainer = make("DPO", tmp_path, plain=True)
    trainer.loss_types = ["none of them"]
    with pytest.raises(ValueError, match="Should be one of") as refused:
        loss_alone(trainer, 0)
    theirs = set(re.findall(r"'([a-z_]+)'", str(refused.value)))
    assert theirs == set(LOSSES) | {"aot", "aot_unpaired"}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(value, id=name, marks=() if name in ("several losses", "weighted") else pytest.mark.wide)
        for name, value in DPO.items()
    ],
)
def test_options_of_dpo(options, tmp_path):
    trainer = make("DPO", tmp_path, plain=True, **options)
    trainer.model.eval()
    statistics, _ = measured(trainer, range(NUM_SAMPLES))
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    torch.testing.assert_close(statistics.loss, alone, rtol=1e-4, atol=1e-5)


# ---- Margins, by another way than TRL's ----


def log_probability(model, tokens, prompt, mean=False):
    """Of the tokens behind the prompt, from the logits of a text alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0].float()
    each = logits.log_softmax(-1)[prompt - 1 : -1].gather(1, torch.tensor(tokens[prompt:])[:, None])
    return each.mean() if mean else each.sum()


def log_odds(log_probability):
    probability = log_probability.exp()
    return (probability / (1 - probability)).log()


def sides(row):
    """Both texts of a pair, and how long their prompt is."""
    prompt = row.get("prompt_ids", [])
    return prompt + row["chosen_ids"], prompt + row["rejected_ids"], len(prompt)


def margin_of_dpo(trainer, row):
    *texts, prompt = sides(row)
    model, reference = trainer.model, trainer.ref_model
    chosen, rejected = (
        log_probability(model, each, prompt) - log_probability(reference, each, prompt) for each in texts
    )
    return trainer.beta * (chosen - rejected)


def margin_of_reward(trainer, row):
    with torch.no_grad():
        chosen, rejected = (trainer.model(input_ids=torch.tensor([each])).logits.item() for each in sides(row)[:2])
    return torch.tensor(chosen - rejected)


def experimental_sides(row):
    prompt = len(row["prompt_input_ids"])
    return row["chosen_input_ids"], row["rejected_input_ids"], prompt


def margin_of_cpo(trainer, row):
    *texts, prompt = experimental_sides(row)
    chosen, rejected = (log_probability(trainer.model, each, prompt) for each in texts)
    return trainer.beta * (chosen - rejected)


def margin_of_orpo(trainer, row):
    *texts, prompt = experimental_sides(row)
    chosen, rejected = (log_odds(log_probability(trainer.model, each, prompt, mean=True)) for each in texts)
    return chosen - rejected


MARGINS = {"DPO": margin_of_dpo, "Reward": margin_of_reward, "CPO": margin_of_cpo, "ORPO": margin_of_orpo}


@pytest.mark.parametrize("name", MARGINS)
def test_what_is_hidden_are_the_lowest_losses_and_each_is_its_own(name, tmp_path):
    trainer = make(name, tmp_path, num_train_epochs=4, **STILL)
    trainer.train()
    ledger = trainer.ledger
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    torch.testing.assert_close(ledger.loss, alone, rtol=1e-4, atol=1e-5)
    assert set(ledger.hidden.nonzero().flatten().tolist()) <= set(alone.argsort()[:4].tolist())
    assert [round(entry["kakurenbo/hidden_fraction"] * NUM_SAMPLES) for entry in epochs(trainer)] == [0, 4, 3, 2]
    margins = torch.stack([MARGINS[name](trainer, row) for row in trainer.train_dataset])
    assert ledger.correct.tolist() == (margins > 0).tolist()
    assert 0 < int(ledger.correct.sum()) < NUM_SAMPLES
    torch.testing.assert_close(ledger.confidence, torch.sigmoid(margins.abs()), rtol=1e-4, atol=1e-4)


class Batches:
    """A data collator that remembers of each example the batch in which it came last."""

    def __init__(self, trainer):
        self.trainer, self.collator, self.last = trainer, trainer.data_collator, {}
        self.keys = [(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in trainer.train_dataset]

    def __call__(self, examples):
        for example in examples:
            key = tuple(example["prompt_ids"]), tuple(example["completion_ids"])
            self.last[self.keys.index(key)] = examples
        return self.collator(examples)


def reference_point(trainer, examples):
    """The divergence from the reference over the mismatched completions of a batch, 0 at least."""
    ratios = [
        log_probability(trainer.model, tokens, len(example["prompt_ids"]))
        - log_probability(trainer.ref_model, tokens, len(example["prompt_ids"]))
        for example in examples
        for tokens in [example["prompt_ids"] + example["KL_completion_ids"]]
    ]
    return torch.stack(ratios).mean().clamp(min=0)


@pytest.mark.parametrize("loss_type", ["kto", pytest.param("apo_zero_unpaired", marks=pytest.mark.wide)])
def test_kto_ranks_each_completion_from_the_reference_point_of_its_batch(loss_type, tmp_path):
    trainer = make(
        "KTO", tmp_path, num_train_epochs=4, loss_type=loss_type, desirable_weight=0.8, undesirable_weight=1.2, **STILL
    )
    trainer.data_collator = batches = Batches(trainer)
    trainer.train()
    points = []
    for index, row in enumerate(trainer.train_dataset):
        tokens, prompt = row["prompt_ids"] + row["completion_ids"], len(row["prompt_ids"])
        ratio = log_probability(trainer.model, tokens, prompt) - log_probability(trainer.ref_model, tokens, prompt)
        point = reference_point(trainer, batches.last[index]) if loss_type == "kto" else torch.tensor(0.0)
        points.append(float(point))
        margin = trainer.beta * (ratio - point) * (1 if row["label"] else -1)
        loss = (0.8 if row["label"] else 1.2) * (1 - torch.sigmoid(margin))
        torch.testing.assert_close(trainer.ledger.loss[index], loss, rtol=1e-4, atol=1e-5)
        assert bool(trainer.ledger.correct[index]) == bool(margin > 0)
        torch.testing.assert_close(trainer.ledger.confidence[index], torch.sigmoid(margin.abs()), rtol=1e-4, atol=1e-4)
    assert len(set(points)) > 1 or loss_type != "kto", "the reference point would go unnoticed"
    assert [round(entry["kakurenbo/hidden_fraction"] * NUM_SAMPLES) for entry in epochs(trainer)] == [0, 4, 3, 2]


# ---- The training ----

SETTINGS = {
    "DPO": ("DPO", {}),
    "DPO, LoRA": ("DPO", {"adapter": True}),
    "KTO": ("KTO", {}),
    "Reward": ("Reward", {}),
    "CPO": ("CPO", {}),
    "ORPO": ("ORPO", {}),
    "DPO, precomputed": ("DPO", {"precompute_ref_log_probs": True}),
    "DPO, LoRA, precomputed": ("DPO", {"adapter": True, "precompute_ref_log_probs": True}),
    "DPO, accumulated": ("DPO", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3}),
    "DPO, one by one": ("DPO", {"per_device_train_batch_size": 1}),
    "DPO, SimPO's average": ("DPO", {"loss_type": ["ipo", "sft"]}),
    "DPO, checkpointed": ("DPO", {"gradient_checkpointing": True}),
    "DPO, evaluated": ("DPO", {"eval_strategy": "epoch", "evaluated": True}),
    "KTO, LoRA": ("KTO", {"adapter": True}),
    "KTO, precomputed": ("KTO", {"precompute_ref_log_probs": True}),
    "KTO, one by one": ("KTO", {"per_device_train_batch_size": 1, "loss_type": "apo_zero_unpaired"}),
    "Reward, LoRA": ("Reward", {"adapter": True}),
    "Reward, centred": ("Reward", {"center_rewards_coefficient": 0.1}),
    "CPO, LoRA": ("CPO", {"adapter": True}),
    "CPO, SimPO": ("CPO", {"loss_type": "simpo", "cpo_alpha": 0.0}),
    "ORPO, LoRA": ("ORPO", {"adapter": True}),
    "ORPO, one by one": ("ORPO", {"per_device_train_batch_size": 1}),
}


def settings(quick):
    return [
        pytest.param(*given, id=name, marks=() if name == quick else pytest.mark.wide)
        for name, given in SETTINGS.items()
    ]


def without_hiding(log_history):
    timings = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_tokens_per_second"}
    timings |= {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    entries = [entry for entry in log_history if "kakurenbo/candidates" not in entry]
    return [
        {name: value for name, value in entry.items() if name not in timings and not name.startswith("kakurenbo/")}
        for entry in entries
    ]


@pytest.mark.parametrize(("name", "options"), settings("DPO"))
def test_nothing_hidden_is_the_base_trainer(name, options, tmp_path):
    plain = make(name, tmp_path / "plain", plain=True, **options)
    plain.train()
    ours = make(name, tmp_path / "ours", max_hidden_fraction=0.0, **options)
    ours.train()
    assert without_hiding(ours.state.log_history) == without_hiding(plain.state.log_history)
    assert len(losses(ours)) > 0
    assert same_weights(ours, plain)
    assert bool(ours.ledger.loss.isfinite().all())


@pytest.mark.parametrize(("name", "options"), settings("DPO, LoRA"))
def test_hiding_hides_and_resumes(name, options, tmp_path):
    options = {**options, "num_train_epochs": 5, "move_back": False, "save_strategy": "steps", "save_steps": 7}
    whole = make(name, tmp_path, **options)
    whole.train()
    assert int(whole.ledger.times_hidden.sum()) > 5
    resumed = make(name, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())
    # What was collected in a refresh would turn up in the log of the next steps.
    hidden_at = [entry for entry in whole.state.log_history if "kakurenbo/candidates" in entry]
    assert not any("rewards/margins" in entry or "accuracy" in entry for entry in hidden_at)
    collected = whole._metrics["eval"] if hasattr(whole, "_metrics") else whole._stored_metrics["eval"]
    assert not any(collected.values())


def on_each_rank(name, output_dir, options):
    trainer = make(name, output_dir, num_train_epochs=4, per_device_train_batch_size=3, **STILL, **options)
    trainer.train()
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    return trainer.ledger.state_dict(), alone


# KTO's loss of one sample alone has another reference point; without one it is the sample's own.
RANKED = {
    "DPO": ("DPO", {}),
    "DPO, LoRA": ("DPO", {"adapter": True}),
    "KTO": ("KTO", {"loss_type": "apo_zero_unpaired"}),
    "KTO, LoRA": ("KTO", {"loss_type": "apo_zero_unpaired", "adapter": True}),
    "Reward": ("Reward", {}),
    "CPO": ("CPO", {}),
    "ORPO, LoRA": ("ORPO", {"adapter": True}),
}


@pytest.mark.wide
@pytest.mark.parametrize(("name", "options"), RANKED.values(), ids=RANKED)
def test_two_processes_record_each_sample_as_it_is_alone(name, options, tmp_path):
    ranks = run_ranks(2, on_each_rank, name, tmp_path, options)
    for ledger, alone in ranks:
        torch.testing.assert_close(ledger["loss"], alone, rtol=1e-4, atol=1e-5)
        assert same_tensors(ledger, ranks[0][0])
    assert int(ranks[0][0]["times_hidden"].sum()) == 9


# ---- What the statistics are, and what is refused ----


def test_the_confidence_is_of_the_side_that_is_preferred():
    margins = torch.tensor([2.0, -2.0, 0.0, torch.nan], dtype=torch.bfloat16, requires_grad=True)
    losses = torch.tensor([0.1, 2.1, 0.7, torch.nan], requires_grad=True)
    statistics = preference_statistics(losses, margins)
    assert not any(each.requires_grad for each in statistics)
    assert statistics.correct.tolist() == [True, False, False, False]
    known = 1 / (1 + torch.tensor(-2.0).exp())
    torch.testing.assert_close(statistics.confidence[:3], torch.stack([known, known, torch.tensor(0.5)]))
    assert statistics.loss.isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize("loss_type", ["aot", "aot_unpaired"])
def test_a_loss_of_sorted_log_ratios_is_refused(loss_type, tmp_path):
    with pytest.raises(ValueError, match=rf"{loss_type}.*sorted log ratios of a batch.*hiding_policy=.none"):
        make("DPO", tmp_path, loss_type=["sigmoid", loss_type])


def of_chosen(outputs, inputs):
    """Statistics of a user's own: the outputs are what the policy returned for the batch."""
    loss = -outputs.log_probs.detach().sum(dim=1).chunk(2)[0]
    return SampleStatistics(loss, loss < 1e9, torch.ones_like(loss))


def of_completion(outputs, inputs):
    loss = -outputs.log_probs.detach().sum(dim=1)
    return SampleStatistics(loss, loss < 1e9, torch.ones_like(loss))


OWN = {"DPO": ({"statistics_fn": of_chosen, "loss_type": ["aot"]}, "chosen_ids")}
OWN["KTO"] = ({"statistics_fn": of_completion}, "completion_ids")


@pytest.mark.parametrize("name", ["DPO", pytest.param("KTO", marks=pytest.mark.wide)])
def test_a_function_of_the_users_own_gets_what_the_policy_returned(name, tmp_path):
    options, answer = OWN[name]
    trainer = make(name, tmp_path, adapter=True, learning_rate=0.0, num_train_epochs=1, **options)
    trainer.train()
    for index, row in enumerate(trainer.train_dataset):
        alone = -log_probability(trainer.model, row["prompt_ids"] + row[answer], len(row["prompt_ids"]))
        torch.testing.assert_close(trainer.ledger.loss[index], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["ORPO", *(pytest.param(name, marks=pytest.mark.wide) for name in ("DPO", "KTO", "CPO"))]
)
def test_a_trainer_that_trains_another_loss_is_refused(name, tmp_path, monkeypatch):
    """As a release of TRL that computes its loss otherwise would be."""
    trainer = family(name).trainer
    original = trainer.compute_loss

    def doubled(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return 2 * original(self, model, inputs, False, num_items_in_batch)

    monkeypatch.setattr(trainer, "compute_loss", doubled)
    made = make(name, tmp_path)
    with pytest.raises(ValueError, match=r"ranked by another loss than the one that is trained.*statistics_fn.*none"):
        made.train()
    assert made.state.global_step == 0
