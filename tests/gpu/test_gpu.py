"""What only a GPU can show; skipped, and said so, without one."""

from __future__ import annotations

import pytest
import torch

from ..conftest import QUICK, command

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_one_gpu(precision, tmp_path):
    words = ["method=muki", *QUICK, "hardware=gpu", f"train.precision={precision}", f"teacher.precision={precision}"]
    done = command(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
