"""Streams: sentences put together from names equal what a tokenizer makes of the text, for three kinds of it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kbench.backbones.tiny import Texts, tiny_stage
from kbench.config.schema import Tiny
from kbench.engine.counter import below, mixed
from kbench.errors import BackboneError, DataError
from kbench.knowledge import tokens
from kbench.knowledge.graph import Graph
from kbench.knowledge.masking import Masked, Masking, Role
from kbench.knowledge.streams import Assembled, ReasoningStream, SwitchedStream
from kbench.knowledge.tokens import NameTokens, Vocabulary, names_stage, write_names
from kbench.stages.stage import Stage

# item -> names of each language, the label first; items 0 to 4 are entities, 5 to 9 relations
NAMES: dict[str, dict[int, list[str]]] = {
    "en": {
        0: ["Ada Lovelace", "Countess of Lovelace", "Ada Byron"],
        1: ["London"],
        2: ["Lord Byron", "George Gordon Byron"],
        3: ["England"],
        4: ["Thames"],
        5: ["place of death", "died in"],
        6: ["father", "dad"],
        7: ["capital of"],
        8: ["country"],
        9: ["crosses"],
    },
    "de": {
        0: ["Ada Gräfin Lovelace"],
        1: ["London", "die Stadt an der Themse", "Londinium"],
        3: ["England"],
        4: ["Themse"],
        5: ["Sterbeort", "gestorben in"],
        6: ["Vater"],
        8: ["Staat"],
    },
    "ja": {0: ["エイダ"], 1: ["ロンドン"], 2: ["バイロン"], 3: ["英国"], 5: ["死亡地"], 6: ["父親"], 7: ["首都"]},
}
ENTITIES, RELATIONS = 5, 5
TRIPLES = [(0, 0, 1), (0, 1, 2), (2, 0, 1), (1, 2, 3), (1, 3, 3), (4, 4, 1), (0, 3, 3), (2, 3, 3)]
LANGUAGES = list(NAMES)

NASTY = ["A|B", "St. Gallen.", "｜．…", "||", ". . .", "[MASK] <mask> [SEP] </s>", "   ", "\u200b", "|", "a.b|c.", "⒈"]


def write_graph(folder: Path, names: Mapping[str, Mapping[int, Sequence[str]]], triples: Any, entities: int) -> Path:
    """A graph in the form of its stage."""
    (folder / "names").mkdir(parents=True)
    items = 1 + max(item for of_language in names.values() for item in of_language)
    np.save(folder / "entities.npy", np.arange(1, entities + 1))
    np.save(folder / "relations.npy", np.arange(1, items - entities + 1))
    np.save(folder / "triples.npy", np.array(triples, dtype=np.int32).reshape(-1, 3))
    counts = {}
    for lang, of_language in names.items():
        flat = [(item, text) for item in sorted(of_language) for text in of_language[item]]
        table = pa.table(
            {"item": pa.array([i for i, _ in flat], pa.int32()), "text": pa.array([t for _, t in flat], pa.string())}
        )
        path = str(folder / "names" / f"{lang}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
        ends = np.cumsum([len(of_language.get(item, ())) for item in range(items)])
        np.save(folder / "names" / f"{lang}.ends.npy", ends.astype(np.int64))
        counts[lang] = {"labels": len(of_language), "names": len(flat)}
    info = {"entities": entities, "relations": items - entities, "triples": len(triples), "languages": counts}
    (folder / "graph.json").write_text(json.dumps({**info, "skipped": {}, "content": "test"}))
    return folder


def write_samples(
    folder: Path, switched: Sequence[Any] = (), short: Sequence[Any] = (), long: Sequence[Any] = ()
) -> Path:
    """Samples in the form of their stage: (triple, language, bits, aliases); (triples, language)."""
    folder.mkdir(parents=True)
    kind: Any = [("triple", np.int32), ("language", np.int8), ("bits", np.uint8), ("aliases", np.int16, 3)]
    np.save(folder / "switched.npy", np.array(list(switched), dtype=kind))
    for length, rows, sentences in ((3, short, 3), (4, long, 5)):
        kind = [("cycle", np.int32), ("language", np.int8), ("triples", np.int32, sentences)]
        found = np.array([(row, lang, one) for row, (one, lang) in enumerate(rows)], dtype=kind)
        np.save(folder / f"reasoning{length}.npy", found)
    return folder


# Tokenizers of the three kinds.


def corpus() -> list[str]:
    return [name for of_language in NAMES.values() for of_item in of_language.values() for name in of_item]


def wordpiece() -> Any:
    """A cased BERT: whole words of some names, and every letter."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted({letter for text in [*corpus(), ".|[]<>/MASKSEPmask"] for letter in text if letter != " "})
    words = ["London", "Byron", "father", "Staat", "of", "place"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    inner = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", **special)


def bytelevel(folder: Path) -> Any:
    """The tokenizer of the tiny backbone."""
    from transformers import PreTrainedTokenizerFast

    shape = Tiny(vocabulary=400, width=8, layers=1, heads=1, positions=64)
    tiny_stage(shape, Texts({}, lambda folders: iter([corpus() * 5]))).build(folder, {})
    return PreTrainedTokenizerFast.from_pretrained(folder)


def unigram() -> Any:
    """The form of XLM-R: NFKC, spaces as part of words, a Unigram model; <s> and </s>, which are cls and sep, too."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=230,
        special_tokens=[*special, "<mask>"],
        unk_token="<unk>",
        initial_alphabet=[".", "|"],
        show_progress=False,
    )
    inner.train_from_iterator(corpus() * 5, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", inner.token_to_id("<s>")), ("</s>", inner.token_to_id("</s>"))]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", mask_token=mask, **names)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {"wordpiece": wordpiece(), "bytelevel": bytelevel(tmp_path_factory.mktemp("tiny")), "unigram": unigram()}
    for tokenizer in made.values():
        assert tokenizer.convert_tokens_to_ids("|") not in (None, tokenizer.unk_token_id)
    return made


KINDS = ["wordpiece", "bytelevel", "unigram"]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Any]) -> Any:
    return tokenizers[request.param]


def triple_text(number: int, said: Sequence[str]) -> str:
    """`HEAD| REL| TAIL.` of a triple"""
    head, relation, tail = TRIPLES[number]
    names = [spoken[item] for item, spoken in zip((head, ENTITIES + relation, tail), said, strict=True)]  # type: ignore[index]
    return f"{names[0]}| {names[1]}| {names[2]}."


def expected(tokenizer: Any, text: str, max_length: int = 128) -> list[int]:
    """The ids of a text in the marker form of the released code, its bars the mask."""
    bar = tokenizer.convert_tokens_to_ids("|")
    ids = [tokenizer.mask_token_id if one == bar else one for one in tokenizer(text)["input_ids"]]
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def rows_of(made: Assembled) -> list[list[int]]:
    return [ids[roles != Role.PAD].tolist() for ids, roles in zip(made.ids, made.roles, strict=True)]


class World:
    """The small graph with the tokens of one tokenizer."""

    def __init__(self, folder: Path, tokenizer: Any, names: Any = NAMES, triples: Any = TRIPLES, entities: int = 5):
        self.folder, self.tokenizer = folder, tokenizer
        self.graph = write_graph(folder / "graph", names, triples, entities)
        self.vocabulary = Vocabulary.of(tokenizer)
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        self.languages = list(names)
        write_names(Graph(self.graph), tokenizer, self.languages, self.tokens)
        self.made = 0

    def _folders(self, **rows: Any) -> tuple[Any, ...]:
        self.made += 1
        samples = write_samples(self.folder / f"samples{self.made}", **rows)
        return self.graph, samples, self.tokens, self.languages, self.vocabulary

    def switched(self, rows: list[Any], max_length: int = 128, rules: Masking | None = None) -> SwitchedStream:
        return SwitchedStream(*self._folders(switched=rows), max_length, rules or Masking())

    def reasoning(
        self, short: list[Any], long: list[Any], max_length: int = 128, rules: Masking | None = None, **more: Any
    ) -> ReasoningStream:
        return ReasoningStream(*self._folders(short=short, long=long), max_length, rules or Masking(), **more)


@pytest.fixture
def world(tmp_path: Path, tokenizer: Any) -> World:
    return World(tmp_path, tokenizer)


def alone(masked: Masked) -> list[tuple[list[int], dict[int, int]]]:
    """(ids without padding, place -> label) of each sample"""
    width = masked.input_ids.shape[1]
    labels: list[dict[int, int]] = [{} for _ in masked.input_ids]
    for position, label in zip(masked.positions.tolist(), masked.labels.tolist(), strict=True):
        labels[position // width][position % width] = label
    sizes = masked.attention_mask.sum(1)
    return [(ids[:size].tolist(), of) for ids, size, of in zip(masked.input_ids, sizes, labels, strict=True)]


# Putting together.


def test_a_sentence_is_what_the_tokenizer_makes_of_its_text(world: World, tokenizer: Any) -> None:
    rows, texts = [], []
    labels = [{item: names[0] for item, names in NAMES[lang].items()} for lang in LANGUAGES]
    for triple, language, bits in [(0, 1, 0), (0, 1, 5), (0, 1, 2), (0, 2, 7), (1, 2, 7), (4, 1, 7), (5, 2, 0)]:
        said = [labels[language if bits >> part & 1 else 0] for part in range(3)]
        rows.append((triple, language, bits, (0, 0, 0)))
        texts.append(triple_text(triple, said))
    rows.append((0, 1, 4, (2, 1, 1)))  # aliases: third English name, second English one, second German one
    texts.append("Ada Byron| died in| die Stadt an der Themse.")
    rows.append((0, 1, 6, (1, 1, 2)))
    texts.append("Countess of Lovelace| gestorben in| Londinium.")
    stream = world.switched(rows)
    assert len(stream) == len(rows)
    order = np.array([8, 0, 3, 1, 7, 2, 2, 6, 5, 4])
    assert rows_of(stream.assembled(order)) == [expected(tokenizer, texts[row]) for row in order]
    assert stream.lengths(order).tolist() == [len(expected(tokenizer, texts[row])) for row in order]
    assert stream.lengths(order).dtype == np.int32


def test_a_cycle_is_its_sentences_one_after_another(world: World, tokenizer: Any) -> None:
    # language 2 has no name for entity 4 and for relations 8 and 9: said in English
    short, long = [((0, 1, 2), 0), ((0, 1, 2), 2)], [((0, 3, 2, 7, 1), 0), ((5, 6, 3, 4, 0), 2)]
    said = [
        {item: NAMES[lang].get(item, NAMES["en"][item])[0] for item in NAMES["en"]} for lang in ("en", "ja", "en", "ja")
    ]
    texts = [
        " ".join(triple_text(triple, [names] * 3) for triple in triples)
        for (triples, _), names in zip([*short, *long], said, strict=True)
    ]
    order = np.array([3, 0, 2, 1])
    for max_length in (256, 40, 17, 9):
        stream = world.reasoning(short, long, max_length)
        wanted = [expected(tokenizer, texts[row], max_length) for row in order]
        assert rows_of(stream.assembled(order)) == wanted
        assert stream.lengths(order).tolist() == list(map(len, wanted))
        assert stream.sentences(order).tolist() == [5, 3, 5, 3]


def test_the_chord_stands_last_or_second(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    world = World(tmp_path, tokenizers["wordpiece"])
    long = [((0, 3, 2, 7, 1), 0)]
    en = [{item: names[0] for item, names in NAMES["en"].items()}] * 3
    for chord, order in (("last", (0, 3, 2, 7, 1)), ("second", (0, 1, 3, 2, 7))):
        stream = world.reasoning([], long, chord=chord)
        text = " ".join(triple_text(triple, en) for triple in order)
        assert rows_of(stream.assembled(np.array([0]))) == [expected(world.tokenizer, text)]
    with pytest.raises(KeyError):
        world.reasoning([], long, chord="first")


def naive(world: World, triples: Sequence[Sequence[str]], max_length: int) -> list[tuple[int, int, int]]:
    """(id, role, span) of a sample of sentences of three names each, one token at a time."""
    vocabulary = world.vocabulary
    found = [(vocabulary.cls, int(Role.SPECIAL), -1)]
    for sentence, names in enumerate(triples):
        for part, name in enumerate(names):
            text = f" {name.strip()}"
            ids = world.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids = [vocabulary.unknown if one in vocabulary.special else one for one in ids if name.strip()]
            ids = ids or [vocabulary.unknown]
            found += [(one, part + 1, 3 * sentence + part) for one in ids]
            after = [vocabulary.mask] if part < 2 else list(vocabulary.period)
            found += [(one, int(Role.LINKER if part < 2 else Role.PERIOD), -1) for one in after]
    return [*found[: max_length - 1], (vocabulary.sep, int(Role.SPECIAL), -1)]


def test_letters_that_look_like_links_keep_their_role(tokenizer: Any, tmp_path: Path) -> None:
    entities = {place: [name] for place, name in enumerate(NASTY)}
    count = len(entities)
    names = {"en": {**entities, count: ["rel|ation."], count + 1: ["．｜"]}, "de": {0: ["x."], count: ["| |"]}}
    triples = [(a, (a + b) % 2, b) for a in range(count) for b in range(count) if a != b]
    world = World(tmp_path, tokenizer, names, triples, count)
    places = np.arange(len(triples))
    long = [(tuple((row * 7 + step) % len(triples) for step in range(5)), 0) for row in range(40)]
    for max_length in (128, 33, 8):
        stream = world.switched([(row, 1, 0, (0, 0, 0)) for row in range(len(triples))], max_length)
        cycles = world.reasoning([], long, max_length)
        texts = [[[names["en"][h][0], names["en"][count + r][0], names["en"][t][0]]] for h, r, t in triples]
        for one, wanted in ((stream, texts), (cycles, [[texts[t][0] for t in chosen] for chosen, _ in long])):
            made = one.assembled(places[: len(one)])
            for row, sentences in enumerate(wanted):
                size = int((made.roles[row] != Role.PAD).sum())
                columns = [array[row, :size].tolist() for array in (made.ids, made.roles, made.spans)]
                assert list(zip(*columns, strict=True)) == naive(world, sentences, max_length)
                assert (made.ids[row, size:] == world.vocabulary.pad).all() and (made.spans[row, size:] == -1).all()


@pytest.mark.parametrize("max_length", [3, 5, 8, 9])
def test_cutting_keeps_the_final_special_token(world: World, max_length: int) -> None:
    stream = world.switched([(0, 1, 0, (0, 0, 0)), (5, 1, 0, (0, 0, 0))], max_length)
    whole = world.switched([(0, 1, 0, (0, 0, 0)), (5, 1, 0, (0, 0, 0))], 128)
    for cut, full in zip(rows_of(stream.assembled(np.arange(2))), rows_of(whole.assembled(np.arange(2))), strict=True):
        assert len(full) > max_length == len(cut)
        assert cut == [*full[: max_length - 1], world.vocabulary.sep]


# Batches.


def many(world: World) -> tuple[list[Any], list[Any], list[Any]]:
    """Samples of all kinds: code-switched ones, cycles of length 3 and of length 4."""
    switched = [(triple, 1, 0, (0, 0, 0)) for triple in range(len(TRIPLES))] + [
        (0, 2, 7, (0, 0, 0)),
        (0, 1, 6, (1, 1, 2)),
    ]
    count = len(TRIPLES)
    short = [(tuple((row + step) % count for step in range(3)), row % 3) for row in range(20)]
    return switched * 4, short, [(tuple((row + 2 * step) % count for step in range(5)), row % 3) for row in range(20)]


@pytest.mark.parametrize("kind", ["switched", "reasoning", "ordinary"])
def test_a_sample_does_not_depend_on_its_batch(world: World, kind: str) -> None:
    switched, short, long = many(world)
    stream: Any = world.switched(switched) if kind == "switched" else None
    stream = stream or world.reasoning(short, long, 60, reasoning=kind == "reasoning")
    rows = np.arange(len(stream))
    keys = mixed(3, rows)
    together = alone(stream.batch(rows, keys))
    assert sum(len(labels) for _, labels in together) > 20
    assert together == [one for row in rows for one in alone(stream.batch(rows[[row]], keys[[row]]))]
    shuffled = np.argsort(mixed(4, rows))
    apart = [one for part in np.array_split(shuffled, 7) for one in alone(stream.batch(part, keys[part]))]
    assert [together[row] for row in shuffled] == apart
    assert [len(ids) for ids, _ in together] == stream.lengths(rows).tolist()
    assert together != alone(stream.batch(rows, mixed(5, rows)))


def test_without_the_reasoning_rules_the_same_data_is_masked_like_sentences(world: World) -> None:
    _, short, long = many(world)
    rows = np.tile(np.arange(40), 100)
    keys = mixed(6, np.arange(len(rows)))
    streams = [world.reasoning(short, long, reasoning=flag) for flag in (True, False)]
    made = streams[0].assembled(rows)
    assert (made.ids == streams[1].assembled(rows).ids).all()
    batches = [stream.batch(rows, keys) for stream in streams]
    for batch in batches:  # what is hidden is told by the labels: the text is the same
        restored = batch.input_ids.reshape(-1).copy()
        restored[batch.positions] = batch.labels
        assert (restored.reshape(made.ids.shape) == made.ids).all()
    roles = [Counter(made.roles.reshape(-1)[batch.positions].tolist()) for batch in batches]
    spoken = np.isin(made.roles, (Role.HEAD, Role.RELATION, Role.TAIL))
    assert set(roles[0]) == set(roles[1]) == {Role.HEAD, Role.RELATION, Role.TAIL}
    assert len(batches[1].positions) / spoken.sum() == pytest.approx(0.15, abs=0.01)
    # 80/10/10 in the one, the mask alone in the other
    mask = world.vocabulary.mask
    shares = [(batch.input_ids.reshape(-1)[batch.positions] == mask).mean() for batch in batches]
    assert shares[0] == 1
    assert shares[1] == pytest.approx(0.8, abs=0.02)


def test_cycles_of_both_lengths_are_masked_by_their_own_rule(world: World) -> None:
    _, short, long = many(world)
    stream = world.reasoning(short, long, 400, Masking(sentence_probability=0))
    rows = below(40, 7, np.arange(2000))
    made, batch = stream.assembled(rows), stream.batch(rows, mixed(8, np.arange(2000)))
    marks = np.zeros(made.ids.size, dtype=bool)
    marks[batch.positions] = True
    kinds = {3: Counter[int](), 5: Counter[int]()}
    for count, spans, here in zip(
        stream.sentences(rows).tolist(), made.spans, marks.reshape(made.ids.shape), strict=True
    ):
        kinds[count][len(set(spans[here].tolist()))] += 1
    assert set(kinds[3]) == {1}
    assert set(kinds[5]) == {2, 3}


def test_a_batch_of_thousands_with_empty_parts(world: World) -> None:
    switched, short, _ = many(world)
    stream = world.switched(switched)
    rows = np.arange(5000) % len(stream)
    found = alone(stream.batch(rows, np.zeros(5000, dtype=np.uint64)))
    assert found[: len(stream)] == found[len(stream) : 2 * len(stream)]
    only_short = world.reasoning(short, [])
    assert len(only_short) == 20
    assert len(alone(only_short.batch(np.arange(20), mixed(1, np.arange(20))))) == 20


# Names that are not there.


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((0, 1, 0, (3, 0, 0)), ["name 3 of entity 0 in en", "has 3 there"]),
        ((0, 2, 7, (0, 1, 0)), ["name 1 of relation 0 in ja", "has 1 there"]),
    ],
)
def test_a_name_that_is_not_there_is_an_error(world: World, row: Any, words: list[str]) -> None:
    stream = world.switched([(0, 1, 0, (0, 0, 0)), row])
    assert len(stream.lengths(np.array([0]))) == 1
    for ask in (stream.lengths, stream.assembled):
        with pytest.raises(DataError) as raised:
            ask(np.array([0, 1]))
        assert all(word in str(raised.value) for word in words)


def test_an_item_without_any_name_is_an_error(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    world = World(tmp_path, tokenizers["wordpiece"], {"en": {0: ["a"], 2: ["b"]}, "de": {1: ["c"]}}, [(0, 0, 1)], 2)
    with pytest.raises(DataError, match="of entity 1 in en"):
        world.reasoning([((0, 0, 0), 0)], []).lengths(np.array([0]))
    assert world.reasoning([((0, 0, 0), 1)], []).lengths(np.array([0])) == [3 * 6 + 2]


# The stage of the names, and the ids.


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_names_do_not_depend_on_the_chunks(world: World, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_BATCH", chunk)
    again = world.folder / "again"
    again.mkdir()
    write_names(Graph(world.graph), world.tokenizer, LANGUAGES, again)
    files = sorted(path.name for path in world.tokens.iterdir())
    assert files == sorted(["tokens.json", *(f"{lang}.{end}" for lang in LANGUAGES for end in ("ids", "ends"))])
    for name in files:
        assert (again / name).read_bytes() == (world.tokens / name).read_bytes()


def test_every_name_has_a_token_and_none_is_special(tokenizer: Any, tmp_path: Path) -> None:
    world = World(tmp_path, tokenizer, {"en": {place: [name] for place, name in enumerate(NASTY)}}, [(0, 0, 1)], 10)
    names = NameTokens(world.tokens, "en")
    lengths = np.diff(names.ends, prepend=0)
    assert lengths.min() == 1
    vocabulary = world.vocabulary
    blank = NASTY.index("   ")
    assert names.ids[names.ends[blank] - 1] == vocabulary.unknown
    assert lengths[blank] == 1
    special = set(vocabulary.special) - {vocabulary.unknown}
    assert len(special) == 4 and not special & set(names.ids.tolist())
    told = json.loads((world.tokens / "tokens.json").read_text())["names"]["en"]
    assert told["all"] == len(names.ids)
    assert told["unknown"] == (names.ids == vocabulary.unknown).sum()
    assert told["empty"] >= 1


def test_the_stage_of_the_names_is_made_from_graph_and_backbone(world: World, tmp_path: Path) -> None:
    def build(work: Path, folders: Mapping[str, Path]) -> None: ...

    graph, backbone = Stage("graph", 1, {}, build), Stage("tiny", 1, {}, build)
    asked: list[Path | None] = []

    def load(folder: Path | None) -> Any:
        asked.append(folder)
        return world.tokenizer

    stages = [
        names_stage(graph, load, backbone, "auto", LANGUAGES),
        names_stage(graph, load, "hub id", "auto", LANGUAGES),
        names_stage(graph, load, "hub id", "kobert", LANGUAGES),
        names_stage(graph, load, "hub id", "auto", ["en"]),
        names_stage(Stage("graph", 2, {}, build), load, "hub id", "auto", LANGUAGES),
    ]
    assert len({stage.key for stage in stages}) == 5
    for number, stage in enumerate(stages[:2]):
        work = tmp_path / f"work{number}"
        work.mkdir()
        folders = {"graph": world.graph, "backbone": tmp_path / "backbone"}
        stage.build(work, {name: folders[name] for name in stage.parents})
        for path in world.tokens.iterdir():
            assert (work / path.name).read_bytes() == path.read_bytes()
    assert asked == [tmp_path / "backbone", None]


def test_a_language_without_names_has_empty_files(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    world = World(tmp_path, tokenizers["wordpiece"], {"en": {0: ["a"], 1: ["b"], 2: ["c"]}, "de": {}}, [(0, 0, 1)], 2)
    assert len(NameTokens(world.tokens, "de").ids) == len(NameTokens(world.tokens, "de").ends) == 0
    # nothing is there in German: English speaks for it
    cycles = world.reasoning([((0, 0, 0), 1)], [])
    assert rows_of(cycles.assembled(np.array([0]))) == [expected(world.tokenizer, " ".join(["a| c| b."] * 3))]


def test_a_name_has_the_ids_that_it_has_after_a_space(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = copy.deepcopy(tokenizers["bytelevel"])  # as RoBERTa's: a word without a space before it is another one
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert tokenizer("London")["input_ids"] != tokenizer(" London")["input_ids"]
    stream = World(tmp_path, tokenizer).switched([(0, 1, 0, (0, 0, 0))])
    wanted = expected(tokenizer, " Ada Lovelace| place of death| London.")
    assert rows_of(stream.assembled(np.array([0]))) == [wanted]


def test_the_ids_of_a_tokenizer(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        found = Vocabulary.of(tokenizer)
        assert [found.cls, found.sep] == [tokenizer("a")["input_ids"][0], tokenizer("a")["input_ids"][-1]]
        assert [found.mask, found.pad, found.unknown] == [
            tokenizer.mask_token_id,
            tokenizer.pad_token_id,
            tokenizer.unk_token_id,
        ]
        assert found.period == (tokenizer.convert_tokens_to_ids("."),)
        assert found.size == len(tokenizer)
        assert found.special == tuple(sorted({found.cls, found.sep, found.mask, found.pad, found.unknown}))


def test_a_tokenizer_without_a_mask_is_refused(tokenizers: dict[str, Any]) -> None:
    tokenizer = copy.deepcopy(tokenizers["wordpiece"])
    tokenizer.mask_token = None
    with pytest.raises(BackboneError, match="no mask token"):
        Vocabulary.of(tokenizer)
    # beginning and end of a sequence may go by their other name
    tokenizer = copy.deepcopy(tokenizers["unigram"])
    tokenizer.cls_token = tokenizer.sep_token = None
    assert Vocabulary.of(tokenizer) == Vocabulary.of(tokenizers["unigram"])
