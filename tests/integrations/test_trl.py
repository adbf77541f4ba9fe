"""TRL's SFTTrainer under the mixin: the same losses, figures of each sample whatever the packing, no trace left."""

from types import SimpleNamespace

import datasets
import pytest
import torch
import transformers

from hf_kakurenbo import KakurenboConfig
from hf_kakurenbo.data import BatchIds
from hf_kakurenbo.hiding import token_statistics
from hf_kakurenbo.integrations.trl_sft import observe_tokens, scored_statistics
from toy import losses, same_tensors, same_weights
from trl_toy import QUIET, WORDS, llama, tokenizer, with_hiding

trl = pytest.importorskip("trl", minversion="1.16")
peft = pytest.importorskip("peft")

KakurenboSFTTrainer, KakurenboSFTConfig = with_hiding(trl.SFTTrainer, trl.SFTConfig)


def conversations(count=30):
    """The completion continues with the alphabet where the prompt stops."""
    letters = WORDS[3:]
    rows = [(place % 15, 3 + place % 4, 2 + place % 5) for place in range(count)]
    return datasets.Dataset.from_dict(
        {
            "prompt": [" ".join(letters[start : start + asked]) for start, asked, _ in rows],
            "completion": [
                " " + " ".join(letters[start + asked : start + asked + told]) for start, asked, told in rows
            ],
        }
    )


def make(output_dir, *, plain=False, lora=False, dropout=0.0, **options):
    defaults = {**QUIET, "max_length": 32}
    made = (trl.SFTTrainer if plain else KakurenboSFTTrainer)(
        model=llama(dropout=dropout),
        args=(trl.SFTConfig if plain else KakurenboSFTConfig)(output_dir=str(output_dir), **{**defaults, **options}),
        train_dataset=conversations(),
        processing_class=tokenizer(),
        peft_config=peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]) if lora else None,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


SETTINGS = {
    "completions alone": {},
    "every token": {"completion_only_loss": False},
    "packed, cut": {"packing": True, "packing_strategy": "wrapped", "max_length": 16},
    "packed": {"packing": True, "max_length": 16},
    "packed, padded to multiples": {"packing": True, "max_length": 16, "pad_to_multiple_of": 8},
    "padding-free": {"padding_free": True, "max_length": None},
    "dynamic fine-tuning": {"loss_type": "dft"},
    "LoRA": {"lora": True},
    "dropout": {"dropout": 0.2},
    "gradient checkpointing": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_nothing_hidden_is_the_base_trainer(options, tmp_path):
    plain = make(tmp_path / "plain", plain=True, **options)
    plain.train()
    ours = make(tmp_path / "ours", max_hidden_fraction=0.0, **options)
    ours.train()
    assert losses(ours) == losses(plain)
    assert same_weights(ours, plain)
    assert bool(ours.ledger.loss.isfinite().all())


@pytest.mark.parametrize(
    "options", [value for name, value in SETTINGS.items() if name not in ("dropout", "LoRA")], ids=str
)
def test_the_figures_are_those_of_each_sample_alone(options, tmp_path):
    trainer = make(tmp_path, learning_rate=0.0, num_train_epochs=1, accuracy_threshold=0.05, **options)
    trainer.train()
    ledger, model = trainer.ledger, trainer.model.eval()
    for index, sample in enumerate(trainer.train_dataset):
        batch = trainer.data_collator([sample])
        words = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask") if name in batch}
        with torch.no_grad():
            logits = model(**words).logits
        alone = token_statistics(logits, batch["labels"], accuracy_threshold=0.05, shift=True)
        torch.testing.assert_close(ledger.loss[index], alone.loss[0], rtol=1e-4, atol=1e-5)
        assert bool(ledger.correct[index]) == bool(alone.correct[0])
        assert float(ledger.confidence[index]) <= float(alone.confidence[0]) + 1e-5
    assert len(trainer.train_dataset) == len(ledger)


@pytest.mark.parametrize("options", [{}, {"packing": True, "max_length": 16}, {"lora": True}], ids=str)
def test_hiding_hides_and_resumes(options, tmp_path):
    options = {
        "num_train_epochs": 6,
        "confidence_threshold": 0.0,
        "move_back": False,
        "save_strategy": "steps",
        **options,
    }
    whole = make(tmp_path, save_steps=9, **options)
    whole.train()
    assert int(whole.ledger.times_hidden.sum()) > 10
    resumed = make(tmp_path / "resumed", save_steps=9, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


def test_what_is_collected_for_the_log_is_of_the_training_alone(tmp_path):
    trainer = make(tmp_path, num_train_epochs=4, move_back=False, confidence_threshold=0.0, logging_strategy="epoch")
    trainer.train()
    assert int(trainer.ledger.times_hidden.sum()) > 0
    assert not any(trainer._metrics["eval"].values())
    assert all("mean_token_accuracy" in entry for entry in losses(trainer))
    assert not any("entropy" in entry for entry in trainer.state.log_history if "kakurenbo/candidates" in entry)


def test_arguments_without_those_of_the_trainer(tmp_path):
    with pytest.raises(TypeError, match=r"(?s)KakurenboSFTTrainer.*class MyConfig\(hf_kakurenbo.HidingArguments"):
        KakurenboSFTTrainer(model=torch.nn.Linear(2, 2), args=KakurenboConfig(output_dir=str(tmp_path), use_cpu=True))


class Fused(torch.nn.Module):
    """Returns the tokens' figures, but not row by row."""

    def forward(self, **inputs):
        return SimpleNamespace(log_probs=torch.zeros(1, 5), label_mask=torch.ones(1, 5))


def test_rows_that_cannot_be_told_apart():
    ids = BatchIds(torch.arange(3), None)
    with pytest.raises(ValueError, match=r"3 samples and 1 row.*per_device_train_batch_size=1"):
        scored_statistics(Fused()(), ids, 0.9)


def test_of_several_forward_passes_the_last_with_figures_counts():
    model = torch.nn.Identity()
    scored = Fused()()
    for returned, kept in [([1, 2], 2), ([scored, 2], scored), ([1, scored, 2], scored)]:
        with observe_tokens(model) as seen:
            for each in returned:
                model(each)
        assert seen.outputs is kept


def test_a_loss_without_the_model_is_told():
    with observe_tokens(torch.nn.Identity()) as seen:
        pass
    with pytest.raises(RuntimeError, match=r"did not call the model.*hiding_policy=.none"):
        _ = seen.outputs
