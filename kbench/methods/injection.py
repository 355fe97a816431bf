"""TRELM's knowledge injection: at important mentions a vector made of a triple stands for the token embeddings.

    e is head of (e, r, t):  v = T[t] - T[r]       e is tail of (h, r, e):  v = T[h] + T[r]       h_e = W_k v + b_k
    I_p = (1 - lam) h_e + lam / 2 (M_l[e] + M_g[e])   at the tokens of the mention, else the token's own embedding

The paper (arXiv 2403.11203) leaves h_e open; this is the reading of DKPLM's released code with the signs of TransE.
Every token of a mention [start, stop) gets the same vector. Batches are padded on the right: of inputs_embeds RoBERTa
cannot tell where padding is, and counts positions from the first column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from kbench.errors import BackboneError, Problem

LEVELS = ("token", "sum")
SCALES = ("none", "match_norm", "layernorm")
UNITS = ("epoch", "fraction")
# model type of transformers -> whether its positions begin behind the padding's, as in fairseq
_FAMILIES = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}
_SMALLEST_NORM = 1e-12
_FINEST = 10**6  # parts of a training that a unit may be told apart by


def neighbour_vector(head: Tensor, relation: Tensor, tail: Tensor, is_head: Tensor) -> Tensor:
    """v of an entity by its triple: where the others say it must be, were head + relation = tail (TransE).

    Args:
        head, relation, tail: vectors of the triples [M, knowledge width].
        is_head: whether the entity is the triple's head, bool [M]; else its tail.
    """
    return torch.where(is_head[:, None], tail - relation, head + relation)


class Injection(nn.Module):
    """W_k and b_k: from the width of the graph's vectors to the encoder's.

    Args:
        knowledge_width: of the graph's vectors.
        width: of the encoder's embeddings.
        seed: of the first weights, which are Gaussian; biases are 0.
    """

    def __init__(self, knowledge_width: int, width: int, seed: int = 0):
        super().__init__()
        self.projection = nn.utils.skip_init(nn.Linear, knowledge_width, width)  # draws nothing from a global state
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(width, knowledge_width, generator=generator) / math.sqrt(knowledge_width)
        with torch.no_grad():
            self.projection.weight.copy_(drawn)
            self.projection.bias.zero_()

    @torch.no_grad()
    def scaled_to(self, embeddings: Tensor, vectors: Tensor) -> Injection:
        """Scale W_k so that the mean |h_e| of some vectors is the mean norm of the embeddings' rows (facts 1b; ours).

        Args:
            embeddings: of the encoder's tokens [vocabulary, width].
            vectors: a sample of what is injected, v [S, knowledge width].

        Raises:
            ValueError: the vectors are none, or all 0.
        """
        weight = self.projection.weight
        found = (vectors.to(weight) @ weight.T).norm(dim=-1).mean()
        if not found > 0:
            raise ValueError("there is no vector other than 0 to scale by")
        weight.mul_(embeddings.float().norm(dim=-1).mean().to(weight) / found)
        self.projection.bias.zero_()
        return self

    def forward(self, vectors: Tensor) -> Tensor:
        """h_e [M, width] of v [M, knowledge width]."""
        return self.projection(vectors)


def mixed(h: Tensor, local: Tensor, overall: Tensor, share: float, scale: str = "none") -> Tensor:
    """I_p of mentions (equation 7): what is injected and what is remembered.

    Args:
        h: h_e [M, width].
        local: M_l[e] [M, width]; no gradient reaches it.
        overall: M_g[e], the global memory, likewise.
        share: lam, of the memory; 0 gives h itself.
        scale: "none": memory as it is (printed); "match_norm": both memories are brought to the norm of h, mention by
            mention; "layernorm": both are brought to mean 0 and, feature by feature, to the size that h has (ours).
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {', '.join(SCALES)}, not {scale!r}")
    if not share:
        return h
    whole = h.float()
    parts = [local.detach().float(), overall.detach().float()]
    if scale != "none":
        norm = whole.detach().norm(dim=-1, keepdim=True)
        if scale == "match_norm":
            parts = [part * (norm / part.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)) for part in parts]
        else:
            parts = [layer_norm(part, part.shape[-1:]) * (norm / math.sqrt(part.shape[-1])) for part in parts]
    return (1 - share) * whole + share / 2 * (parts[0] + parts[1])


