"""Finding the names of a graph's entities in text: a table of hashes, looked up word by word.

A text is cut into words and single signs. From each of them on, the text is followed as long as some name begins so,
and every place where a name ends is a hit. A piece of text is known by a hash that follows from sums over the text, so
all words of a portion of text take each step together. Aho and Corasick's automaton, as pyahocorasick builds it, is
slower and larger where upper and lower case are alike, as it meets a name inside most words:
`benchmarks/linking.py --automaton` has the numbers.

Which hits count (no paper says; ours):
- A name begins and ends where a word does, has at least `shortest` letters, is no single word in lower case and none of
  the commonest words. Scripts without spaces between words have no such places, so little is found in them.
- Upper and lower case are the same at first, but the text must have as many capitals as the name: "NEW YORK" and
  "Machine learning" (beginning a sentence) are New York and machine learning; "the who", "The who" and "Who" are
  neither The Who nor WHO.
- Of hits that overlap the longest counts, of equally long ones the first.
- Of the entities that a name stands for those count that are written just as in the text, if there are any. Among them
  the one counts that shares most triples with the mentions around, then the one in most triples, then the one of the
  lowest number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from kbench.engine.counter import mixed
from kbench.knowledge.graph import Graph
from kbench.knowledge.streams import ragged
from kbench.knowledge.word_hashes import PORTION, HashedText, HashFilter

Link = tuple[int, int, int, float]  # start and end (characters, half-open), entity, score

_NAMES = 1 << 15  # names that are hashed together
_TRIED = 16  # entities of one name that are compared by their triples: those in most triples
_AROUND = 16  # mentions before and after that tell which entity is meant
_WORD = re.compile(r"[^\W\d_]+")
_WORDS = 1 << 20  # different words that are counted at a time


class AliasLinker:
    """Finds names of a graph's entities in text.

    Args:
        graph: whose entities are looked for.
        language: of the names, one of the graph's.
        shortest: letters that a name must have at least.
        lower_case: look for single words in lower case, too.
        common: words in lower case that are no names, as `common_words` finds them.
    """

    def __init__(
        self,
        graph: Graph,
        language: str,
        shortest: int = 4,
        lower_case: bool = False,
        common: Collection[str] = (),
    ):
        size = len(graph.entities)
        head, _, tail = (np.asarray(column, dtype=np.int64) for column in graph.triples.T)
        self._entities, self._degree = size, np.bincount(head, minlength=size) + np.bincount(tail, minlength=size)
        self._pairs = np.minimum(head, tail)
        self._pairs *= size
        self._pairs += np.maximum(head, tail)
        self._pairs.sort()
        self._joined = HashFilter(mixed(self._pairs))
        del head, tail

        names = graph.names(language)
        rows = int(names.ends[size - 1])
        self._entity = np.repeat(np.arange(size, dtype=np.int32), names.counts[:size])
        folded, self._spelt = np.empty(rows, dtype=np.uint64), np.empty(rows, dtype=np.uint64)
        self._capitals, self._found = np.empty(rows, dtype=np.int32), np.empty(rows, dtype=bool)
        excluded = _hashed(sorted(common))
        prefixes: list[np.ndarray] = []
        for start in range(0, rows, _NAMES):
            texts = names.texts.slice(start, min(_NAMES, rows - start)).to_pylist()
            part, piece = slice(start, start + len(texts)), HashedText(texts)
            folded[part], self._spelt[part] = piece.hashes(piece.begins, piece.ends), piece.spelt()
            self._capitals[part] = piece.capitals(piece.begins, piece.ends)
            single = piece.count(piece.spaces, piece.begins, piece.ends) == 0
            usual = (self._capitals[part] == 0) & single & (not lower_case)
            letters = piece.count(piece.letters, piece.begins, piece.ends)
            self._found[part] = (letters >= shortest) & ~usual & ~np.isin(folded[part], excluded)
            prefixes.append(piece.prefixes(self._found[part]))
        beginnings = np.unique(np.concatenate(prefixes)) if prefixes else np.empty(0, dtype=np.uint64)
        del prefixes

        # the entities of a name stand together, those in most triples first, so one pass finds the best
        order = np.lexsort((self._entity, -self._degree[self._entity], folded))
        folded = folded[order]
        for kept in ("_entity", "_spelt", "_capitals", "_found"):
            setattr(self, kept, getattr(self, kept)[order])
        begins = np.flatnonzero(np.concatenate([[True], folded[1:] != folded[:-1]])[: len(folded)])
        self._keys, self._rows = folded[begins], np.append(begins, len(folded))
        # capitals that the text must have for one of a name's spellings
        asked = np.where(self._found, self._capitals, np.iinfo(np.int32).max)
        self._least = np.minimum.reduceat(asked, begins) if len(begins) else asked
        self.names = int((self._least < np.iinfo(np.int32).max).sum())
        self._begun = HashFilter(beginnings)
        self._whole = HashFilter(self._keys[self._least < np.iinfo(np.int32).max])
        self._lower = HashFilter(self._keys[self._least == 0])

    def link(self, texts: Sequence[str], groups: Sequence[int] | np.ndarray | None = None) -> list[list[Link]]:
        """The mentions in each text, in order of their place; none overlap.

        The score is the chosen entity's part of the triples that the name's entities are in, so 1 for a name of one.

        Args:
            texts: sentences.
            groups: number of the group of each text, ascending, such as its document, whose mentions tell which entity
                is meant, the 16 before and after; None: those of the text alone.
        """
        found: list[list[Link]] = []
        for part in _portions(texts, groups):
            piece = HashedText(texts[part])
            begins, ends, keys = self._longest(*self._hits(piece))
            text = np.searchsorted(piece.begins, begins, side="right") - 1
            group = text if groups is None else np.asarray(groups[part])[text]
            rows, ranges = self._rows_of(keys, piece, begins, ends, mentions_given=False)
            entity, score = self._chosen(rows, ranges, group)
            first = piece.begins[text]
            found += _listed(len(texts[part]), text, begins - first, ends - first, entity, score)
        return found

    def link_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        groups: Sequence[int] | np.ndarray | None = None,
    ) -> list[list[Link]]:
        """The entity of each span, looked up as a whole: one link a span, in order; entity -1 where it is no name.

        What is given is known to be a mention, so short, common and lower-case names count, in any case of letters.

        Args:
            texts: sentences.
            spans: start and end of mentions of each text, characters, half-open.
            groups: as for `link`.
        """
        found: list[list[Link]] = []
        for part in _portions(texts, groups):
            piece, given = HashedText(texts[part]), spans[part]
            text = np.repeat(np.arange(len(given)), [len(one) for one in given])
            places = np.array([span for one in given for span in one], dtype=np.int64).reshape(-1, 2)
            begins, ends = (piece.begins[text] + column for column in places.T)
            keys = self._key_of(piece.hashes(begins, ends))
            known = np.flatnonzero(keys >= 0)
            entity, score = np.full(len(keys), -1, dtype=np.int64), np.zeros(len(keys))
            rows, ranges = self._rows_of(keys[known], piece, begins[known], ends[known], mentions_given=True)
            group = text if groups is None else np.asarray(groups[part])[text]
            entity[known], score[known] = self._chosen(rows, ranges, group[known])
            found += _listed(len(given), text, places[:, 0], places[:, 1], entity, score)
        return found

    def _hits(self, piece: HashedText) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Begin, end and name of everything that may count."""
        active, depth, hits = np.arange(len(piece.starts)), 0, []
        while len(active):
            begins, ends = piece.starts[active], piece.stops[active + depth]
            hashes = piece.hashes(begins, ends)
            open_still = self._begun.may_have(hashes)
            active, begins, ends, hashes = (one[open_still] for one in (active, begins, ends, hashes))
            capitals = piece.capitals(begins, ends)
            # nearly all words are in lower case, and nearly no names
            able = np.where(capitals > 0, self._whole.may_have(hashes), self._lower.may_have(hashes))
            able = np.flatnonzero(able)
            keys = self._key_of(hashes[able])
            able, keys = able[keys >= 0], keys[keys >= 0]
            good = capitals[able] >= self._least[keys]
            hits.append((begins[able[good]], ends[able[good]], keys[good]))
            depth += 1
            active = active[active + depth < len(piece.starts)]
        if not hits:
            return (np.empty(0, dtype=np.int64),) * 3
        begins, ends, keys = (np.concatenate(column) for column in zip(*hits, strict=True))
        order = np.lexsort((ends, begins))
        return begins[order], ends[order], keys[order]

    def _longest(self, begins: np.ndarray, ends: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, ...]:
        """The hits without those that overlap a longer one that stays; hits are in order of their begin."""
        if not len(begins):
            return begins, ends, keys
        first = np.concatenate([[True], begins[1:] >= np.maximum.accumulate(ends)[:-1]])
        cluster = np.cumsum(first) - 1
        alone = np.bincount(cluster)[cluster] == 1
        kept = alone.copy()
        rest = np.flatnonzero(~alone)
        order = rest[np.lexsort((begins[rest], begins[rest] - ends[rest], cluster[rest]))]
        taken: list[tuple[int, int]] = []
        last = -1
        for place, begin, end, one in zip(
            order.tolist(), begins[order].tolist(), ends[order].tolist(), cluster[order].tolist(), strict=True
        ):
            if one != last:
                taken, last = [], one
            if all(end <= other or begin >= stop for other, stop in taken):
                taken.append((begin, end))
                kept[place] = True
        return begins[kept], ends[kept], keys[kept]

    def _key_of(self, hashes: np.ndarray) -> np.ndarray:
        """The place of each hash among the names, -1 where it is none of them."""
        if not len(self._keys):
            return np.full(len(hashes), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._keys, hashes), len(self._keys) - 1)
        return np.where(self._keys[places] == hashes, places, -1)

    def _rows_of(
        self, keys: np.ndarray, piece: HashedText, begins: np.ndarray, ends: np.ndarray, mentions_given: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of entities that mentions may be of, one after another, and how many each has: at least one."""
        sizes = self._rows[keys + 1] - self._rows[keys]
        rows, mention = ragged(self._rows[keys], sizes), np.repeat(np.arange(len(keys)), sizes)
        able = np.ones(len(rows), dtype=bool)
        if not mentions_given:
            able = self._found[rows] & (self._capitals[rows] <= piece.capitals(begins, ends)[mention])
        same = able & (self._spelt[rows] == piece.spelt(begins, ends)[mention])
        spelt_so = np.bincount(mention[same], minlength=len(keys)) > 0
        kept = np.where(spelt_so[mention], same, able)
        rows, mention = rows[kept], mention[kept]
        # an entity may have a name in several spellings, which then follow each other
        again = np.zeros(len(rows), dtype=bool)
        again[1:] = (mention[1:] == mention[:-1]) & (self._entity[rows[1:]] == self._entity[rows[:-1]])
        return rows[~again], np.bincount(mention[~again], minlength=len(keys))

    def _chosen(self, rows: np.ndarray, sizes: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entity int64 and score float64 of each mention, of which `sizes` rows each are given."""
        entity = self._entity[rows].astype(np.int64)
        begins = np.cumsum(sizes) - sizes
        if not len(begins):
            return np.empty(0, dtype=np.int64), np.empty(0)
        best = begins.copy()  # by degree the first of each is the best
        chosen = entity[best]
        weight = self._degree[entity]
        several = np.flatnonzero(sizes > 1)
        tried = np.minimum(sizes[several], _TRIED)
        candidates = ragged(begins[several], tried)
        mention = np.repeat(several, tried)
        shared = self._shared(entity[candidates], mention, group, chosen)
        # most shared triples first; a stable sort keeps the order by degree
        order = np.lexsort((-shared, mention))
        best[several] = candidates[order[np.cumsum(tried) - tried]]
        return entity[best], weight[best] / np.maximum(np.add.reduceat(weight, begins), 1)

    def _shared(self, entity: np.ndarray, mention: np.ndarray, group: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Triples that a candidate shares with the mentions around it in its group, as they are chosen by degree."""
        first = np.maximum(np.searchsorted(group, group[mention]), mention - _AROUND)
        last = np.minimum(np.searchsorted(group, group[mention], side="right"), mention + _AROUND + 1)
        other, of = ragged(first, last - first), np.repeat(np.arange(len(entity)), last - first)
        one, two = chosen[other], entity[of]
        pairs = np.minimum(one, two) * self._entities + np.maximum(one, two)
        # the same name again is no evidence
        able = np.flatnonzero((one != chosen[mention[of]]) & (one != two))
        able = able[self._joined.may_have(mixed(pairs[able]))]
        pairs = pairs[able]
        count = np.searchsorted(self._pairs, pairs, side="right") - np.searchsorted(self._pairs, pairs)
        return np.bincount(of[able], count, minlength=len(entity)).astype(np.int64)


def common_words(texts: Iterable[str], count: int) -> set[str]:
    """The commonest words of a text, those that stand in it in lower case.

    So "apple" may be among them, and "London" is not, however often it is written. Equally common ones: those that come
    first in the alphabet. Of a text with very many different words the rarest are forgotten now and then.

    Args:
        texts: sentences; read once, a portion at a time.
        count: how many; 0: none.
    """
    if not count:
        return set()
    counts: Counter[str] = Counter()
    most = max(_WORDS, 64 * count)
    texts = iter(texts)
    while portion := list(islice(texts, 5000)):
        counts.update(word for word in _WORD.findall("\n".join(portion)) if word.islower())
        if len(counts) > most:
            counts = Counter(dict(_commonest(counts, most // 2)))
    return {word for word, _ in _commonest(counts, count)}


def _commonest(counts: Counter[str], count: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:count]


def _hashed(texts: list[str]) -> np.ndarray:
    piece = HashedText(texts)
    return piece.hashes(piece.begins, piece.ends)


def _portions(texts: Sequence[str], groups: Sequence[int] | np.ndarray | None) -> Iterator[slice]:
    """Portions of texts of some size; a group is not divided."""
    first = size = 0
    for place, text in enumerate(texts):
        if size >= PORTION and (groups is None or groups[place] != groups[place - 1]):
            yield slice(first, place)
            first, size = place, 0
        size += len(text) + 1
    if first < len(texts):
        yield slice(first, len(texts))


def _listed(
    texts: int, text: np.ndarray, start: np.ndarray, end: np.ndarray, entity: np.ndarray, score: np.ndarray
) -> list[list[Link]]:
    links = list(zip(start.tolist(), end.tolist(), entity.tolist(), score.tolist(), strict=True))
    stops = np.searchsorted(text, np.arange(texts), side="right").tolist()
    return [links[first:stop] for first, stop in zip([0, *stops[:-1]], stops, strict=True)] if texts else []
