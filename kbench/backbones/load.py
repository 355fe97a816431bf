"""Models and tokenizers from a folder, checked: transformers lets missing weights and empty vocabularies pass.

Weights are read from safetensors only; no code of a repository is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from kbench.errors import BackboneError, Problem

_SMALLEST_VOCABULARY = 100
# the names that BERT's, DistilBERT's and ModernBERT's families give their dropout
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
    "dropout", "attention_dropout", "seq_classif_dropout", "embedding_dropout", "mlp_dropout",
)  # fmt: skip


def load_tokenizer(folder: Path, words: bool = False) -> Any:
    """The tokenizer of a backbone's folder.

    Args:
        folder: tokenizer files.
        words: it will be given words, not texts: a byte-level tokenizer (RoBERTa's) then puts the space before each
            that it had in running text.

    Raises:
        BackboneError: the folder gives no real vocabulary.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        if words and getattr(tokenizer, "add_prefix_space", None) is False:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, add_prefix_space=True)
    except (OSError, ValueError) as error:
        raise BackboneError(Problem(str(folder), f"gives no tokenizer: {_short(error)}")) from error
    if len(tokenizer) < _SMALLEST_VOCABULARY:
        raise BackboneError(
            Problem(str(folder), f"the tokenizer knows only {len(tokenizer)} pieces", "tokenizer files are missing")
        )
    tokenizer.padding_side = "right"
    return tokenizer


def load_model(folder: Path, auto: Any, *, classes: int, seed: int, dropout: float | None = None) -> nn.Module:
    """A model with a fresh head on a backbone's weights; all weights drawn here where the folder has none (tiny).

    Args:
        folder: config.json and, unless the backbone is tiny, model.safetensors.
        auto: the transformers class of the task, such as AutoModelForSequenceClassification.
        classes: outputs of the head.
        seed: of the head's, or all, initial weights.
        dropout: for every dropout layer; None: as in config.json.

    Raises:
        BackboneError: files are broken, or weights of the encoder are missing.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), num_labels=classes, trust_remote_code=False)
        if dropout is not None:
            for name in _DROPOUTS:
                if hasattr(config, name):
                    setattr(config, name, dropout)
        # the whole model is drawn first, so that the head is fresh even where the folder holds one
        torch.manual_seed(seed)
        model = auto.from_config(config, trust_remote_code=False)
        if not any(folder.glob("*.safetensors")):
            return model
        encoder, info = AutoModel.from_pretrained(
            str(folder),
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
        left = model.base_model.load_state_dict(encoder.state_dict(), strict=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BackboneError(Problem(str(folder), f"cannot be loaded: {_short(error)}")) from error
    missing = sorted(key for key in {*info["missing_keys"], *left.missing_keys} if not key.startswith("pooler."))
    if missing:
        hint = "is it a model of another type?"
        raise BackboneError(Problem(str(folder), f"lacks {len(missing)} weights, such as {missing[0]}", hint))
    return model


def load_trained(folder: Path, auto: Any) -> nn.Module:
    """A model that kbench trained and saved, head included, in eval mode.

    Raises:
        BackboneError: files are broken, or any weight is missing.
    """
    try:
        model, info = auto.from_pretrained(
            str(folder), use_safetensors=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(Problem(str(folder), f"cannot be loaded: {_short(error)}")) from error
    if info["missing_keys"]:
        raise BackboneError(Problem(str(folder), f"lacks weights, such as {sorted(info['missing_keys'])[0]}"))
    return model.eval()


def set_dropout(model: nn.Module, p: float) -> None:
    """Give every dropout layer of a model the same probability."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
