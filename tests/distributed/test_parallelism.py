"""Worlds other than one batch for each rank of torch.distributed: what is refused, what is warned of, what is known."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, ParallelismConfig
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from hf_kakurenbo.data import untouched_random_state
from hf_kakurenbo.distributed import barrier
from hf_kakurenbo.distributed.data_parallel import DataParallelWorld, data_parallel_world
from hf_kakurenbo.trainer.parallelism import warn_of_missing_processes
from processes import run
from stream_toy import streamed
from toy import NUM_SAMPLES, LinearClassifier, losses, make_trainer, same_tensors, trained, without_timings

# ---- Which ranks have the same batch ----


class Mesh(SimpleNamespace):
    """As much of a device mesh as Accelerate asks for."""

    def __getitem__(self, name):
        size = self.shape[self.mesh_dim_names.index(name)]
        return SimpleNamespace(size=lambda: size)


@pytest.mark.parametrize(
    ("names", "shape", "group_size"),
    [
        (("tp",), (2,), 2),
        (("dp_shard", "tp"), (2, 2), 2),
        (("dp_shard", "tp"), (3, 4), 4),
        (("dp_replicate", "dp_shard", "tp"), (2, 2, 3), 3),
        (("dp_shard",), (4,), 1),
        (("dp_replicate", "dp_shard"), (2, 2), 1),
    ],
    ids=str,
)
def test_samples_are_shared_as_accelerate_shares_them(names, shape, group_size):
    ranks, mesh = torch.Size(shape).numel(), Mesh(mesh_dim_names=names, shape=shape)
    given = []
    for rank in range(ranks):
        accelerator = SimpleNamespace(
            num_processes=ranks, process_index=rank, torch_device_mesh=mesh, distributed_type="MULTI_GPU"
        )
        ours = data_parallel_world(accelerator)
        assert (ours.size * ours.group_size, ours.rank * ours.group_size + ours.group_rank) == (ranks, rank)
        assert ours.group_size == group_size
        sharded = [
            prepare_data_loader(DataLoader(range(50), batch_size=2), put_on_device=False, **where)
            for where in (
                {"num_processes": ranks, "process_index": rank, "torch_device_mesh": mesh},
                {"num_processes": ours.size, "process_index": ours.rank},
            )
        ]
        theirs, with_ours = ([batch.tolist() for batch in loader] for loader in sharded)
        assert with_ours == theirs
        given.append(theirs)
    assert all(given[rank] == given[rank - rank % group_size] for rank in range(ranks))
    firsts = [tuple(batches[0]) for batches in given[::group_size]]
    assert len(set(firsts)) == len(firsts) == ranks // group_size


def test_deepspeed_says_in_its_configuration_which_ranks_have_the_same_batch():
    def world(config):
        plugin = SimpleNamespace(deepspeed_config=config)
        return data_parallel_world(
            SimpleNamespace(
                num_processes=8,
                process_index=5,
                torch_device_mesh=None,
                distributed_type=DistributedType.DEEPSPEED,
                deepspeed_plugin=plugin,
            )
        )

    assert world({"tensor_parallel": {"autotp_size": 4}}) == DataParallelWorld(2, 1, 4, 1)
    assert world({"tensor_parallel": {"autotp_size": 0}}) == world({}) == DataParallelWorld(8, 5)


# ---- What is refused ----

TENSOR_PARALLEL = Mesh(mesh_dim_names=("tp",), shape=(2,))


class Divided(LinearClassifier):
    """A model that says that `from_pretrained` divided it into the stages of a pipeline."""

    is_distributed_loading_by_transformers = True

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(distributed_config=SimpleNamespace(tp_size=1, pp_size=2, tp_plan=None))


class Sizes(ParallelismConfig):
    """Sizes that Accelerate would refuse in one process on the CPU."""

    def get_device_mesh(self, device_type=None):
        return None

    def _validate_accelerator(self, accelerator):
        pass


def with_sizes(**sizes):
    config = Sizes()
    vars(config).update(sizes)
    return with_attribute("parallelism_config", config)


def with_attribute(name, value):
    return lambda patch: patch.setattr(Accelerator, name, value)


def with_argument(name, value):
    return lambda patch: patch.setattr(TrainingArguments, name, value)


REFUSED = {
    r"Context parallelism \(cp_size=2\)": (with_sizes(cp_size=2), {}),
    r"Sequence parallelism \(sp_size=2\)": (with_sizes(sp_size=2), {}),
    r"Parallelism \(new_size=4\)": (with_sizes(new_size=4, tp_size=2), {}),
    r"Pipeline parallelism \(pp_size=2\)": (lambda patch: None, {"model": Divided}),
    r"the dimension 'new' \(2 ranks\)": (
        with_attribute("torch_device_mesh", Mesh(mesh_dim_names=("new",), shape=(2,))),
        {},
    ),
    "Megatron-LM": (with_attribute("distributed_type", DistributedType.MEGATRON_LM), {}),
    "SageMaker": (with_argument("parallel_mode", ParallelMode.SAGEMAKER_MODEL_PARALLEL), {}),
    r"Accelerate trains with 4 processes \(distributed_type=XLA\), and torch.distributed has 1": (
        lambda patch: (
            with_attribute("num_processes", 4)(patch),
            with_attribute("distributed_type", DistributedType.XLA)(patch),
        ),
        {},
    ),
    r"Accelerate trains with 1 process \(distributed_type=NO\), and torch.distributed has 3": (
        lambda patch: patch.setattr("hf_kakurenbo.trainer.parallelism.world_size", lambda: 3),
        {},
    ),
    'accelerator_config={"dispatch_batches": False}': (
        with_attribute("torch_device_mesh", TENSOR_PARALLEL),
        {"accelerator_config": {"dispatch_batches": True}},
    ),
    "the default for streams": (
        with_attribute("torch_device_mesh", TENSOR_PARALLEL),
        {"dataset": streamed(), "num_samples": NUM_SAMPLES},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path, monkeypatch, message):
    patch, options = REFUSED[message]
    patch(monkeypatch)
    with pytest.raises(ValueError, match=f'{message}.*hiding_policy="none"'):
        make_trainer(tmp_path, **options)
    make_trainer(tmp_path, hiding_policy="none", **{**options, "max_steps": 1})


def pretend_two_ranks_share_a_batch(patch):
    patch.setattr(Accelerator, "torch_device_mesh", TENSOR_PARALLEL)
    patch.setattr(Accelerator, "num_processes", 2)
    patch.setattr(TrainingArguments, "world_size", 2)
    patch.setattr("hf_kakurenbo.trainer.parallelism.world_size", lambda: 2)


def test_a_stream_that_is_not_dispatched_is_not_refused(tmp_path, monkeypatch):
    pretend_two_ranks_share_a_batch(monkeypatch)
    options = {"dataset": streamed(), "num_samples": NUM_SAMPLES}
    make_trainer(tmp_path, accelerator_config={"dispatch_batches": False}, **options)


def test_the_updates_of_an_epoch_are_those_of_the_groups(tmp_path, monkeypatch, caplog):
    pretend_two_ranks_share_a_batch(monkeypatch)
    make_trainer(tmp_path, max_steps=13)  # one epoch of 203 samples in batches of 16; two, if each rank had its own
    assert "Nothing will be hidden in this training (max_steps=13, 13 in an epoch)" in caplog.text
    caplog.clear()
    make_trainer(tmp_path, max_steps=14)
    assert "Nothing will be hidden" not in caplog.text


# ---- What is warned of ----


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but this process trains alone"),
        ({"MASTER_ADDR": "here", "ACCELERATE_USE_CPU": "False"}, "If `accelerate launch` was asked for several"),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "here", "ACCELERATE_USE_CPU": "False"}, None),
        ({"MASTER_ADDR": "here"}, None),
        ({"ACCELERATE_USE_CPU": "True"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_processes_that_are_missing(monkeypatch, caplog, environment, warning):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    warn_of_missing_processes(SimpleNamespace(num_processes=1))
    if warning is None:
        assert not caplog.text
    else:
        assert warning in caplog.text
    caplog.clear()
    warn_of_missing_processes(SimpleNamespace(num_processes=2))
    assert not caplog.text


def test_processes_that_are_missing_are_told_when_a_training_begins(tmp_path, monkeypatch, caplog):
    trainers = [make_trainer(tmp_path, max_steps=1, hiding_policy=policy) for policy in ("none", "kakurenbo")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    trainers[0].train()
    assert "trains alone" not in caplog.text
    trainers[1].train()
    assert "trains alone" in caplog.text


SCRIPT = """
import sys
from toy import make_trainer
from accelerate.state import PartialState

