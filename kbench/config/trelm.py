"""Types and help of TRELM's options: what is injected, what is remembered, which weights learn (arXiv 2403.11203).

Where the paper is silent or contradicts itself, a switch offers the readings; docs/trelm.md lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kbench.config.keys import key, machinery
from kbench.errors import Problem


class Rule(Enum):
    """Which mentions are important."""

    si_above_mean = "si_above_mean"
    si_top_k = "si_top_k"
    klt = "klt"
    long_tail = "long_tail"
    high_frequency = "high_frequency"
    all = "all"
    none = "none"


class Triple(Enum):
    """Which triple of an entity is injected."""

    random = "random"
    partner_in_text = "partner_in_text"
    first = "first"


class Exclude(Enum):
    """Which triples are never injected."""

    none = "none"
    probe = "probe"


class Unit(Enum):
    """What the share of the memory decays with."""

    epoch = "epoch"
    fraction = "fraction"


class Mode(Enum):
    """Where the knowledge paths come from."""

    off = "off"
    literal = "literal"
    amortised = "amortised"
    in_backward = "in_backward"
    random = "random"
    magnitude = "magnitude"


class Layers(Enum):
    """The layers that have paths."""

    all = "all"
    upper_half = "upper_half"


@dataclass
class Words:
    """Masked language modelling beside the injected knowledge."""

    probability: float = key("share of words that are selected")
    whole_words: bool = key("all pieces of a word are selected together")
    in_spans: bool = key("words of injected mentions are selected, too")


@dataclass
class Importance:
    """Semantic importance: how far a sentence moves when a mention is replaced (equation 1)."""

    score: str = key("inverse_cosine of the sentence before and after, or one_minus_cosine")
    replacement: str = key("what stands for the mention: mask, unk, delete or random_entity")
    pooling: str = key("the sentence's vector: mean of its tokens, or cls")


@dataclass
class Select:
    """The important mentions of a sentence."""

    rule: Rule = key(
        "si_above_mean: semantic importance above the sentence's mean; si_top_k: the k highest; klt: DKPLM's long-tail "
        "mentions; long_tail, high_frequency: by frequency alone; all; none"
    )
    k: int = key("of si_top_k: mentions of a sentence")
    hops: int = key("of klt: neighbours within so many hops, 1 or 2, make an entity well connected")


@dataclass
class Inject:
    """What stands in the place of a mention's token embeddings."""

    enabled: bool = key("false: mentions keep their embeddings; the knowledge loss stays")
    triple: Triple = key("a triple at random; one whose partner_in_text is mentioned, too; or the first")
    level: str = key("the token part of the embedding is replaced, or the sum with position and segment")
    share_projection: bool = key("entities and relations have one projection; paths may then cut the backward pass")
    exclude: Exclude = key("triples that are never injected: none, or those that the run's own probe asks for")


@dataclass
class Cka:
    """Contextual knowledge assimilation: the triple's other entity, decoded token by token (equations 2 and 3)."""

    target: str = key("the neighbour's name, or self: the mention's own tokens (released code of DKPLM)")
    direction: str = key("both, or head_to_tail: only mentions that are heads")
    decoder: str = key("recurrent: step by step; one_step: every token from the first state")
    delta: float = key("scale of a step of the decoder")
    longest: int = key("tokens of a name at most")
    similarity: str = key("of a state and a token's embedding: dot or cosine")
    tau: float = key("temperature of the similarity")
    sampler: str = key("wrong tokens are drawn unigram, log_uniform or uniform")
    negatives: int = key("wrong tokens, shared by a step")
    power: float = key("of unigram: power of a token's count")
    correction: bool = key("subtract the logarithm of how often a token is drawn")


@dataclass
class Memory:
    """The memory bank: what was seen of an entity before (equations 4 to 8)."""

    initial: float = key("lambda_0, share of the memory at the start; 0: there is none")
    beta: float = key("the share is divided by beta in every unit")
    unit: Unit = key("a unit is an epoch, or a fraction of the training")
    every: float = key("of the unit fraction: its share of the training")
    final_zero: bool = key("no memory in the last unit")
    window: int = key("k, tokens left and right of a mention that its note is the mean of")
    divisor: str = key("of that mean: the actual number of tokens, or the printed 2 k + mention")
    gamma: float = key("weight of a new note in the local memory")
    start: str = key("local memory before the first note: name (mean embedding of its tokens) or zero")
    global_mean: str = key("mean over all contexts: running, or per_epoch anew")
    members: str = key("whose notes are kept: important, important+long_tail, or all")
    scale: str = key(
        "memory is added as it is (none), to the injected vector's norm (match_norm), or after a layernorm"
    )
    store: str = machinery("rows: in memory; mapped: files on one machine; sharded: over the processes")


@dataclass
class Trainable:
    """What learns beside the knowledge paths and the new parts."""

    attention: bool = key("attention of all layers")
    norms: bool = key("layer norms of all layers")
    embeddings: bool = key("embeddings")
    head: bool = key("transform and bias of the language-model head")


