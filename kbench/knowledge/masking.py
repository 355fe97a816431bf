"""What a model must guess: masked batches from token ids and the role of each token.

KMLM (Liu et al., arXiv 2111.10962), section 3: the tokens of code-switched sentences are masked as in BERT; of a
reasoning sample whole relations and entities are masked, so that they follow from the rest of the cycle. Which token is
a relation or a link is known from its *role*, never from the letters of a name. `compat` marks what the released code
does otherwise.

All draws are functions of the sample's key and the token's position (`kbench.engine.counter`): a sample is masked alike
in whichever batch it stands, and however wide that is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from kbench.engine.counter import below, uniform

SHORT, LONG = 3, 5  # sentences of a cycle of length 3, and of one of length 4, which has a chord
_LINKS = 2  # a sentence has two links
_KEPT_RANDOM = 0.5  # of what is not masked one half is replaced by a random token (BERT)


class Role(IntEnum):
    """What a token stands for; `WORD` is one of plain text."""

    PAD = -1
    SPECIAL = 0
    HEAD = 1
    RELATION = 2
    TAIL = 3
    LINKER = 4
    PERIOD = 5
    WORD = 6


class Draw(IntEnum):
    """What a random number is for: the second of its keys."""

    SELECTED = 1
    REPLACED = 2
    TOKEN = 3
    RELATION = 4
    WHOLE = 5
    SENTENCE = 6
    ENTITIES = 7
    FIRST = 8
    SECOND = 9


@dataclass(frozen=True)
class Masking:
    """The rules of masking.

    Attributes:
        probability: share of the tokens that are selected (paper and released code: 0.15).
        masked: share of the selected tokens that become the mask; of the rest one half becomes a random token (BERT).
        linkers: "strict": a link is always the mask and never drawn; "compat": links and periods are drawn like every
            token, so a selected link may become a random token; it has no label (released code).
        period_loss: whether the periods carry loss (released code: yes; paper: entities and relations only). Without it
            and with strict linkers they are not drawn either.
        sentence_probability: of a cycle of length 4, how often both entities of one sentence are masked (paper: 0.2).
        length: "own": a sample is masked by its own length; "linkers": by the links that are left after it is cut:
            6: length 3, more: length 4, fewer: not at all (released code).
    """

    probability: float = 0.15
    masked: float = 0.8
    linkers: str = "strict"
    period_loss: bool = False
    sentence_probability: float = 0.2
    length: str = "own"

    def __post_init__(self) -> None:
        for name, known in (("linkers", ("strict", "compat")), ("length", ("own", "linkers"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {' or '.join(known)}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Masked:
    """A batch to learn from; the model's head is needed at the positions only.

    Attributes:
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 at tokens and 0 at padding.
        positions: tokens to be guessed, places in B * L, ascending, int64 [K]; K may be 0.
        labels: the ids that stood there, int64 [K].
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def mask_ordinary(
    ids: np.ndarray, roles: np.ndarray, keys: np.ndarray, rules: Masking, mask: int, vocabulary: int
) -> Masked:
    """Mask tokens as in BERT (facts 1.3): code-switched sentences, plain text, reasoning samples without their rules.

    Args:
        ids: token ids, the links already the mask [B, L].
        roles: `Role` of each token [B, L].
        keys: one number for each sample, uint64 [B].
        rules: the rules.
        mask: id of the mask.
        vocabulary: number of ids a random one is drawn from.
    """
    compat = rules.linkers == "compat"
    drawn = roles > Role.SPECIAL
    if not compat:
        drawn &= roles != Role.LINKER
        if not rules.period_loss:
            drawn &= roles != Role.PERIOD
    width = ids.shape[1]
    chances = uniform(keys[:, None], Draw.SELECTED, np.arange(width))
    selected = np.flatnonzero(drawn & (chances < rules.probability))
    sample, place = np.divmod(selected, width)
    chance = uniform(keys[sample], Draw.REPLACED, place)
    random = below(vocabulary, keys[sample], Draw.TOKEN, place)
    before = ids.reshape(-1)[selected]
    edge = rules.masked + (1 - rules.masked) * _KEPT_RANDOM
    found = ids.astype(np.int64)
    found.reshape(-1)[selected] = np.where(chance < rules.masked, mask, np.where(chance < edge, random, before))
    if compat:
        role = roles.reshape(-1)[selected]
        scored = (role != Role.LINKER) & (rules.period_loss | (role != Role.PERIOD))
        selected, before = selected[scored], before[scored]
    return _masked(found, roles, selected, before)


def mask_reasoning(
    ids: np.ndarray,
    roles: np.ndarray,
    spans: np.ndarray,
    sentences: np.ndarray,
    keys: np.ndarray,
    rules: Masking,
    mask: int,
) -> Masked:
    """Mask whole relations and entities of cycles (facts 1.4); exactly they carry loss, and they are always the mask.

    Of a cycle of length 3 one relation is masked. Of one of length 4, with its chord 5 sentences, both entities of one
    sentence are masked with `sentence_probability`, else one relation and one or two of the 10 places of entities,
    which may name the same entity. What was cut off is not masked.

    Args:
        ids: token ids, the links already the mask [B, L].
        roles: `Role` of each token [B, L].
        spans: which name each token is of: 3 * sentence + 0 head, 1 relation, 2 tail; -1 elsewhere [B, L].
        sentences: `SHORT` or `LONG`, sentences of each sample before it was cut [B].
        keys: one number for each sample, uint64 [B].
        rules: the rules.
        mask: id of the mask.
    """
    if rules.length == "linkers":
        links = (roles == Role.LINKER).sum(1)
        short, long = links == SHORT * _LINKS, links > SHORT * _LINKS
    else:
        short, long = sentences == SHORT, sentences == LONG
    chosen = np.where(short, _one(3 * below(SHORT, keys, Draw.RELATION) + 1), 0) | np.where(
        long, _chosen_long(keys, rules.sentence_probability), 0
    )
    hit = (spans >= 0) & ((chosen[:, None] >> np.maximum(spans, 0)) & 1).astype(bool)
    selected = np.flatnonzero(hit)
    before = ids.reshape(-1)[selected]
    found = ids.astype(np.int64)
    found.reshape(-1)[selected] = mask
    return _masked(found, roles, selected, before)


def _chosen_long(keys: np.ndarray, sentence_probability: float) -> np.ndarray:
    """The spans to mask of cycles of length 4, one bit each, int64 [B]."""
    sentence = 3 * below(LONG, keys, Draw.SENTENCE)
    whole = _one(sentence) | _one(sentence + 2)
    # two of 10 places without replacement: the second is drawn from the 9 others
    first, second = below(2 * LONG, keys, Draw.FIRST), below(2 * LONG - 1, keys, Draw.SECOND)
    second += second >= first
    two = below(2, keys, Draw.ENTITIES) == 1
    parts = _one(3 * below(LONG, keys, Draw.RELATION) + 1) | _entity(first) | np.where(two, _entity(second), 0)
    return np.where(uniform(keys, Draw.WHOLE) < sentence_probability, whole, parts)


def _one(span: np.ndarray) -> np.ndarray:
    return np.left_shift(1, span)


def _entity(place: np.ndarray) -> np.ndarray:
    """The bit of an entity's place: head and tail of each sentence in turn."""
    return _one(3 * (place // 2) + 2 * (place % 2))


def _masked(found: np.ndarray, roles: np.ndarray, positions: np.ndarray, labels: np.ndarray) -> Masked:
    return Masked(found, (roles != Role.PAD).astype(np.int64), positions, labels.astype(np.int64))
