"""Models and tokenizers from a folder, checked: transformers lets missing weights and empty vocabularies pass.

Weights are read from safetensors only; no code of a repository is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

from kbench.backbones.locate import FAMILIES
from kbench.config.schema import TOKENIZERS
from kbench.errors import BackboneError, Problem

_SMALLEST_VOCABULARY = 100
# the names that BERT's, DistilBERT's and ModernBERT's families give their dropout
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
    "dropout", "attention_dropout", "seq_classif_dropout", "embedding_dropout", "mlp_dropout",
)  # fmt: skip


def load_tokenizer(folder: Path, words: bool = False, kind: str = "auto") -> Any:
    """The tokenizer of a backbone's folder.

    Args:
        folder: tokenizer files.
        words: it will be given words, not texts: a byte-level tokenizer (RoBERTa's) then puts the space before each
            that it had in running text.
        kind: auto; kobert, for the tokenizer that KoBERT brings as code (auto, too, where its file is there); plain, as
            transformers reads the files, also where they are KoBERT's.

    Raises:
        BackboneError: the folder gives no real vocabulary, or a package that its tokenizer needs is missing.
    """
    from kbench.backbones.kobert import MODEL_FILE, load_kobert

    if kind not in TOKENIZERS:
        raise ValueError(f"no such kind of tokenizer: {kind}")
    own = kind == "kobert" or (kind == "auto" and (folder / MODEL_FILE).is_file())
    tokenizer = load_kobert(folder) if own else _auto_tokenizer(folder, words)
    if len(tokenizer) < _SMALLEST_VOCABULARY:
        raise BackboneError(
            Problem(str(folder), f"the tokenizer knows only {len(tokenizer)} pieces", "tokenizer files are missing")
        )
    tokenizer.padding_side = "right"
    return tokenizer


def _auto_tokenizer(folder: Path, words: bool) -> Any:
    more = _mecab(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **more)
        if words and getattr(tokenizer, "add_prefix_space", None) is False:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, add_prefix_space=True)
    except ModuleNotFoundError as error:  # MeCab or its dictionary
        hint = "pip install 'kbench[resources]'"
        raise BackboneError(Problem(str(folder), f"its tokenizer misses a package: {_short(error)}", hint)) from error
    except (OSError, ValueError) as error:
        raise BackboneError(Problem(str(folder), f"gives no tokenizer: {_short(error)}", _untyped(folder))) from error
    return tokenizer


def _mecab(folder: Path) -> dict[str, Any]:
    """What a Japanese tokenizer must be told: folders that name no dictionary were made when ipadic was the default.

    transformers has since changed its default to unidic_lite, which cuts words in other places.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # what is wrong with it, AutoTokenizer says
    given = settings.get("mecab_kwargs") or {}
    if settings.get("word_tokenizer_type") != "mecab" or "mecab_dic" in given:
        return {}
    return {"mecab_kwargs": {**given, "mecab_dic": "ipadic"}}


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
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BackboneError(Problem(str(folder), f"cannot be loaded: {_short(error)}", _untyped(folder))) from error
    missing = sorted(key for key in {*info["missing_keys"], *left.missing_keys} if not key.startswith("pooler."))
    if missing:
        hint = "is it a model of another type?"
        raise BackboneError(Problem(str(folder), f"lacks {len(missing)} weights, such as {missing[0]}", hint))
    return model


def load_masked_lm(folder: Path, *, seed: int) -> nn.Module:
    """A masked language model with its own head; drawn from the seed where the folder has no weights (tiny).

    Raises:
        BackboneError: files are broken, or weights of encoder or head are missing.
    """
    try:
        if any(folder.glob("*.safetensors")):
            model, info = AutoModelForMaskedLM.from_pretrained(
                str(folder),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
        else:
            torch.manual_seed(seed)
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
            model, info = AutoModelForMaskedLM.from_config(config, trust_remote_code=False), {"missing_keys": []}
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BackboneError(Problem(str(folder), f"cannot be loaded: {_short(error)}", _untyped(folder))) from error
    if info["missing_keys"]:
        what = f"is no masked language model: it lacks {sorted(info['missing_keys'])[0]}"
        raise BackboneError(Problem(str(folder), what, "take a checkpoint that was saved with its masked-LM head"))
    found: nn.Module = model
    return found


def load_trained(folder: Path, auto: Any) -> nn.Module:
    """A model that kbench trained and saved, head included, in eval mode.

    Raises:
        BackboneError: files are broken, or any weight is missing.
    """
    try:
        model, info = auto.from_pretrained(
            str(folder), use_safetensors=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneError(Problem(str(folder), f"cannot be loaded: {_short(error)}")) from error
    if info["missing_keys"]:
        raise BackboneError(Problem(str(folder), f"lacks weights, such as {sorted(info['missing_keys'])[0]}"))
    return model.eval()


def load_encoder(folder: Path, *, seed: int | None = None, layers: int | None = None) -> nn.Module:
    """An encoder without head or pooler, frozen, in eval mode.

    Args:
        folder: as for `load_model`.
        seed: of the weights, where the folder may have none (tiny); None: it must have them.
        layers: of BERT's family, keep only so many, counted from the embeddings; None: all.

    Raises:
        BackboneError: as `load_model`.
    """
    if seed is None and not any(folder.glob("*.safetensors")):
        raise BackboneError(Problem(str(folder), "holds no model.safetensors"))
    model: Any = load_model(folder, AutoModel, classes=2, seed=seed or 0)
    model.pooler = None
    # where a layer does not end in its norm, the last state of a shorter stack is another one
    if layers is not None and model.config.model_type in FAMILIES:
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = len(model.encoder.layer)
    found: nn.Module = model.requires_grad_(False).eval()
    return found


def set_dropout(model: nn.Module, p: float) -> None:
    """Give every dropout layer of a model the same probability."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p


def _untyped(folder: Path) -> str:
    """The way out where config.json is older than transformers' model types, such as OSCAR's; empty elsewhere."""
    try:
        typed = "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return "" if typed else 'add "model_type" to its config.json; of an old BERT, such as OSCAR, it is "bert"'


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
