"""What a training shows of its hiding: the progress bar, the last line of the log, the summary, the model card."""

import logging
import re

import pytest
from transformers import ProgressCallback

from hf_kakurenbo.reporting.model_card import with_section
from toy import NUM_SAMPLES, epochs, make_trainer, trained

HIDING = {"learning_rate": 0.05, "num_train_epochs": 4}


def counted(trainer):
    """Samples trained on, those with nothing hidden, and those refreshed, from what the epochs hid."""
    hidden = [int(mask.sum()) for mask in trainer.watch.hidden]
    full = NUM_SAMPLES * len(hidden)
    return full - sum(hidden), full, sum(hidden[:-1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("finished"), **HIDING)
    trainer.output = trainer.train()
    return trainer


def test_the_last_line_of_the_log_has_the_totals(finished):
    last = finished.state.log_history[-1]
    samples, _, refreshed = counted(finished)
    assert "train_runtime" in last
    assert last["kakurenbo/trained_samples"] == samples < NUM_SAMPLES * 4
    assert last["kakurenbo/refreshed_samples"] == refreshed
    assert finished.output.metrics["kakurenbo/time_saved"] == last["kakurenbo/time_saved"]


def test_the_time_saved_is_a_fraction_of_what_it_would_have_taken(finished):
    run = finished._training.run
    assert run.seconds > 0
    assert run.time_saved_fraction == pytest.approx(run.time_saved / (run.seconds + run.time_saved))
    last = epochs(finished)[-1]
    assert last["kakurenbo/time_saved_fraction"] == round(run.time_saved_fraction, 4)


def test_four_lines_at_the_end(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_kakurenbo"):
        trainer = trained(tmp_path, **HIDING)
    [summary] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Hidden: ")]
    samples, full, refreshed = counted(trainer)
    fractions = [100 * int(mask.sum()) / NUM_SAMPLES for mask in trainer.watch.hidden]
    first, second, third, fourth = summary.splitlines()
    assert first == (
        f"Hidden: {sum(fractions) / 4:.1f}% of the samples in an epoch on average, at most {max(fractions):.1f}%."
    )
    assert second == (
        f"Trained on: {samples:,} samples in the place of {full:,} ({1 - samples / full:.1%} saved); {refreshed:,} "
        "measured by a forward pass."
    )
    assert re.fullmatch(
        r"Time: [\d.,]+ s (saved|more than with nothing hidden), estimated \([\d.]+% of the time\)\.", third
    )
    assert fourth == f"See what was hidden: hf-kakurenbo report {tmp_path}"


def test_where_the_progress_is_shown_the_summary_is(tmp_path, capsys):
    trained(tmp_path, num_train_epochs=1, disable_tqdm=False)
    assert "\nTrained on: 203 samples in the place of 203" in capsys.readouterr().err
    trained(tmp_path, num_train_epochs=1, hiding_policy="none", disable_tqdm=False)
    assert "Trained on" not in capsys.readouterr().err


def test_the_progress_bar_says_what_the_epoch_hides(tmp_path):
    shown = []

    class Bar(ProgressCallback):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            shown.append(self.training_bar.postfix)

    trainer = make_trainer(tmp_path, trainer_options={"callbacks": [Bar]}, **HIDING)
    trainer.train()
    hidden = [entry["kakurenbo/hidden_fraction"] for entry in epochs(trainer)]
    assert max(hidden) > 0.1
    assert [text.partition(",")[0] for text in dict.fromkeys(shown)] == [
        f"hidden {fraction:.0%}" for fraction in hidden
    ]
    assert all(re.fullmatch(r"hidden \d+%, saved -?\d+%", text) for text in shown)


def test_stopped_within_an_epoch_counts_what_was_trained(tmp_path):
    trainer = trained(tmp_path, max_steps=30, learning_rate=0.05)
    run = trainer._training.run
    visible = [NUM_SAMPLES - int(mask.sum()) for mask in trainer.watch.hidden]
    *whole, last = visible
    trained_last = run.trained_samples - sum(whole)
    assert 0 < trained_last < last < NUM_SAMPLES, "the last epoch hid something and was stopped"
    assert run.replaced_samples == NUM_SAMPLES * len(whole) + round(trained_last * NUM_SAMPLES / last)


# ---- The model card ----


def test_the_model_card_says_how_to_repeat_it(finished, tmp_path):
    finished.create_model_card()
    with open(f"{finished.args.output_dir}/README.md", encoding="utf-8") as file:
        card = file.read()
    assert card.count("### Hidden samples") == 1
    assert "- hiding_policy: `kakurenbo`" in card
    assert "- max_hidden_fraction: 0.3" in card
    samples, full, refreshed = counted(finished)
    assert f"It trained on {samples:,} samples in the place of {full:,}, and measured {refreshed:,} hidden ones" in card
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", card, re.MULTILINE)
    hidden = [int(mask.sum()) for mask in finished.watch.hidden]
    assert [int(row[2]) for row in rows] == [NUM_SAMPLES - count for count in hidden]
    assert card.index("### Hidden samples") < card.index("### Framework versions")
    finished.create_model_card()
    with open(f"{finished.args.output_dir}/README.md", encoding="utf-8") as file:
        assert file.read() == card, "a second card has the section once"


def test_without_hiding_the_card_is_trainers(tmp_path):
    trainer = trained(tmp_path, hiding_policy="none", num_train_epochs=1)
    trainer.create_model_card()
    assert "Hidden samples" not in (tmp_path / "README.md").read_text()


def test_a_card_without_the_usual_parts():
    assert with_section("# Mine\n", "### Hidden samples\n") == "# Mine\n\n### Hidden samples\n\n"
