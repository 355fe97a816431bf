"""What TRELM's memory bank is told of a mention, and what it holds of an entity before (arXiv 2403.11203, section 3.3).

    n(e, x) = mean of the last hidden states H over [l - k, r + k), tokens only          (equation 4)
    M_l[e] starts as the mean of the token embeddings of the entity's name               (said: pre-trained embeddings)

x is the whole sequence the encoder saw, which may be several sentences. The banks are in `banks`, the sum that is
injected in `injection`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kbench.engine.counter import uniform
from kbench.engine.feed import moved

DIVISORS = ("actual", "printed")
_NAMELESS = 0.1  # standard deviation of a start without a name (CoLAKE's released code)


@torch.no_grad()
def local_notes(
    states: Tensor,
    attention: Tensor,
    special: Tensor,
    rows: Tensor,
    starts: Tensor,
    stops: Tensor,
    k: int,
    divisor: str = "actual",
) -> Tensor:
    """n(e, x) of mentions, float32 [M, d], detached.

    Args:
        states: H [B, L, d], of any number format; summed in float64.
        attention: 1 at tokens and 0 at padding [B, L].
        special: where special tokens are [B, L]; neither they nor padding count.
        rows: row of each mention, int64 [M].
        starts, stops: its tokens [l, r), int64 [M].
        k: tokens left and right of it (paper: 16); the ends of the sequence cut the window.
        divisor: "actual": the number of tokens that count; "printed": 2 k + r - l, whatever was cut off.
    """
    if divisor not in DIVISORS:
        raise ValueError(f"divisor is {' or '.join(DIVISORS)}, not {divisor!r}")
    counted = attention.bool() & ~special.bool()
    length = states.shape[1]
    first, last = (starts - k).clamp(0, length), (stops + k).clamp(0, length)
    # float64: a difference of two long sums; masked, not multiplied: padding may hold what is no number
    sums = pad(states.double().masked_fill(~counted[..., None], 0).cumsum(1), (0, 0, 1, 0))
    numbers = pad(counted.long().cumsum(1), (1, 0))
    number = numbers[rows, last] - numbers[rows, first] if divisor == "actual" else 2 * k + stops - starts
    return ((sums[rows, last] - sums[rows, first]) / number.clamp_min(1)[:, None]).float()


def cls_states(states: Tensor, rows: Tensor) -> Tensor:
    """H of the first token of each mention's row, for the global memory; float32 [M, d], detached."""
    return states[:, 0].detach()[rows].float()


class NameMeans:
    """The local memory of entities that were not seen yet: the mean embedding of the tokens of their names.

    An entity without a name gets Gaussian numbers of standard deviation 0.1, a function of the entity (CoLAKE's way).
    It must say the same whenever it is asked, so it keeps a copy of the embeddings as they are now.

    Args:
        embeddings: of tokens [V, d]; the result is on their device.
        tokens: gives of entities [U] the token ids of their names one after another, and where each ends [U].
        seed: of the nameless.
    """

    def __init__(
        self, embeddings: Tensor, tokens: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], seed: int = 0
    ):
        self._embeddings = embeddings.detach().clone()
        self._tokens, self._seed = tokens, seed

    def __call__(self, entities: np.ndarray) -> Tensor:
        """Float32 [U, d] of entities [U]."""
        table = self._embeddings
        ids, ends = self._tokens(entities)
        lengths = np.diff(ends, prepend=0)
        chosen = table[moved(torch.from_numpy(np.asarray(ids, dtype=np.int64)), table.device)].double()
        sizes = moved(torch.from_numpy(lengths.astype(np.int64)), table.device)
        sums = torch.segment_reduce(chosen, "sum", lengths=sizes, axis=0, unsafe=True)
        means = (sums / sizes.clamp_min(1)[:, None]).float()
        nameless = np.flatnonzero(lengths == 0)
        if len(nameless):
            drawn = _gaussian(self._seed, entities[nameless], table.shape[1]) * _NAMELESS
            means[moved(torch.from_numpy(nameless), table.device)] = torch.from_numpy(drawn).float().to(table.device)
        return means


def _gaussian(seed: int, entities: np.ndarray, width: int) -> np.ndarray:
    """Standard normal numbers [U, width], each a function of entity and place (Box and Muller, 1958)."""
    keys = seed, entities[:, None], np.arange(width)
    radius = np.sqrt(-2 * np.log1p(-uniform(*keys, 0)))
    return radius * np.cos(2 * np.pi * uniform(*keys, 1))
