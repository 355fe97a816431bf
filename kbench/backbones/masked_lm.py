"""The head of a masked language model, computed where a label is and nowhere else.

With XLM-R's 250,002 pieces the output projection is most of a forward pass, and nine tenths of it would be thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# model type of transformers -> the module that makes logits of hidden states, each by itself
_HEADS = {"bert": "cls", "roberta": "lm_head", "xlm-roberta": "lm_head", "camembert": "lm_head"}


def states_and_head(model: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
    """The last hidden states [B, L, H] and the module that makes logits of them; of other families logits, and None.

    Args:
        model: a masked language model of transformers.
        inputs: what it is called with.
    """
    head = getattr(model, _HEADS.get(model.config.model_type, ""), None)
    if head is None:
        return model(**inputs).logits, None
    return model.base_model(**inputs).last_hidden_state, head


def logits_at(model: Any, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """The logits [K, vocabulary] of some tokens: places in B * L [K]; K may be 0."""
    states, head = states_and_head(model, inputs)
    chosen = states.flatten(0, 1)[positions]
    return chosen if head is None else head(chosen)
