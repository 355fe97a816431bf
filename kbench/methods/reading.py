"""KR2's model: a reader whose encoder reads the resource's states behind its own embeddings (paper, section 2).

    F = sum_l w_l H^l,   G = f(F),   X = [E ; G],   and the task's head reads the reader's positions of encoder(X)

The reader stays the model that transformers made: one hook appends G to the output of its embedding block, another cuts
the encoder's output back to the reader's own tokens, so that every head works on it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_POSITIONS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")

NUMBER_FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def features_of(model: Any, tokens: Mapping[str, Tensor], layers: Sequence[int], fused: bool, stored: str) -> Tensor:
    """What a resource says of some tokens: [.., R, width], or [.., R, layers, width] where it is not fused.

    Args:
        model: an encoder of transformers in eval mode.
        tokens: its inputs, each [.., R].
        layers: hidden states that are read, 0 the embeddings.
        fused: take their mean.
        stored: number format of the result.
    """
    assert not model.training
    shape = tokens["input_ids"].shape
    flat = {name: tensor.reshape(-1, shape[-1]) for name, tensor in tokens.items()}
    with torch.no_grad():
        output = model(**flat, output_hidden_states=True)
        states = output.hidden_states or [output.last_hidden_state]  # a model without layers gives no list
        chosen = [states[layer] for layer in layers]
        found = fuse(chosen) if fused else torch.stack(chosen, -2)
    return found.to(NUMBER_FORMATS[stored]).unflatten(0, shape[:-1])


def read_mask(tokens: Mapping[str, Tensor], tokenizer: Any, drop_special: bool) -> Tensor:
    """Which of a resource's tokens the reader sees [.., R]."""
    mask = tokens["attention_mask"]
    if not drop_special:
        return mask
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return mask * ~torch.isin(tokens["input_ids"], torch.tensor(sorted(special), device=mask.device))


def fuse(states: Sequence[Tensor]) -> Tensor:
    """The mean of some hidden states [.., L, width], in float32: one-hot and uniform weights of the paper."""
    return torch.stack([state.float() for state in states]).mean(0)


class Weights(nn.Module):
    """Trainable fusion, sum_l w_l H^l over all layers.

    Args:
        layers: how many states there are.
        free: the weights themselves are trained, from 1 / layers on; otherwise they are a softmax of what is trained.
    """

    def __init__(self, layers: int, free: bool):
        super().__init__()
        self.free = free
        self.scores = nn.Parameter(torch.full((layers,), 1 / layers) if free else torch.zeros(layers))

    def weights(self) -> Tensor:
        """w [layers]."""
        return self.scores if self.free else self.scores.softmax(0)

    def forward(self, states: Tensor) -> Tensor:
        """States [.., layers, width] to [.., width]."""
        return torch.einsum("...lw,l->...w", states.float(), self.weights())


def projection(width: int, to: int, depth: int) -> nn.Module:
    """f: `depth` linear layers with GELU between; nothing at depth 0."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.GELU()] if index else []
        layers.append(nn.Linear(to if index else width, to))
    return nn.Sequential(*layers)


class Reader(nn.Module):
    """A task's model that reads a resource's features beside its text.

    Args:
        model: of transformers, with its head; one with an embedding block of absolute positions and an encoder apart.
        width: of the resource's states.
        states: of a trainable fusion, states of the resource; 0: they come fused.
        free: whether the fusion's weights are trained as they are.
        depth: linear layers of f; 0: the identity, which needs equal widths.
        with_embeddings: put G before the embedding block, which then gives it positions, segment and layer norm.
        segment: segment whose embedding G gets; None: none (behind the block) or the first (before it).
        norm: a layer norm on G.
        dropout: on G.
    """

    def __init__(
        self,
        model: Any,
        width: int,
        *,
        states: int = 0,
        free: bool = False,
        depth: int = 0,
        with_embeddings: bool = False,
        segment: int | None = None,
        norm: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        own = int(model.config.hidden_size)
        if getattr(model.config, "embedding_size", own) != own:
            raise ValueError("the reader's embeddings are not as wide as its layers")
        if not depth and width != own:
            raise ValueError(f"the resource's states have width {width}, the reader's {own}: they need a projection")
        self.model = model
        self.fusion = Weights(states, free) if states else nn.Identity()
        self.inject = nn.Sequential(
            projection(width, own, depth), nn.LayerNorm(own) if norm else nn.Identity(), nn.Dropout(dropout)
        )
        self.with_embeddings = with_embeddings
        self.segment = segment
        self._given: Tensor | None = None
        self._read = 0
        if not with_embeddings:
            model.base_model.embeddings.register_forward_hook(self._append)
        model.base_model.encoder.register_forward_hook(self._cut)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        resource: Tensor,
        resource_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Any:
        """The output of the task's model; its logits of words are those of the reader's tokens.

        Args:
            input_ids, attention_mask, token_type_ids: the reader's tokens [B, L], or [B, K, L] with K choices.
            resource: the resource's fused states [.., R, width], or all of them [.., R, states, width].
            resource_mask: which of them are read [.., R].
        """
        base = self.model.base_model
        given = self.inject(self.fusion(resource.to(base.dtype)))
        inputs: dict[str, Any] = {"attention_mask": torch.cat([attention_mask, resource_mask], -1)}
        self._read = input_ids.shape[-1]
        if self.with_embeddings:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            segments = torch.full_like(resource_mask, self.segment or 0)
            inputs["inputs_embeds"] = torch.cat([base.get_input_embeddings()(input_ids), given], -2)
            inputs["token_type_ids"] = torch.cat([types, segments], -1)
            inputs["position_ids"] = self._positions(attention_mask, resource_mask)
        else:
            inputs["input_ids"] = input_ids
            if token_type_ids is not None:
                inputs["token_type_ids"] = token_type_ids
            self._given = given.flatten(0, -3)
        try:
            return self.model(**inputs)
        finally:
            self._given = None

    def extra(self) -> dict[str, Tensor]:
        """The weights beside the task's model, by name."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("model.")}

    def _append(self, block: Any, arguments: Any, embedded: Tensor) -> Tensor:
        assert self._given is not None, "the reader is called through its Reader"
        given = self._given.to(embedded.dtype)
        if self.segment is not None:
            given = given + block.token_type_embeddings.weight[self.segment]
        return torch.cat([embedded, given], 1)

    def _cut(self, encoder: Any, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, : self._read]
        return output

    def _positions(self, own: Tensor, given: Tensor) -> Tensor:
        """Positions of both parts: the resource's begin where the row's own tokens end, wherever its padding ends."""
        first = 0
        if self.model.config.model_type in _POSITIONS_FROM_PADDING:
            first = int(self.model.config.pad_token_id) + 1
        of_own = torch.arange(own.shape[-1], device=own.device).expand_as(own)
        of_given = own.sum(-1, keepdim=True) + torch.arange(given.shape[-1], device=own.device)
        return torch.cat([of_own, of_given], -1) + first
