"""The processes, device and number format a run is computed with. accelerate is used here and in the loop only."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from kbench.engine.recipe import Precision
from kbench.errors import InterruptedRunError, Problem, UserError

_PATIENCE = timedelta(hours=12)  # a process may wait this long for a stage that another run is building
_DTYPES = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


class Runtime:
    """One process of a run, and its group.

    Args:
        device: cpu or cuda.
        micro_batch_size: rows at once in training; accumulation follows from the recipe's global batch.
        eval_batch_size: rows at once elsewhere.
        threads: CPU threads of this process; None leaves torch's own choice.
        checkpoint_seconds: time between checkpoints.

    Raises:
        UserError: cuda is asked for and not there.
    """

    def __init__(
        self,
        device: str = "cpu",
        micro_batch_size: int = 16,
        eval_batch_size: int = 64,
        threads: int | None = None,
        checkpoint_seconds: float = 120.0,
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError(Problem("hardware", "asks for a GPU; torch sees none", "hardware=cpu, or kbench doctor"))
        if threads is not None:
            torch.set_num_threads(threads)
        self._cpu = device == "cpu"
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.checkpoint_seconds = checkpoint_seconds
        self.stop = threading.Event()
        self._accelerator = self._make(Precision.fp32)
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.processes: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process

    def accelerator(self, precision: Precision) -> Accelerator:
        """A fresh accelerator of this number format; the process group stays."""
        self._accelerator = self._make(precision)
        return self._accelerator

    def _make(self, precision: Precision) -> Accelerator:
        AcceleratorState._reset_state()  # a process may not change its mind otherwise
        mixed = "no" if precision is Precision.fp32 else precision.value
        handlers = [InitProcessGroupKwargs(timeout=_PATIENCE)]
        return Accelerator(cpu=self._cpu, mixed_precision=mixed, kwargs_handlers=handlers)

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """The number format of a forward pass outside training."""
        if precision is Precision.fp32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[precision])

    def broadcast(self, value: Any) -> Any:
        """The main process's value, on every process."""
        return broadcast_object_list([value])[0] if self.processes > 1 else value

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            self._accelerator.wait_for_everyone()

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all processes, on every process, in the order of the ranks."""
        return gather_object(items) if self.processes > 1 else items

    def gather_rows(self, tensor: Any) -> Any:
        """The rows of all processes, in the order of the ranks; each may have another number of them."""
        if self.processes == 1:
            return tensor
        counts = self._accelerator.gather(torch.tensor([len(tensor)], device=self.device)).tolist()
        whole = self._accelerator.gather(self._accelerator.pad_across_processes(tensor.contiguous(), dim=0))
        return torch.cat([part[:count] for part, count in zip(whole.chunk(self.processes), counts, strict=True)])

    def sum(self, tensor: Any) -> Any:
        """The sum of a tensor over all processes, on every process."""
        return self._accelerator.reduce(tensor, reduction="sum") if self.processes > 1 else tensor

    def mean(self, tensor: Any) -> Any:
        """The mean likewise."""
        return self._accelerator.reduce(tensor, reduction="mean") if self.processes > 1 else tensor

    def peak_memory(self) -> dict[str, int]:
        """Largest memory this process has held, in MiB: `resident` of the host, `device` of the GPU."""
        import resource

        found = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        if self.device.type == "cuda":
            found["device"] = torch.cuda.max_memory_allocated() // 2**20
        return found

    def check_stop(self) -> None:
        """End work that is stored in pieces where the run was asked to stop.

        Raises:
            InterruptedRunError: it was. Several processes are not asked but ended, by their launcher.
        """
        if self.stop.is_set():
            raise InterruptedRunError("stopped; the same command continues")

    def describe(self) -> dict[str, Any]:
        """What it is computed on, for the record."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        return {
            "device": name,
            "processes": self.processes,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "micro_batch_size": self.micro_batch_size,
        }

    def close(self) -> None:
        """End the process group."""
        if self.processes > 1:
            PartialState().destroy_process_group()