make_trainer(sys.argv[1], num_train_epochs=1).train()
print("processes:", PartialState().num_processes)
"""


@pytest.mark.wide
@pytest.mark.parametrize("asked", [1, 2])
def test_accelerate_launch_starts_one_process_where_there_is_no_gpu(tmp_path, asked):
    script, tests = tmp_path / "script.py", Path(__file__).parents[1]
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(asked)]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "MASTER_ADDR")}
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "processes: 1" in done.stdout
    assert ("If `accelerate launch` was asked for several" in done.stderr) == (asked > 1)


# ---- Devices of which PyTorch has no module, or no generator ----


class Generator:
    """Stands for a device's random generator: its state counts what was drawn."""

    def __init__(self):
        self.drawn = 7

    def get_rng_state(self, *device):
        self.devices = device
        return torch.tensor(self.drawn)

    def set_rng_state(self, state, *device):
        assert device == self.devices
        self.drawn = int(state)


@pytest.mark.parametrize(
    ("device", "module", "takes_device"),
    [
        ("hpu", "torch.hpu", True),
        ("hpu", "torch.hpu.random", True),
        ("mtia:1", "torch.mtia", True),
        ("privateuseone:3", "torch.privateuseone", True),
        ("mps", "torch.mps", False),
        ("xla", "torch_xla.core.xla_model", False),
    ],
)
def test_the_generator_of_a_device_is_left_as_it_was(monkeypatch, device, module, takes_device):
    generator = Generator()
    if module.startswith("torch_xla"):
        monkeypatch.setitem(sys.modules, module, generator)
    else:
        monkeypatch.setattr(
            torch,
            module.split(".")[1],
            SimpleNamespace(random=generator) if module.endswith("random") else generator,
            raising=False,
        )
    state = torch.get_rng_state()
    with untouched_random_state(device):
        generator.drawn += 5
        torch.rand(3)
    assert generator.drawn == 7
    assert generator.devices == ((torch.device(device),) if takes_device else ())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("device", ["meta", "xla", "hpu", "ipu", "vulkan", "privateuseone", "cpu"])
