"""A step of masked-LM training with the head at labelled positions, against one with logits everywhere.

The model has XLM-R base's vocabulary (250,002) and width, and 12 layers unless told otherwise; weights are random.
    python benchmarks/head.py [--layers 12] [--rows 8] [--length 64]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from kbench.backbones.masked_lm import logits_at

TARGET = 2.0


def compare(layers: int = 12, rows: int = 8, length: int = 64, repeats: int = 3) -> tuple[float, float]:
    """Seconds of a step with all logits over those with some, and how far their losses differ."""
    torch.manual_seed(0)
    shape = {"vocab_size": 250_002, "hidden_size": 768, "num_hidden_layers": layers, "num_attention_heads": 12}
    config = XLMRobertaConfig(**shape, intermediate_size=3072, max_position_embeddings=514, pad_token_id=1)
    model = XLMRobertaForMaskedLM(config).eval()  # without dropout both give the same loss
    ids = torch.randint(5, 250_000, (rows, length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    generator = np.random.default_rng(0)
    positions = torch.from_numpy(np.flatnonzero(generator.random(rows * length) < 0.15))
    labels = ids.reshape(-1)[positions]

    def some() -> torch.Tensor:
        return cross_entropy(logits_at(model, inputs, positions).float(), labels)

    def everywhere() -> torch.Tensor:
        target = torch.full((rows * length,), -100)
        target[positions] = labels
        return cross_entropy(model(**inputs).logits.float().flatten(0, 1), target)

    seconds: dict[str, list[float]] = {"some": [], "everywhere": []}
    losses = {}
    for _ in range(repeats + 1):
        for name, step in (("some", some), ("everywhere", everywhere)):
            model.zero_grad()
            began = time.perf_counter()
            loss = step()
            loss.backward()
            seconds[name].append(time.perf_counter() - began)
            losses[name] = float(loss.detach())
    ratio = min(seconds["everywhere"][1:]) / min(seconds["some"][1:])
    return ratio, abs(losses["some"] - losses["everywhere"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    given = parser.parse_args()
    found, difference = compare(given.layers, given.rows, given.length)
    print(f"all logits / labelled only: {found:.2f} (target >= {TARGET}); losses differ by {difference:.1e}")
    sys.exit(found < TARGET)
