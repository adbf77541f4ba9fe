"""The callback for Lightning: epochs, refresh, learning rate, checkpoints, logs, and what it refuses."""

import logging
import time
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning")

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from hf_kakurenbo.data import VisibleLoader
from hf_kakurenbo.hiding import AlignedScheduler, HidingRun, KakurenboPolicy, Prediction, single_label_statistics
from hf_kakurenbo.integrations.lightning import HidingCallback

COUNT, EPOCHS, BATCH_SIZE = 200, 6, 16
BATCHES = -(-COUNT // BATCH_SIZE)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _quiet():
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, 8, generator=generator)
    return TensorDataset(x, (x @ torch.randn(8, 3, generator=generator)).argmax(dim=1))


class Module(LightningModule):
    """Notes the ids and the learning rate of each step, and the modules' modes of each measurement."""

    schedule = None

    def __init__(self, schedule=None, statistics=True):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
        self.schedule, self.statistics, self.steps, self.stepping_batches = schedule, statistics, [], None
        self.validated = []

    def forward(self, x):
        return self.layers(x)

    def training_step(self, identified, batch_idx):
        ids, (x, y) = identified
        logits = self(x)
        rate = self.optimizers().param_groups[0]["lr"]
        self.steps.append((self.current_epoch, ids.tolist(), rate))
        loss = nn.functional.cross_entropy(logits, y)
        return {"loss": loss, **({"statistics": single_label_statistics(logits, y)} if self.statistics else {})}

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.current_epoch)
        self.log("val", float(self.current_epoch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        self.stepping_batches = self.trainer.estimated_stepping_batches
        return optimizer if self.schedule is None else self.schedule(optimizer, self.stepping_batches)


def linear(optimizer, updates):
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def halving(optimizer, updates):
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


def statistics(module, batch):
    assert not any(part.training for part in module.modules())
    assert not torch.is_grad_enabled()
    return single_label_statistics(module(batch[0]), batch[1])


def make(callbacks=(), policy=None, module=None, epochs=EPOCHS, **options):
    run = HidingRun(COUNT, policy or KakurenboPolicy(max_hidden_fraction=0.5, move_back=False))
    loader = VisibleLoader(rows(), run, BATCH_SIZE)
    hiding = HidingCallback(loader, statistics)
    defaults = {"logger": False, "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks)}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "reload_dataloaders_every_n_epochs": 1}
    # The callback stands last on purpose: Lightning itself puts those that save behind it.
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[*callbacks, hiding], **{**defaults, **quiet, **options}
    )
    return trainer, module or Module(), loader, hiding


def fit(*args, ckpt_path=None, valid=False, **kwargs):
    trainer, module, loader, hiding = make(*args, **kwargs)
    trainer.fit(module, loader, DataLoader(rows(), 50) if valid else None, ckpt_path=ckpt_path)
    return trainer, module, hiding


def of_epochs(module):
    """The ids of each epoch."""
    found = {}
    for epoch, ids, _ in module.steps:
        found.setdefault(epoch, []).extend(ids)
    return [sorted(ids) for _, ids in sorted(found.items())]


class Hidden(Callback):
    """Notes what each epoch hides while it is trained."""

    def __init__(self):
        self.hidden, self.scales = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        [hiding] = [each for each in trainer.callbacks if isinstance(each, HidingCallback)]
        self.hidden.append(set(hiding.run.ledger.hidden_ids.tolist()))
        self.scales.append(hiding.run.lr_scale)


def test_every_epoch_trains_on_what_it_does_not_hide_and_refreshes_the_rest():
    noted = Hidden()
    _, module, hiding = fit([noted])
    assert [len(hidden) for hidden in noted.hidden] == [0, 100, 80, 80, 60, 40]
    for ids, hidden in zip(of_epochs(module), noted.hidden, strict=True):
        assert ids == sorted(set(range(COUNT)) - hidden)
    run = hiding.run
    assert run.trained_samples == sum(map(len, of_epochs(module)))
    assert run.refreshed_samples == 100 + 80 + 80 + 60  # not after the last epoch
    assert (run.epoch, run.epoch_finished, run.ledger.num_hidden) == (EPOCHS - 1, True, 40)
    assert module.layers.training


def test_the_schedule_keeps_in_step_and_ends_where_it_would_have():
    noted = Hidden()
    trainer, module, _ = fit([noted], module=Module(linear))
    assert module.stepping_batches == EPOCHS * BATCHES
    for epoch, scale in enumerate(noted.scales):
        first = next(rate for number, _, rate in module.steps if number == epoch)
        assert first == pytest.approx(0.1 * (1 - epoch / EPOCHS) * scale)
    [config] = trainer.lr_scheduler_configs
    assert isinstance(config.scheduler, AlignedScheduler)
    assert config.scheduler.last_epoch == EPOCHS * BATCHES
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("schedule", "plain"), [(None, [0.1] * 6), (halving, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025])])
def test_rates_without_a_schedule_or_with_one_by_epochs_are_compensated(schedule, plain):
    noted = Hidden()
    trainer, module, _ = fit([noted], module=Module(schedule))
    rates = {epoch: rate for epoch, _, rate in module.steps}
    assert max(noted.scales) == 2.0
    assert list(rates.values()) == pytest.approx(
        [rate * scale for rate, scale in zip(plain, noted.scales, strict=True)]
    )
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(plain[-1] * (1 if schedule is None else 0.5))


