"""The tiny backbone: a small BERT with random weights and a byte-level BPE tokenizer trained on the data's texts,
or on the names of a knowledge graph.

Byte-level BPE is the one tokenizer training that gives the same vocabulary every time; WordPiece's does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kbench.config.identity import science
from kbench.config.schema import Tiny
from kbench.data.records import Records
from kbench.stages.stage import Stage

_TEXTS = 20_000  # enough for a small vocabulary, and quick
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Texts:
    """What a tokenizer is trained on.

    Attributes:
        science: what names the texts in the stage's key.
        read: gives them in portions, from the folders of `parents`.
        parents: stages that hold them.
    """

    science: Mapping[str, Any]
    read: Callable[[Mapping[str, Path]], Iterator[list[str]]]
    parents: Mapping[str, Stage] = field(default_factory=dict)


def train_texts(records: Records) -> Texts:
    """The first training texts of a data set; of a probe, which has none, those of its test split."""

    def read(folders: Mapping[str, Path]) -> Iterator[list[str]]:
        split = records.splits[0]
        count = min(_TEXTS, records.rows(split))
        for start in range(0, count, 1000):
            yield records.texts(split, start, min(start + 1000, count))

    return Texts({"records": records.content, "texts": _TEXTS}, read)


def tiny_stage(shape: Tiny, texts: Texts) -> Stage:
    """The stage that writes `config.json` and the tokenizer; the weights are drawn where the model is loaded."""

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        _build(shape, texts.read(parents), work)

    return Stage("tiny", 1, {"shape": science(shape), **texts.science}, build, texts.parents)


def _build(shape: Tiny, texts: Iterator[list[str]], work: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=shape.positions,
    )
    wrapped.save_pretrained(work)
    BertConfig(
        vocab_size=len(wrapped),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.positions,
        pad_token_id=wrapped.pad_token_id,
    ).save_pretrained(work)
