"""Filling several masks in a row with a masked language model: X-FACTR's two ways (Jiang et al. 2020, section 4).

independent    every mask gets its most probable token, all in one pass
confidence     the mask whose most probable token is the most probable of all gets it, one a pass; once all are filled
               the token with the lowest log-probability is masked and asked for again, until it stays or the passes end

The mask itself is never an answer; it keeps its part of the probability. A token's log-probability is that of the pass
that set it, as in the benchmark; its script adds random ties of up to 1e-5, which are left out here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbench.config.probing import Decoder

if TYPE_CHECKING:
    from torch import Tensor, nn

_POSITIONS = 256  # hidden states that are projected to the vocabulary at once: 256 MB of XLM-R's logits


def fill(
    model: nn.Module,
    ids: Tensor,
    attention: Tensor,
    first: Tensor,
    count: int,
    mask: int,
    decoder: Decoder,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Tokens for `count` masks in a row and their natural log-probabilities, both [batch, count].

    Args:
        model: masked language model in eval mode; gradients are for the caller to switch off.
        ids: token ids with the masks in them [batch, length]; not changed.
        attention: 1 where a token is, 0 where padding is [batch, length].
        first: position of each row's first mask [batch].
        count: masks of each row, at least 1.
        mask: id of the mask token.
        decoder: which way.
        iterations: passes at most; of the independent way there is one.
    """
    import torch

    places = first[:, None] + torch.arange(count, device=ids.device)
    if decoder is Decoder.independent:
        lines = torch.arange(len(ids), device=ids.device)[:, None].expand_as(places)
        found, sure = ask(model, ids, attention, lines.flatten(), places.flatten(), mask)
        return found.view(places.shape), sure.view(places.shape)
    tokens = torch.full_like(places, mask)
    logprobs = torch.zeros(places.shape, device=ids.device)
    filled = torch.zeros_like(places, dtype=torch.bool)
    active = torch.arange(len(ids), device=ids.device)
    for _ in range(iterations):
        now, set_, sure_ = tokens[active], filled[active], logprobs[active]
        whole = set_.all(1)
        weakest = torch.zeros_like(set_).scatter_(1, sure_.argmin(1, keepdim=True), True)
        open_ = torch.where(whole[:, None], weakest, ~set_)
        told = ids[active].scatter(1, places[active], now.masked_fill(open_, mask))
        lines, columns = open_.nonzero(as_tuple=True)
        found, sure = ask(model, told, attention[active], lines, places[active][lines, columns], mask)
        new = torch.full_like(now, mask)
        new_sure = torch.full_like(sure_, -torch.inf)
        new[lines, columns], new_sure[lines, columns] = found, sure
        chosen = new_sure.argmax(1, keepdim=True)
        # of a row whose least sure token stays nothing changes any more, its log-probability neither
        stays = whole & (new.gather(1, chosen) == now.gather(1, chosen))[:, 0]
        going, chosen = active[~stays], chosen[~stays]
        tokens[going] = now[~stays].scatter(1, chosen, new[~stays].gather(1, chosen))
        logprobs[going] = sure_[~stays].scatter(1, chosen, new_sure[~stays].gather(1, chosen))
        filled[going] = set_[~stays].scatter(1, chosen, True)
        active = going
        if not len(active):
            break
    return tokens, logprobs


def ask(
    model: nn.Module, ids: Tensor, attention: Tensor, lines: Tensor, columns: Tensor, mask: int
) -> tuple[Tensor, Tensor]:
    """The most probable token at some positions of a batch, and its natural log-probability, both [positions].

    Only these positions are projected to the vocabulary, where the model is of a known family.

    Args:
        ids, attention: of the batch [batch, length].
        lines, columns: the positions [positions].
        mask: id of the token that is no answer.
    """
    import torch

    from kbench.backbones.masked_lm import states_and_head

    states, head = states_and_head(model, {"input_ids": ids, "attention_mask": attention})
    found, sure = [], []
    for part in torch.arange(len(lines), device=ids.device).split(_POSITIONS):
        chosen = states[lines[part], columns[part]]
        logits = (chosen if head is None else head(chosen)).float()
        total = logits.logsumexp(-1)
        logits[:, mask] = -torch.inf
        best = logits.max(-1)
        found.append(best.indices)
        sure.append(best.values - total)
    return torch.cat(found), torch.cat(sure)
