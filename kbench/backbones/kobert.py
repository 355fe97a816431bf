"""KoBERT's tokenizer, which its repository (monologg/kobert) holds as remote code; none of that is run here.

A SentencePiece model cuts the text; `vocab.txt` gives each piece its id, which is not SentencePiece's own. The plain
BERT tokenizer reads the same `vocab.txt` and makes most Korean words unknown: a piece that starts a word is spelt with
▁, one that continues it has no ##.

Followed from the published class KoBertTokenizer (github.com/monologg/KoBERT-Transformers):
- runs of white space become one space; `` and '' become "
- NFKD, then characters that combine with others are dropped; SentencePiece's own normalization joins the parts of
  Hangul syllables again
- `do_lower_case` of tokenizer_config.json, off where it is not set
- a piece that ends in a digit and a comma is cut anew without the comma, and the comma becomes a piece of its own
- a piece that is not in vocab.txt is [UNK]; of a line that stands twice in vocab.txt, the last counts
"""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from kbench.errors import BackboneError, Problem

MODEL_FILE = "tokenizer_78b3253a26.model"
VOCABULARY_FILE = "vocab.txt"
_WORD_START = "▁"
_SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


class KoBertTokenizer(PreTrainedTokenizer):
    """A slow tokenizer of transformers: [CLS] A [SEP], or [CLS] A [SEP] B [SEP] with segments 0 and 1."""

    vocab_files_names = {"vocab_file": MODEL_FILE, "vocab_txt": VOCABULARY_FILE}  # noqa: RUF012, as transformers has it
    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file: str, vocab_txt: str, do_lower_case: bool = False, **more: Any):
        """Args are the SentencePiece model, the list of pieces in the order of their ids, and transformers' own."""
        from sentencepiece import SentencePieceProcessor

        self.vocab_file, self.vocab_txt, self.do_lower_case = vocab_file, vocab_txt, do_lower_case
        self._pieces = [line.strip() for line in Path(vocab_txt).read_text(encoding="utf-8").rstrip("\n").split("\n")]
        self._ids = {piece: place for place, piece in enumerate(self._pieces)}
        self._cutter = SentencePieceProcessor(model_file=str(vocab_file))
        names = ("unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
        special = dict(zip(names, _SPECIAL, strict=True))
        kinds = {"special_tokens_pattern": "cls_sep", "token_type_ids_pattern": "bert_style"}
        super().__init__(do_lower_case=do_lower_case, **(special | kinds | more))

    @property
    def vocab_size(self) -> int:
        """Lines of vocab.txt."""
        return len(self._pieces)

    def get_vocab(self) -> dict[str, int]:
        """Piece -> id."""
        return {**self._ids, **self.added_tokens_encoder}

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy both files into a folder."""
        made = []
        for source, name in ((self.vocab_file, MODEL_FILE), (self.vocab_txt, VOCABULARY_FILE)):
            target = Path(save_directory) / (f"{filename_prefix}-{name}" if filename_prefix else name)
            if Path(source).resolve() != target.resolve():
                shutil.copyfile(source, target)
            made.append(str(target))
        return tuple(made)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Pieces as text."""
        return "".join(tokens).replace(_WORD_START, " ").strip()

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        found: list[str] = []
        for piece in self._cut(self._clean(text)):
            if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
                number = self._cut(piece[:-1].replace(_WORD_START, ""))
                if not piece.startswith(_WORD_START) and number[0].startswith(_WORD_START):
                    number = [number[0][1:], *number[1:]] if len(number[0]) > 1 else number[1:]
                found += [*number, ","]
            else:
                found.append(piece)
        return found

    def _clean(self, text: str) -> str:
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
        return text.lower() if self.do_lower_case else text

    def _cut(self, text: str) -> list[str]:
        return list(self._cutter.encode(text, out_type=str))

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._ids["[UNK]"])

    def _convert_id_to_token(self, index: int) -> str:
        return self._pieces[index]


def load_kobert(folder: Path) -> KoBertTokenizer:
    """The tokenizer of a folder with both files.

    Raises:
        BackboneError: a file or the package sentencepiece is missing, or a file is broken.
    """
    missing = [name for name in (MODEL_FILE, VOCABULARY_FILE) if not (folder / name).is_file()]
    if missing:
        hint = "monologg/kobert on the hub has it; another backbone wants backbone.tokenizer=auto"
        raise BackboneError(Problem(str(folder), f"is no KoBERT: there is no {' and no '.join(missing)}", hint))
    try:
        tokenizer: KoBertTokenizer = KoBertTokenizer.from_pretrained(str(folder))
    except ModuleNotFoundError as error:
        hint = "pip install 'kbench[resources]'"
        raise BackboneError(Problem(str(folder), f"KoBERT's tokenizer needs {error.name}", hint)) from error
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"{MODEL_FILE} or {VOCABULARY_FILE} cannot be read: {str(error).strip().splitlines()[0]}"
        raise BackboneError(Problem(str(folder), problem)) from error
    absent = [token for token in _SPECIAL if token not in tokenizer._ids]
    if absent:
        raise BackboneError(Problem(str(folder / VOCABULARY_FILE), f"lacks {', '.join(absent)}"))
    return tokenizer
