"""The head of a masked language model, computed where a label is and nowhere else.

With XLM-R's 250,002 pieces the output projection is most of a forward pass, and nine tenths of it would be thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# the names that BERT's and RoBERTa's families give the head that reads the encoder's last states
_HEADS = ("cls", "lm_head")


def logits_at(model: Any, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """The logits [K, vocabulary] of some tokens.

    Args:
        model: a masked language model of transformers. Of other families than BERT's and RoBERTa's the head is computed
            everywhere, with the same result.
        inputs: what it is called with; `input_ids` [B, L].
        positions: places in B * L [K]; K may be 0.
    """
    head = next((getattr(model, name) for name in _HEADS if hasattr(model, name)), None)
    if head is None:
        return model(**inputs).logits.flatten(0, 1)[positions]
    states = model.base_model(**inputs).last_hidden_state
    return head(states.flatten(0, 1)[positions])
