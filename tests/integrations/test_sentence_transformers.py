"""Sentence Transformers' trainers under the mixin: losses that give each sample one of its own hide, others refuse."""

import os

import datasets
import pytest
import torch
import transformers
from torch.nn import functional

from hf_kakurenbo import SampleStatistics
from processes import run_ranks
from toy import epochs, losses, same_tensors, same_weights
from trl_toy import QUIET, WORDS, text, tokenizer, with_hiding

st = pytest.importorskip("sentence_transformers", minversion="5")
cross_encoder = pytest.importorskip("sentence_transformers.cross_encoder")
dense = pytest.importorskip("sentence_transformers.losses")

NUM_SAMPLES = 14


def bert(folder, cls=transformers.BertModel, **options):
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        hidden_dropout_prob=options.pop("dropout", 0.0),
        attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
        **options,
    )
    cls(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def sentences(folder, **options):
    return st.SentenceTransformer(bert(folder, **options), device="cpu")


def judge(folder, labels=1, **options):
    path = bert(folder, transformers.BertForSequenceClassification, num_labels=labels, **options)
    return cross_encoder.CrossEncoder(path, num_labels=labels, device="cpu")


def columns(*names, **labels):
    """Texts in as many columns, and a column of labels."""
    rows = range(NUM_SAMPLES)
    texts = {name: [text(100 * place + row, 2 + row % 5) for row in rows] for place, name in enumerate(names)}
    numbers = {name: [value(row) for row in rows] for name, value in labels.items()}
    return datasets.Dataset.from_dict({**texts, **numbers})


def scores():
    return columns("a", "b", score=lambda row: row % 5 / 4)


def classes():
    return columns("a", "b", label=lambda row: row % 3)


def similar():
    return columns("a", "b", label=lambda row: row % 2)


def embeddings():
    return columns("a", label=lambda row: [((row * 7 + place) % 11) / 10 for place in range(16)])


def triplets():
    return columns("a", "b", "c")


DENSE = {
    "cosine": (scores, dense.CosineSimilarityLoss),
    "softmax": (classes, lambda model: dense.SoftmaxLoss(model, model.get_embedding_dimension(), 3)),
    "contrastive": (similar, dense.ContrastiveLoss),
    "contrastive, summed": (similar, lambda model: dense.ContrastiveLoss(model, size_average=False)),
    "embeddings": (embeddings, dense.MSELoss),
    "triplets": (triplets, dense.TripletLoss),
    "margins": (lambda: columns("a", "b", "c", label=lambda row: row % 7 / 3), dense.MarginMSELoss),
}
CROSS = {
    "binary": (similar, cross_encoder.losses.BinaryCrossEntropyLoss, 1),
    "classes": (classes, cross_encoder.losses.CrossEntropyLoss, 3),
    "scores": (scores, cross_encoder.losses.MSELoss, 1),
}


def make(name, folder, *, plain=False, loss=None, dataset=None, dropout=0.0, base=None, **options):
    """A trainer of one of the losses above; `loss`, `dataset` and `base`, the trainer's class, in the place of its."""
    crossed = name in CROSS
    if crossed:
        home, model = cross_encoder, judge(folder / "model", CROSS[name][2], dropout=dropout)
        trainer, config = home.CrossEncoderTrainer, home.CrossEncoderTrainingArguments
    else:
        home, model = st, sentences(folder / "model", dropout=dropout)
        trainer, config = home.SentenceTransformerTrainer, home.SentenceTransformerTrainingArguments
    if not plain:
        trainer, config = with_hiding(base or trainer, config)
    known_dataset, known_loss = {**DENSE, **CROSS}[name][:2]
    made = trainer(
        model=model,
        args=config(output_dir=str(folder / "out"), **{**QUIET, **options}),
        train_dataset=known_dataset() if dataset is None else dataset,
        loss=(loss or known_loss)(model),
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def library_class(trainer):
    return next(base for base in type(trainer).__mro__ if base.__module__.startswith("sentence_transformers."))


def loss_alone(trainer, index):
    """What the library says of a batch of one sample: its mean is over that one alone."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index]]))
    with torch.no_grad():
        return float(library_class(trainer).compute_loss(trainer, trainer.model.eval(), batch))


STILL = {"learning_rate": 0.0, "move_back": False, "num_train_epochs": 4}


def quick(names, *chosen):
    """The names, those not chosen in the wide run alone."""
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.wide) for name in names]


@pytest.mark.parametrize("name", quick([*DENSE, *CROSS], "cosine", "contrastive", "classes"))
def test_what_is_hidden_are_the_lowest_losses_and_each_is_its_own(name, tmp_path):
    trainer = make(name, tmp_path, **STILL)
    trainer.train()
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    assert len(alone.unique()) > 4, "a loss that is the same for all says nothing"
    torch.testing.assert_close(trainer.ledger.loss, alone, rtol=1e-4, atol=1e-5)
    hidden = trainer.ledger.hidden
    assert [round(entry["kakurenbo/hidden_fraction"] * NUM_SAMPLES) for entry in epochs(trainer)] == [0, 4, 3, 2]
    assert float(alone[hidden].max()) <= float(alone[~hidden].min()) + 1e-6
    assert not trainer.accum_loss_components["eval"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("cosine", {"dropout": 0.1}, marks=pytest.mark.wide),
        ("classes", {"dropout": 0.1}),
        pytest.param("softmax", {"gradient_accumulation_steps": 2}, marks=pytest.mark.wide),
        pytest.param("contrastive", {"dataloader_drop_last": True}, marks=pytest.mark.wide),
        pytest.param("binary", {"data_seed": 5, "seed": 7}, marks=pytest.mark.wide),
        pytest.param("triplets", {"per_device_train_batch_size": 1}, marks=pytest.mark.wide),
    ],
    ids=str,
)
def test_nothing_hidden_is_the_base_trainer(name, options, tmp_path):
    plain = make(name, tmp_path, plain=True, **options)
    plain.train()
    ours = make(name, tmp_path, max_hidden_fraction=0.0, **options)
    ours.train()
    assert losses(ours) == losses(plain)
    assert len(losses(ours)) > 0
    assert same_weights(ours, plain)


@pytest.mark.parametrize("name", ["binary", pytest.param("cosine", marks=pytest.mark.wide)])
def test_hiding_hides_and_resumes(name, tmp_path):
    options = {"num_train_epochs": 5, "move_back": False, "save_strategy": "steps", "save_steps": 7, "dropout": 0.1}
    whole = make(name, tmp_path, **options)
    whole.train()
    assert int(whole.ledger.times_hidden.sum()) > 8
    resumed = make(name, tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-7"))
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


def test_a_cross_encoder_of_two_answers_says_which_it_is_sure_of(tmp_path):
    trainer = make("binary", tmp_path, learning_rate=0.0, num_train_epochs=1)
    trainer.train()
    rows = trainer.train_dataset
    pairs = [(row["a"], row["b"]) for row in rows]
    logits = torch.tensor(trainer.model.predict(pairs, activation_fn=torch.nn.Identity()))
    right = (logits > 0) == torch.tensor([row["label"] > 0 for row in rows])
    assert trainer.ledger.correct.tolist() == right.tolist()
    torch.testing.assert_close(trainer.ledger.confidence, logits.abs().sigmoid(), rtol=1e-4, atol=1e-5)


# ---- What is refused ----

IN_BATCH = {
    "MultipleNegativesRankingLoss": dense.MultipleNegativesRankingLoss,
    "CachedMultipleNegativesRankingLoss": dense.CachedMultipleNegativesRankingLoss,
    "CoSENTLoss": dense.CoSENTLoss,
    "AnglELoss": dense.AnglELoss,
    "BatchAllTripletLoss": dense.BatchAllTripletLoss,
    "OnlineContrastiveLoss": dense.OnlineContrastiveLoss,
    "MegaBatchMarginLoss": dense.MegaBatchMarginLoss,
    "CachedGISTEmbedLoss": lambda model: dense.CachedGISTEmbedLoss(model, model),
}


class OfMyOwn(dense.MultipleNegativesRankingLoss):
    pass


def unmoved(outputs, inputs):
    """Statistics of a user's own, of triplets: the outputs are what the model returned for each column."""
    a, b, c = (each["sentence_embedding"].detach() for each in outputs)
    loss = functional.relu((a - b).norm(dim=1) - (a - c).norm(dim=1) + 1)
    return SampleStatistics(loss, loss < 1, torch.ones_like(loss))


class NoWide(torch.nn.Module):
    """A loss of the user's own, which no rule knows."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, features, labels):
        a, b, c = (self.model(each)["sentence_embedding"] for each in features)
        return functional.relu((a - b).norm(dim=1) - (a - c).norm(dim=1) + 1).mean()


def matryoshka(inner):
    return lambda model: dense.MatryoshkaLoss(model, inner(model), [16, 8])


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *IN_BATCH.items(),
        ("OfMyOwn", OfMyOwn),
        ("MultipleNegativesRankingLoss", matryoshka(dense.MultipleNegativesRankingLoss)),
    ],
)
def test_a_loss_of_a_batch_is_refused_even_with_a_function(name, loss, tmp_path):
    for options in ({}, {"statistics_fn": unmoved}):
        with pytest.raises(ValueError, match=rf"cannot hide samples\. {name} compares.*in-batch.*policy=.none"):
            make("cosine", tmp_path, loss=loss, **options)


def test_in_batch_losses_train_without_hiding(tmp_path):
    trainer = make("cosine", tmp_path, loss=dense.CoSENTLoss, hiding_policy="none", num_train_epochs=1)
    trainer.train()
    assert trainer.ledger is None


@pytest.mark.parametrize("loss", [NoWide, matryoshka(dense.TripletLoss)], ids=["of my own", "wrapped"])
def test_a_loss_that_is_not_known_needs_a_function(loss, tmp_path):
    with pytest.raises(ValueError, match=r"under \w+ is not known here.*ContrastiveLoss.*statistics_fn.*policy=.none"):
        make("triplets", tmp_path, loss=loss)


def test_a_criterion_that_is_not_known_needs_a_function(tmp_path):
    with pytest.raises(ValueError, match=r"under CosineSimilarityLoss is not known here"):
        make("cosine", tmp_path, loss=lambda model: dense.CosineSimilarityLoss(model, loss_fct=torch.nn.HuberLoss()))


def test_a_function_of_the_users_own_ranks(tmp_path):
    trainer = make("triplets", tmp_path, loss=NoWide, statistics_fn=unmoved, **STILL)
    trainer.train()
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    torch.testing.assert_close(trainer.ledger.loss, alone, rtol=1e-4, atol=1e-5)
    assert int(trainer.ledger.times_hidden.sum()) == 9


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("dict of datasets", {"dataset": datasets.DatasetDict(x=scores(), y=scores())}),
        ("is a stream", {"dataset": scores().to_iterable_dataset()}),
        ("batch_sampler='no_duplicates' draws whole batches", {"batch_sampler": "no_duplicates"}),
        ("batch_sampler='group_by_label' draws whole batches", {"batch_sampler": "group_by_label"}),
    ],
)
def test_batches_that_are_drawn_whole_are_refused(said, options, tmp_path):
    with pytest.raises(ValueError, match=rf"cannot hide samples\..*{said}.*hiding_policy=.none"):
        make("cosine", tmp_path, **options)


class OwnBatches(st.SentenceTransformerTrainer):
    def get_batch_sampler(self, *args, **kwargs):
        return super().get_batch_sampler(*args, **kwargs)


def test_a_batch_sampler_of_the_users_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"OwnBatches.get_batch_sampler draws whole batches"):
        make("cosine", tmp_path, base=OwnBatches)


def test_several_datasets_train_without_hiding(tmp_path):
    several = datasets.DatasetDict(x=scores(), y=scores())
    trainer = make("cosine", tmp_path, dataset=several, hiding_policy="none", num_train_epochs=1)
    trainer.train()
    assert trainer.ledger is None


def test_the_loss_that_is_trained_is_compared(tmp_path):
    """A subclass that changes the last step would be ranked by the loss of before."""

    class Doubled(dense.ContrastiveLoss):
        def forward(self, features, labels):
            return 2 * super().forward(features, labels)

    with pytest.raises(ValueError, match=r"ranked by another loss than the one that is trained.*statistics_fn.*none"):
        make("contrastive", tmp_path, loss=Doubled).train()


def on_each_rank(name, folder):
    trainer = make(name, folder / os.environ["RANK"], per_device_train_batch_size=3, **STILL)
    trainer.train()
    alone = torch.tensor([loss_alone(trainer, index) for index in range(NUM_SAMPLES)])
    return trainer.ledger.state_dict(), alone


@pytest.mark.wide
# A cross encoder fails in the backward pass of DistributedDataParallel with hiding or without.
@pytest.mark.parametrize("name", ["cosine", "contrastive"])
def test_two_processes_record_each_sample_as_it_is_alone(name, tmp_path):
    ranks = run_ranks(2, on_each_rank, name, tmp_path)
    for ledger, alone in ranks:
        torch.testing.assert_close(ledger["loss"], alone, rtol=1e-4, atol=1e-5)
        assert same_tensors(ledger, ranks[0][0])
    assert int(ranks[0][0]["times_hidden"].sum()) == 9