@dataclass(frozen=True)
class Decay:
    """The share of the memory over a training: lam_q = first / beta^q in unit q = 0, 1, .. (equation 8).

    Attributes:
        first: lam_0 (paper: 0.5).
        beta: by which it is divided in every unit (paper: 2).
        unit: "epoch", as printed, or "fraction": units of `every` of the training, since one epoch has no decay.
        every: share of the training that a unit of "fraction" has.
        final_zero: no memory in the last unit; of a training of one unit that is all of it.
    """

    first: float = 0.5
    beta: float = 2.0
    unit: str = "epoch"
    every: float = 0.1
    final_zero: bool = False

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit is {' or '.join(UNITS)}, not {self.unit!r}")

    def share(self, step: int, total: int, per_epoch: int) -> float:
        """lam in the step after `step` steps, of `total` in the training and `per_epoch` in an epoch."""
        # whole numbers: 0.3 / 0.1 is below 3 in floating point
        length = Fraction(per_epoch)
        if self.unit == "fraction":
            length = total * Fraction(self.every).limit_denominator(_FINEST)
        unit, last = int(step / length), math.ceil(total / length) - 1
        if self.final_zero and unit >= last:
            return 0.0
        return self.first * self.beta**-unit  # of a long training 0, where beta**unit is no number


def inject(embeddings: Tensor, rows: Tensor, starts: Tensor, stops: Tensor, vectors: Tensor) -> Tensor:
    """Embeddings [B, L, d] with the spans of mentions overwritten; what is given stays as it is.

    Gradient reaches the vectors through every token of their span, the embeddings everywhere else. Nothing is read back
    from the device.

    Args:
        embeddings: [B, L, d].
        rows: row of each mention, int64 [M]; M may be 0.
        starts, stops: its tokens, half-open, int64 [M]; a part beyond L is nothing; of spans that share a token the
            later one gets it.
        vectors: what stands there [M, d], of any number format.
    """
    if not len(rows):
        return embeddings
    owner = _owners(embeddings, rows, starts, stops)
    chosen = vectors.to(embeddings.dtype)[(owner - 1).clamp_min(0)]
    return torch.where((owner > 0)[..., None], chosen, embeddings)


def _owners(embeddings: Tensor, rows: Tensor, starts: Tensor, stops: Tensor) -> Tensor:
    """Number of the mention of each token, from 1 on; 0: of none; int64 [B, L]."""
    size, length = embeddings.shape[:2]
    place = torch.arange(length, device=rows.device)
    inside = (place >= starts[:, None]) & (place < stops[:, None])
    numbers = inside * torch.arange(1, len(rows) + 1, device=rows.device)[:, None]
    owner = torch.zeros(size, length, dtype=torch.int64, device=rows.device)
    return owner.scatter_reduce(0, rows[:, None].expand(-1, length), numbers, "amax")


def embedded(
    model: Any,
    ids: Tensor,
    rows: Tensor,
    starts: Tensor,
    stops: Tensor,
    vectors: Tensor,
    level: str = "token",
    types: Tensor | None = None,
) -> Tensor:
    """What a model gets as `inputs_embeds` [B, L, d] for token ids [B, L] with vectors in the place of mentions.

    Level "token" replaces the token embedding: position and segment are added, layer norm and dropout follow. Level
    "sum" replaces their sum: the model will add position and segment, so they are taken off the vectors first; no
    gradient of a span then reaches either.

    Args:
        model: an encoder of transformers, or one with a head; BERT's or RoBERTa's family.
        ids: padded on the right (`refuse_left_padding`).
        rows, starts, stops, vectors: as of `inject`.
        level: "token" or "sum".
        types: segment of each token [B, L]; None: the first everywhere, as transformers has it.

    Raises:
        BackboneError: of another family, whose embedding block is not known here.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {' or '.join(LEVELS)}, not {level!r}")
    behind, block = _block(model)
    embeddings = block.word_embeddings(ids)
    found = inject(embeddings, rows, starts, stops, vectors)
    if level == "token" or not len(rows):
        return found
    first = model.config.pad_token_id + 1 if behind else 0
    places = torch.arange(first, first + ids.shape[1], device=ids.device)
    added = block.position_embeddings(places) + block.token_type_embeddings(
        torch.zeros_like(ids) if types is None else types
    )
    inside = _owners(embeddings, rows, starts, stops) > 0
    return torch.where(inside[..., None], found - added, found)


def _block(model: Any) -> tuple[bool, Any]:
    """Whether positions begin behind the padding's, and the embedding block of a model."""
    family = model.config.model_type
    block = getattr(model.base_model, "embeddings", None)
    if family not in _FAMILIES or block is None:
        what = f"is of the family {family}, into which nothing can be injected"
        raise BackboneError(Problem("backbone", what, f"of these families it can: {', '.join(_FAMILIES)}"))
    return _FAMILIES[family], block


def refuse_left_padding(attention: Tensor) -> None:
    """Check a batch's attention mask [B, L], 1 at tokens and 0 at padding, before it goes to the device.

    Raises:
        BackboneError: padding stands left of a token.
    """
    if bool((attention[:, 1:] > attention[:, :-1]).any()):
        what = "its tokenizer pads on the left, where a model that is given embeddings takes padding for tokens"
        raise BackboneError(Problem("backbone", what, 'set padding_side to "right" in its tokenizer_config.json'))
