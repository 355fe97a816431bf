"""The tiny backbone: a small BERT with random weights and a byte-level BPE tokenizer trained on the data's texts.

Byte-level BPE is the one tokenizer training that gives the same vocabulary every time; WordPiece's does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kbench.config.identity import science
from kbench.config.schema import Tiny
from kbench.data.records import Records
from kbench.stages.stage import Stage

_TEXTS = 20_000  # enough for a small vocabulary, and quick
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_stage(shape: Tiny, records: Records) -> Stage:
    """The stage that writes `config.json` and the tokenizer; the weights are drawn where the model is loaded."""

    def build(work: Path, parents: Mapping[str, Path]) -> None:
        _build(shape, records, work)

    return Stage("tiny", 1, {"shape": science(shape), "records": records.content, "texts": _TEXTS}, build)


def _build(shape: Tiny, records: Records, work: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, PreTrainedTokenizerFast

    def texts() -> Iterator[list[str]]:
        count = min(_TEXTS, records.rows("train"))
        for start in range(0, count, 1000):
            yield records.texts("train", start, min(start + 1000, count))

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
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
