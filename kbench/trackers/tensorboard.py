"""TensorBoard event files in `<run>/tensorboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Tensorboard:
    """Scalars by scope; the final metrics under `result`."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError("tensorboard is not installed: pip install 'kbench[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def metrics(self, scope: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{scope}/{name}", value, step)

    def finish(self, summary: dict[str, Any], state: str) -> None:
        for name, value in summary.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"result/{name}", value, 0)
        self._writer.close()