def test_accumulated_updates_are_counted():
    trainer, module, _ = fit(module=Module(linear), accumulate_grad_batches=3)
    assert module.stepping_batches == EPOCHS * -(-BATCHES // 3)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == module.stepping_batches


def test_each_epoch_is_validated_though_it_is_shorter():
    _, module, _ = fit(valid=True, num_sanity_val_steps=0)
    assert sorted(set(module.validated)) == list(range(EPOCHS))
    assert len(module.validated) == EPOCHS * 4


def test_a_validation_is_no_time_of_the_training(monkeypatch):
    """The clock goes a second with each batch that is validated, and stands still otherwise."""
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])

    class Slow(Module):
        def validation_step(self, batch, batch_idx):
            seconds[0] += 1

    _, _, hiding = fit(module=Slow(), valid=True)
    assert seconds[0] > EPOCHS * 4
    assert hiding.run.seconds == 0


def test_logits_and_labels_do_too():
    class Predicting(Module):
        def training_step(self, identified, batch_idx):
            returned = super().training_step(identified, batch_idx)
            x, y = identified.batch
            return {**returned, "statistics": Prediction(single_label_statistics, self(x), y)}

    _, _, hiding = fit(module=Predicting())
    assert hiding.run.trained_samples == COUNT * EPOCHS - 360
    assert not hiding.run.ledger.loss.isnan().any()


def test_mixed_precision():
    _, module, hiding = fit(precision="bf16-mixed")
    assert hiding.run.refreshed_samples == 100 + 80 + 80 + 60
    assert len(of_epochs(module)) == EPOCHS


def test_the_figures_are_logged():
    trainer, _, hiding = fit()
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["kakurenbo/visible_samples"] == hiding.run.visible_samples == 160
    assert logged["kakurenbo/lr_scale"] == pytest.approx(1.25)


@pytest.mark.parametrize("schedule", [None, linear, halving])
@pytest.mark.parametrize("when", ["epoch", "step", "validation"])
def test_resumed_from_any_checkpoint_it_is_as_never_stopped(when, schedule, tmp_path):
    options = {
        "epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        "step": {"every_n_train_steps": 7},
        "validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    }[when]
    valid = {"valid": when == "validation", "num_sanity_val_steps": 0}
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}-{step}", **options)
    _, whole, hiding = fit([saving], module=Module(schedule), **valid)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(checkpoints) > 4
    for checkpoint in checkpoints[2:-1:2]:
        _, module, resumed = fit(module=Module(schedule), ckpt_path=checkpoint, **valid)
        assert module.steps == whole.steps[-len(module.steps) :]
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, whole.state_dict()[name])
        assert torch.equal(resumed.run.ledger.loss, hiding.run.ledger.loss)
        assert torch.equal(resumed.run.ledger.times_hidden, hiding.run.ledger.times_hidden)
        assert resumed.run.trained_samples == hiding.run.trained_samples


def test_a_training_that_stops_early_has_no_epoch_that_was_only_begun():
    class Stopper(EarlyStopping):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    trainer, module, hiding = fit([Stopper("kakurenbo/lr_scale", check_on_train_epoch_end=True)])
    assert len(of_epochs(module)) == 3
    run = hiding.run
    assert (run.epoch, run.epoch_finished, run.next_epoch) == (2, True, 3)
    assert int(run.ledger.times_hidden.sum()) == 100 + 80
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1


def test_so_many_updates():
    _, module, hiding = fit(epochs=-1, max_steps=40)
    assert len(module.steps) == 40
    run = hiding.run
    assert run.trained_samples == sum(len(ids) for _, ids, _ in module.steps)
    assert run.epoch_finished
    assert run.ledger.times_hidden.any()


def test_a_quick_check_trains_on_one_batch():
    _, module, _ = fit(fast_dev_run=True)
    assert len(module.steps) == 1


# ---- What is refused ----


def test_a_trainer_that_keeps_the_first_length_is_refused():
    with pytest.raises(ValueError, match="reload_dataloaders_every_n_epochs=0"):
        fit(reload_dataloaders_every_n_epochs=0)


def test_epochs_of_fewer_batches_than_there_are_are_refused():
    with pytest.raises(RuntimeError, match="Lightning expects 5 batches in epoch 0, and the callback's loader has 13"):
        fit(limit_train_batches=5)


def test_a_loader_of_somebody_else_is_refused():
    trainer, module, loader, _ = make()
    plain = DataLoader(list(zip(torch.arange(COUNT), rows(), strict=True)), BATCH_SIZE)
    assert len(plain) == len(loader)
    with pytest.raises(TypeError, match=r"A training batch has no ids \(list\)"):
        trainer.fit(module, plain)


def test_a_step_without_statistics_is_refused():
    with pytest.raises(TypeError, match=r'its "statistics" are NoneType'):
        fit(module=Module(statistics=False))


def test_a_run_of_another_training_is_refused():
    _, _, hiding = fit(epochs=2)
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[hiding],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        reload_dataloaders_every_n_epochs=1,
    )
    with pytest.raises(RuntimeError, match="Lightning begins with epoch 0, and the run with epoch 2"):
        trainer.fit(Module(), hiding.loader)