def test_a_device_without_a_generator_is_no_hindrance(device):
    state = torch.get_rng_state()
    with untouched_random_state(device):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)


def left_on_a_plugins_device(registers):
    """What a plugin for a device of its own kind is called for by a refresh; with or without a module of torch."""
    torch.utils.rename_privateuse1_backend("npu")
    generator = Generator()
    if registers:
        torch._register_device_module("npu", generator)
    with untouched_random_state("npu:3"):
        generator.drawn += 5
    return generator.drawn, str(getattr(generator, "devices", None))


@pytest.mark.wide
def test_a_plugins_device():
    assert run(left_on_a_plugins_device, True)[1] == (7, "(device(type='npu', index=3),)")
    assert run(left_on_a_plugins_device, False)[1] == (12, "None")


# ---- Accelerate's loader on XLA devices, PyTorch without torch.distributed, ranks without a store ----


class Wrapped:
    """As much of the prepared loader inside as Accelerate's loader for XLA devices has of it."""

    def __init__(self, loader):
        self._loader = loader
        self.device = torch.device("cpu")

    def __iter__(self):
        return iter(self._loader)

    def __len__(self):
        return len(self._loader)

    def set_epoch(self, epoch):
        self._loader.set_epoch(epoch)

    @property
    def batch_sampler(self):
        return self._loader.batch_sampler

    @property
    def dataloader(self):
        return self._loader


@pytest.mark.parametrize("kind", ["map-style", "stream"])
def test_a_loader_within_another_as_on_xla_devices(tmp_path, monkeypatch, kind):
    options = {"hiding_policy": "first_ids", "num_train_epochs": 3}
    if kind == "stream":
        options |= {"dataset": streamed(), "num_samples": NUM_SAMPLES}
    expected = trained(tmp_path, **options)
    prepare = Accelerator.prepare_data_loader
    monkeypatch.setattr(Accelerator, "prepare_data_loader", lambda *args, **kwargs: Wrapped(prepare(*args, **kwargs)))
    wrapped = trained(tmp_path, **options)
    assert isinstance(wrapped._training.loader, Wrapped)
    assert wrapped._training.run.refreshed_samples == expected._training.run.refreshed_samples > 0
    assert same_tensors(wrapped.ledger.state_dict(), expected.ledger.state_dict())
    assert without_timings(losses(wrapped)) == without_timings(losses(expected))


def test_pytorch_without_torch_distributed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed.distributed_c10d", None)
    spec = importlib.util.spec_from_file_location("hf_kakurenbo.distributed.once_more", barrier.__file__)
    once_more = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(once_more)
    with once_more.MonitoredBarrier() as monitored:
        monitored.begin_step()
        monitored.wait("here")


def test_ranks_without_a_store_go_on_without_the_barrier(monkeypatch):
    monkeypatch.setattr(barrier, "world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.distributed_c10d._get_default_store", lambda: None)
    with barrier.MonitoredBarrier() as monitored:
        monitored.wait("here")
