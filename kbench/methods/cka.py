"""Contextual knowledge assimilation: from a mention's states and a relation, the triple's other entity token by token.

    s = mean of H over the span,  h_0 = LayerNorm(gelu(W_s s)),  h_r = + W_r T[r] towards the tail, - towards the head
    h_i = tanh(delta * h_r o (W_d h_{i-1})),   i = 1 ..                             DKPLM's decoder
    loss_i = -log exp(f(h_i, y_i)) / (exp(f(h_i, y_i)) + sum_y' exp(f(h_i, y')))    TRELM, equations 2 and 3
    f(h, w) = h . E[w] / tau,   of wrong tokens and right ones less log(K q(w)) where it is corrected

TRELM (Yan et al., arXiv 2403.11203) takes the decoder from DKPLM (Zhang et al. 2022). No token is fed back. The wrong
tokens y' are drawn elsewhere (`kbench.knowledge.noise`), and all of a batch share them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, normalize

KINDS = ("recurrent", "one_step")
SIMILARITIES = ("dot", "cosine")


class Decoder(nn.Module):
    """From mentions and relations to a state for each token of the answer.

    Args:
        width: of the model's states.
        knowledge_width: of the relations' vectors T[r].
        delta: scale of a step (DKPLM: 0.5).
        kind: recurrent: token i is said by h_i; one_step: every token by h_1, as DKPLM's released code has one step.
        relation_projection: W_r where it is shared with the injection's W_k, whose bias is not read: h_r is to change
            its sign with the direction. It stays the injection's, and is not among this module's weights. None: an
            own one.
    """

    def __init__(
        self,
        width: int,
        knowledge_width: int,
        delta: float = 0.5,
        kind: str = "recurrent",
        relation_projection: nn.Linear | None = None,
    ):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"no such decoder: {kind}")
        self.delta, self.kind = delta, kind
        self.start = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.step = nn.Linear(width, width, bias=False)
        self.relation = nn.Linear(knowledge_width, width, bias=False) if relation_projection is None else None
        # in a tuple, so that the module does not take it for its own
        self._shared: tuple[nn.Linear, ...] = () if relation_projection is None else (relation_projection,)

    @torch.no_grad()
    def balance(self, relations: Tensor) -> None:
        """Scale W_d as it is drawn so that a step keeps the size of its state (ours; not stated anywhere).

        A step multiplies by delta, h_r and W_d. With W_r scaled to the size of token embeddings each makes the state
        about a hundred times smaller: h_8 and its gradient would be 0. Call it once W_r has its first values.

        Args:
            relations: vectors of the relations, or of some of them [R, knowledge_width].
        """
        size = self._project(relations).float().square().mean().sqrt()
        gain = self.step.weight.square().sum().div(self.step.in_features).sqrt()
        if size > 0:
            self.step.weight.div_(self.delta * size * gain)

    def forward(self, spans: Tensor, relations: Tensor, towards_tail: Tensor, longest: int) -> Tensor:
        """The states [M, T, width] that say the answers' tokens.

        Args:
            spans: the mentions' states s [M, width], as of `span_means`.
            relations: T[r] of each mention's triple [M, knowledge_width].
            towards_tail: whether the answer is the triple's tail, bool [M].
            longest: T, tokens of the longest answer.
        """
        sign = torch.where(towards_tail, 1.0, -1.0).unsqueeze(-1)
        scale = self.delta * sign * self._project(relations)
        state = self.norm(gelu(self.start(spans)))
        states = []
        for _ in range(longest if self.kind == "recurrent" else min(longest, 1)):
            state = torch.tanh(scale * self.step(state))
            states.append(state)
        if not states:
            return state.new_zeros(len(spans), 0, state.shape[-1])
        found = torch.stack(states, 1)
        return found.expand(-1, longest, -1) if self.kind == "one_step" else found

    def _project(self, relations: Tensor) -> Tensor:
        if self.relation is not None:
            return self.relation(relations)
        return linear(relations, self._shared[0].weight)


def span_means(states: Tensor, rows: Tensor, starts: Tensor, stops: Tensor, longest: int | None = None) -> Tensor:
    """The mean of a sequence's states over each span [M, width], float32.

    Args:
        states: H [B, L, width].
        rows: sequence of each span, int64 [M].
        starts, stops: its first token and the one behind its last, int64 [M]; no span is empty.
        longest: tokens of the longest span, where the caller knows; None: the device is asked, and waited for.
    """
    if longest is None:
        longest = int((stops - starts).max()) if len(rows) else 0
    places = starts.unsqueeze(-1) + torch.arange(longest, device=states.device)
    inside = places < stops.unsqueeze(-1)
    # gathered and not summed up with index_add, whose order on a GPU is by chance
    found = states[rows.unsqueeze(-1), torch.where(inside, places, starts.unsqueeze(-1))].float()
    return (found * inside.unsqueeze(-1)).sum(1) / (stops - starts).unsqueeze(-1)


def sampled_loss(
    h: Tensor,
    targets: Tensor,
    embeddings: Tensor,
    negatives: Tensor,
    log_q: Tensor | None = None,
    target_log_q: Tensor | None = None,
    removed: Tensor | None = None,
    f: str = "dot",
    tau: float = 1.0,
    correction: bool = True,
) -> tuple[Tensor, Tensor]:
    """The loss of each target token and the probability it was given, both float32 [M, T]; 0 where there is no target.

    The target is never among its own wrong tokens. Computed in float32 also under autocast: of small probabilities
    (`kbench.methods.attribution`) 8 bits leave nothing. With every token of the vocabulary among the negatives once,
    and no correction, this is the full cross entropy.

    Args:
        h: states [M, T, width].
        targets: tokens of the answers, int64 [M, T]; -1: none.
        embeddings: E [vocabulary, width].
        negatives: the wrong tokens, int64 [K], which all targets share.
        log_q: log(K q) of the negatives [K].
        target_log_q: log(K q) of the targets [M, T]; what stands where there is no target is not read.
        removed: negatives that are right for a mention, too, bool [M, K]; None: none are.
        f: dot, or cosine.
        tau: temperature, which f is divided by.
        correction: subtract log(K q); log_q and target_log_q are not read without it. A token that was drawn twice
            counts twice, which is right with the correction only.

    Raises:
        ValueError: there is no such f, or a correction without log_q or target_log_q.
    """
    if f not in SIMILARITIES:
        raise ValueError(f"no such similarity: {f}")
    there = targets >= 0
    gold = targets.clamp(min=0)
    with torch.autocast(h.device.type, enabled=False):
        states, right, wrong = h.float(), embeddings[gold].float(), embeddings[negatives].float()
        if f == "cosine":
            states, right, wrong = (normalize(vectors, dim=-1) for vectors in (states, right, wrong))
        of_right = (states * right).sum(-1) / tau
        of_wrong = states @ wrong.T / tau
    if correction:
        if log_q is None or target_log_q is None:
            raise ValueError("the correction needs log_q of the negatives and of the targets")
        of_right = of_right - torch.where(there, target_log_q, 0.0)
        of_wrong = of_wrong - log_q
    taken = negatives == gold.unsqueeze(-1)
    if removed is not None:
        taken = taken | removed.unsqueeze(1)
    scores = torch.cat([of_right.unsqueeze(-1), of_wrong.masked_fill(taken, -torch.inf)], -1)
    loss = torch.where(there, torch.logsumexp(scores, -1) - of_right, 0.0)
    return loss, torch.where(there, torch.exp(-loss), 0.0)
