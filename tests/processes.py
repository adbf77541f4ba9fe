"""Trainings in processes of their own: several ranks over gloo, and processes that may be killed."""

import io
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# A server that has imported everything once and forks the processes; it finds `toy` through the environment.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["toy", "processes"])


def run(function: Callable[..., Any], *args: Any) -> tuple[int | None, Any]:
    """Call a function in a process of its own; the exit code (−9 when killed) and what it returned."""
    [(code, result)] = _run_all([{}], function, args)
    return code, result


def run_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call a function in processes that train together over gloo; what it returned on each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]
    outcomes = _run_all(environments, _checking_world_size, (world_size, function, *args))
    return [result for _, result in outcomes]


def _checking_world_size(world_size: int, function: Callable[..., Any], *args: Any) -> Any:
    result = function(*args)
    assert torch.distributed.get_world_size() == world_size, "the processes did not train together"
    return result


def _run_all(
    environments: list[dict[str, str]], function: Callable[..., Any], args: tuple[Any, ...]
) -> list[tuple[int | None, Any]]:
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in environments]
    processes = [
        _CONTEXT.Process(target=_call, args=(writer, environment, function, args), daemon=False)
        for (_, writer), environment in zip(pipes, environments, strict=True)
    ]
    for process, (_, writer) in zip(processes, pipes, strict=True):
        process.start()
        writer.close()
    try:
        results = [_receive(reader) for reader, _ in pipes]
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    errors = [result[1] for result in results if result is not None and result[0] == "error"]
    if errors:
        raise AssertionError("\n".join(errors))
    return [
        (process.exitcode, None if result is None else result[1])
        for process, result in zip(processes, results, strict=True)
    ]


def _receive(reader: Any) -> tuple[str, Any] | None:
    """What the process sent, or None if it died before; how long that may take is the test's to limit."""
    try:
        received = reader.recv_bytes()
    except EOFError:
        return None
    return torch.load(io.BytesIO(received), weights_only=False)


def _call(writer: Any, environment: dict[str, str], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    try:
        outcome = ("result", function(*args))
    except BaseException:
        outcome = ("error", traceback.format_exc())
    copied = io.BytesIO()  # tensors would travel as shared memory, which ends with the process
    torch.save(outcome, copied)
    writer.send_bytes(copied.getvalue())
    writer.close()
    os._exit(0)  # without waiting for the other ranks to leave the process group