@dataclass
class Routing:
    """Dynamic knowledge routing: only the knowledge paths of the feed-forward layers learn (equations 9 to 12)."""

    mode: Mode = key(
        "off: everything learns; literal: paths of every batch, all of it, every step; amortised: of some sequences, "
        "every so many steps; in_backward: from the step's own gradients; random and magnitude: controls"
    )
    layers: Layers = key("all layers have paths, or the upper half")
    granularity: str = key("row: a neuron's weights in and out; path: of these only some inputs and outputs")
    rho: float = key("share of the neurons that a path has, over all its layers")
    rho_sites: float = key("of granularity path: share of a layer's inputs and outputs")
    select: str = key("top_fraction: rho of them; threshold: those of a share of the largest score")
    threshold: float = key("of select threshold: that share")
    scope: str = key("one path for a batch, or for each relation")
    every: int = key("of amortised, random, magnitude: steps that a path is kept")
    sequences: int = key("of amortised, magnitude: sequences that a path is found with")
    points: int = key("m, points of the integral")
    rule: str = key("Riemann sum at the right, left or midpoint of each piece")
    scaling: str = key("neurons of one layer after the other (per_layer), or of all at once (joint)")
    positions: str = key("where neurons are scaled: the mention's span, its first token, or all")
    optimizer: str = key("row_sparse: weights off the path stay; masked_grad: momentum and decay move them, too")
    trainable: Trainable = key("what learns beside them")


_CHOICES = {
    "si.score": ("inverse_cosine", "one_minus_cosine"),
    "si.replacement": ("mask", "unk", "delete", "random_entity"),
    "si.pooling": ("mean", "cls"),
    "inject.level": ("token", "sum"),
    "cka.target": ("neighbour", "self"),
    "cka.direction": ("both", "head_to_tail"),
    "cka.decoder": ("recurrent", "one_step"),
    "cka.similarity": ("dot", "cosine"),
    "cka.sampler": ("unigram", "log_uniform", "uniform"),
    "memory.divisor": ("actual", "printed"),
    "memory.start": ("name", "zero"),
    "memory.global_mean": ("running", "per_epoch"),
    "memory.members": ("important", "important+long_tail", "all"),
    "memory.scale": ("none", "match_norm", "layernorm"),
    "memory.store": ("rows", "mapped", "sharded"),
    "routing.granularity": ("row", "path"),
    "routing.select": ("top_fraction", "threshold"),
    "routing.scope": ("batch", "relation"),
    "routing.rule": ("right", "left", "midpoint"),
    "routing.scaling": ("per_layer", "joint"),
    "routing.positions": ("span", "first", "all"),
    "routing.optimizer": ("row_sparse", "masked_grad"),
}
# key -> smallest and largest value
_BOUNDS: dict[str, tuple[float, float]] = {
    "mlm.probability": (0, 1),
    "select.k": (1, 10**6),
    "select.hops": (1, 2),
    "cka.longest": (1, 64),
    "cka.negatives": (1, 10**6),
    "theta": (0, 1),
    "memory.initial": (0, 1),
    "memory.beta": (1, 10**6),
    "memory.window": (0, 10**4),
    "memory.gamma": (0, 1),
    "routing.rho": (0, 1),
    "routing.rho_sites": (0, 1),
    "routing.threshold": (0, 1),
    "routing.every": (1, 10**9),
    "routing.sequences": (1, 10**6),
    "routing.points": (1, 10**6),
}
_POSITIVE = ("cka.delta", "cka.tau", "memory.every", "routing.rho", "routing.rho_sites")


def check(config: object) -> list[Problem]:
    """Rules that a type cannot say, of a configuration whose nodes are those here and `theta`."""

    def value(name: str) -> object:
        node: object = config
        for part in name.split("."):
            node = getattr(node, part)
        return node

    problems = []
    for name, known in _CHOICES.items():
        if value(name) not in known:
            problems.append(
                Problem(f"method.{name}", f"no such choice: {value(name)}", f"there are: {', '.join(known)}")
            )
    for name, (low, high) in _BOUNDS.items():
        number = value(name)
        if isinstance(number, int | float) and not low <= number <= high:
            problems.append(Problem(f"method.{name}", f"must lie between {low} and {high}, is {number}"))
    for name in _POSITIVE:
        number = value(name)
        if isinstance(number, int | float) and not number > 0:
            problems.append(Problem(f"method.{name}", f"must be above 0, is {number}"))
    attributed = value("routing.mode") in (Mode.off, Mode.literal, Mode.amortised)
    if value("routing.scope") == "relation" and not attributed:
        what = "is relation, and only attribution finds a path for each"
        problems.append(Problem("method.routing.scope", what, "take scope=batch, or mode=amortised or literal"))
    if value("routing.scope") == "relation" and value("routing.granularity") == "path":
        what = "is relation, and granularity is path: a relation's path has neurons alone"
        problems.append(Problem("method.routing.scope", what, "take scope=batch, or granularity=row"))
    return problems
