"""Runs Ultralytics' distributed training on CPU processes, and notes what each of them does.

Only what asks for CUDA devices by name is replaced; the launcher, the generated file, its workers and the wrapping of
the model are Ultralytics' and PyTorch's own. Workers get this module with their callbacks, which are its functions.
Since most of their time goes into imports, ``Forks`` can take the launcher's place: the same file, run by processes
that have imported everything.
"""

from __future__ import annotations

import copy
import os
import random
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from ultralytics.engine import trainer as engine
from ultralytics.engine import validator
from ultralytics.utils.torch_utils import unwrap_model

CPU = torch.device("cpu")
TWO = "0,1"  # what a user gives as device


class OnCPU(DistributedDataParallel):
    """Takes device_ids of a CPU model as none."""

    def __init__(self, module: Any, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, **options)


def install(replace: Callable[[Any, str, Any], None]) -> None:
    """Let ``device="0,1"`` mean two processes on the CPU, by ``replace(object, name, value)``."""
    init, setup, backend = engine.BaseTrainer.__init__, engine.BaseTrainer._setup_ddp, validator.AutoBackend

    def on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.device = CPU

    def gloo(self: Any) -> None:
        setup(self)
        self.device = CPU

    replace(engine, "select_device", lambda device, *_, **__: torch.device("cuda", 0) if "," in device else CPU)
    replace(engine.BaseTrainer, "__init__", on_cpu)
    replace(engine.BaseTrainer, "_setup_ddp", gloo)
    replace(dist, "is_nccl_available", lambda: False)
    replace(torch.cuda, "set_device", lambda index: None)
    replace(torch.cuda, "current_device", lambda: 0)
    replace(torch.nn.parallel, "DistributedDataParallel", OnCPU)
    replace(validator, "AutoBackend", lambda *args, **kwargs: backend(*args, **{**kwargs, "device": CPU}))


if "LOCAL_RANK" in os.environ:
    install(setattr)


# -- processes without imports


class Forks:
    """A process that has imported everything, and copies itself for every run; takes the place of ``subprocess``."""

    CalledProcessError = subprocess.CalledProcessError

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, command: list[str], check: bool = True) -> None:
        """Run the file of a launcher's command line."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", "import cpu_ranks; cpu_ranks.serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        assert self._server.stdin is not None and self._server.stdout is not None
        print(command[command.index("--master_port") + 1], command[-1], file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline() or 1)
        if code:
            raise subprocess.CalledProcessError(code, command)

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.communicate()


def serve() -> None:
    """What that process does: a line in, two processes, their exit code out."""
    import torch._dynamo  # what tracing imports
    import torch._inductor

    import yoloquant.training.prune.trainer
    import yoloquant.training.qat.trainer  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        port, file = line.split(maxsplit=1)
        ranks = [_fork(rank, port, file.strip()) for rank in (0, 1)]
        codes = []
        while ranks:
            process, status = os.wait()
            ranks.remove(process)
            codes.append(os.waitstatus_to_exitcode(status))
            if codes[-1]:
                for other in ranks:  # it would wait for the one that ended
                    os.kill(other, signal.SIGKILL)
        print(codes[0], flush=True)


def _fork(rank: int, port: str, file: str) -> int:
    process = os.fork()
    if process:
        return process
    os.dup2(2, 1)  # the answer goes there
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    for module in list(sys.modules.values()):
        for name in {"RANK", "LOCAL_RANK"} & set(getattr(module, "__dict__", ())):
            setattr(module, name, rank)
    code = 1
    try:
        install(setattr)
        runpy.run_path(file, run_name="__main__")
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stderr.flush()
        os._exit(code)


# -- callbacks


def note_start(trainer: Any) -> None:
    """The model before the first step, and from then on every batch."""
    model = unwrap_model(trainer.model)
    notes = trainer.notes = {
        "start": copy.deepcopy(model.state_dict()),
        "batches": [],
        "steps": [],
        "rank": engine.RANK,
    }
    notes["wrapped"] = type(trainer.model).__mro__[1].__name__
    prepare = trainer.preprocess_batch

    def noting(batch: Any) -> Any:
        found = prepare(batch)
        if not notes["batches"]:
            notes["batches"].append({k: v for k, v in found.items() if isinstance(v, torch.Tensor)})
        return found

    trainer.preprocess_batch = noting


def note_batch(trainer: Any) -> None:
    """Gradients of the first batch, and the learned parts of the model after every one."""
    model, notes = unwrap_model(trainer.model), trainer.notes
    if "gradients" not in notes:
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        notes["gradients"] = copy.deepcopy(found)
    notes["steps"].append({n: p.detach().clone() for n, p in model.named_parameters()})


def keep_first_checkpoint(trainer: Any) -> None:
    """last.pt of the first epoch, as an interrupted run leaves it."""
    if trainer.epoch == 0:
        (trainer.wdir / "interrupted.pt").write_bytes(trainer.last.read_bytes())


def write_notes(trainer: Any) -> None:
    """What a process ends with, in the run folder."""
    notes = trainer.notes
    masks = {} if trainer.masks is None else trainer.masks.tensors
    found = {
        **notes,
        "end": unwrap_model(trainer.model).state_dict(),
        "average": trainer.ema.ema.state_dict(),
        "masks": masks,
        "images": sorted(Path(f).name for f in _seen(trainer)),
        "epoch": trainer.epoch,
        "random": (random.random(), float(np.random.random()), float(torch.rand(()))),
    }
    torch.save(found, trainer.save_dir / f"rank{notes['rank']}.pt")


def _seen(trainer: Any) -> list[str]:
    files = trainer.train_loader.dataset.im_files
    return [files[i] for i in trainer.train_loader.sampler]


CALLBACKS = {
    "on_train_start": note_start,
    "on_train_batch_end": note_batch,
    "on_model_save": keep_first_checkpoint,
    "teardown": write_notes,
}
