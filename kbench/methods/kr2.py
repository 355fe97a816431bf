"""KR2: a frozen pre-trained model is a resource; its hidden states are appended to the input of the reader that learns.

KR2: Revisiting Pre-trained Language Models as Knowledge Resource. The reader is fine-tuned in full; the resource is
neither trained nor fine-tuned on the task. Without `method.resource` the resource is a frozen copy of the reader's own
checkpoint: KReader2 of the paper's tables. docs/kr2.md names what the paper leaves open, our choice and the switch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.backbones.locate import FAMILIES, depth_and_width, named, positions_of, shape_of
from kbench.config.keys import key, machinery
from kbench.engine.seeding import derive
from kbench.errors import Problem
from kbench.methods.finetune import Finetune
from kbench.methods.resource import LAYER, Resource, Source, fused_layers

if TYPE_CHECKING:
    from torch import nn

    from kbench.backbones.locate import Located
    from kbench.config.schema import Backbone, Data
    from kbench.stages.stage import Stage

_PLACE = "resource"


class FusionWeights(Enum):
    """What a trainable fusion learns."""

    softmax = "softmax"
    free = "free"


class InjectAt(Enum):
    """Where the resource's vectors enter the reader."""

    embedding_output = "embedding_output"
    inputs_embeds = "inputs_embeds"


class Norm(Enum):
    """What is done with the resource's vectors."""

    none = "none"
    layernorm = "layernorm"


class Projection(Enum):
    """How the resource's vectors get the reader's width."""

    auto = "auto"
    identity = "identity"
    mlp = "mlp"


class Stored(Enum):
    """Number format of the resource's vectors."""

    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"


class Cache(Enum):
    """Whether the resource's vectors are kept on disk."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass
class Config:
    """Options of KR2."""

    name: str = key("name of the method")
    # its content is in the keys of the stages, wherever it stands
    resource: str | None = machinery(
        "the frozen model: a name of conf/backbone, a folder, or a hub id, id@revision; null: the reader's own "
        "checkpoint (KReader2)"
    )
    resource_seed: int = key("seed of the weights of a resource that is built here")
    fusion: str = key("layers that are read: layer:K (0 is the embeddings), avg_all, avg_last4, or learned")
    fusion_weights: FusionWeights = key("of a learned fusion: softmax of what is trained, or free weights")
    inject_at: InjectAt = key("behind the reader's embedding block, or before it")
    segment: int | None = key(
        "segment of the reader whose embedding the vectors get; null: none, or 0 before the block"
    )
    inject_norm: Norm = key("layer norm on the vectors, or none")
    inject_dropout: float = key("dropout on the vectors")
    projection: Projection = key("identity, mlp, or auto: mlp where the widths differ")
    depth: int = key("linear layers of the mlp, GELU between")
    drop_special: bool = key("leave out the vectors of the resource's special tokens")
    stored: Stored = key("number format of the vectors: fp16, bf16 or fp32, cached or not")
    cache: Cache = machinery("keep the vectors on disk: on, off, or auto, up to cache_gigabytes")
    cache_gigabytes: float = machinery("most that cache=auto keeps, for one data set and resource")


class Kr2(Finetune):
    """encoder([E ; f(F)]), the head on the reader's positions; cross entropy with the gold label."""

    Config = Config

    @classmethod
    def check(cls, config: Any, data: Data) -> list[Problem]:
        problems = []
        if not LAYER.fullmatch(config.fusion) and config.fusion not in ("avg_all", "avg_last4", "learned"):
            hint = "layer:K, avg_all, avg_last4 or learned"
            problems.append(Problem("method.fusion", f"no such fusion: {config.fusion}", f"there are: {hint}"))
        if not 0 <= config.inject_dropout < 1:
            problems.append(Problem("method.inject_dropout", f"must lie in [0, 1), is {config.inject_dropout}"))
        if config.depth < 1:
            problems.append(Problem("method.depth", f"must be at least 1, is {config.depth}"))
        if config.segment not in (None, 0, 1):
            problems.append(Problem("method.segment", f"must be null, 0 or 1, is {config.segment}"))
        if config.cache_gigabytes < 0:
            problems.append(Problem("method.cache_gigabytes", "must not be negative"))
        return problems

    @classmethod
    def places(cls, config: Any) -> dict[str, Backbone]:
        return {} if config.resource is None else {_PLACE: named(config.resource, "method.resource")}

    @classmethod
    def check_places(cls, config: Any, data: Data, places: Mapping[str, tuple[Backbone, Located]]) -> list[Problem]:
        problems = []
        reader = places["student"]
        resource = places.get(_PLACE, reader)
        depth, width = depth_and_width(*resource)
        own = depth_and_width(*reader)[1]
        if not depth or not width or (resource[1].folder and shape_of(resource[1]).get("is_encoder_decoder")):
            what = f"{resource[0].name} is no encoder with layers of one width, as its config.json says it"
            return [Problem("method.resource", what, "take an encoder such as a BERT")]
        try:
            fused_layers(config.fusion, depth)
        except ValueError as error:
            problems.append(Problem("method.fusion", str(error), "take a lower layer, avg_all or avg_last4"))
        if config.projection is Projection.identity and width != own:
            what = f"identity needs equal widths; the reader has {own}, the resource {width}"
            problems.append(Problem("method.projection", what, "take auto or mlp"))
        shape: dict[str, Any] = {"model_type": "bert"} if reader[1].folder is None else shape_of(reader[1])
        if shape.get("model_type") not in FAMILIES:
            what = f"{reader[0].name} is a {shape.get('model_type')}; a reader is one of {', '.join(FAMILIES)}"
            problems.append(Problem("backbone", what, "it needs an embedding block of absolute positions"))
        if shape.get("embedding_size", own) != own:
            what = f"{reader[0].name} has embeddings of width {shape['embedding_size']} and layers of {own}"
            problems.append(Problem("backbone", what, "a reader's must be equal"))
        if config.segment is not None and config.segment >= int(shape.get("type_vocab_size", 2)):
            problems.append(Problem("method.segment", f"{reader[0].name} has no segment {config.segment}"))
        room = positions_of(*reader) or 0
        if config.inject_at is InjectAt.inputs_embeds and 2 * data.max_length > room:
            what = f"text and vectors may be 2 x {data.max_length} tokens; {reader[0].name} has {room} positions"
            hint = f"take data.max_length={room // 2} or less, or method.inject_at=embedding_output"
            problems.append(Problem("method.inject_at", what, hint))
        return problems

    @cached_property
    def resource(self) -> Resource:
        """The frozen model on this data set."""
        config = self.config
        bench = self.bench.at(_PLACE)
        return Resource(bench, config.fusion, config.stored.value, config.drop_special, config.resource_seed)

    @cached_property
    def cached(self) -> bool:
        """Whether the vectors are kept on disk."""
        if self.config.cache is not Cache.auto:
            return self.config.cache is Cache.on
        store, runtime = self.bench.store, self.bench.runtime
        assert store is not None and runtime is not None
        fits = self.resource.bytes() <= self.config.cache_gigabytes * 1e9
        there = store.folder(self.resource.features_stage()).exists()
        # the disk is looked at by one process, so that all do the same
        return bool(runtime.broadcast(fits and (there or self.resource.bytes() < shutil.disk_usage(store.root).free)))

    def stages(self) -> dict[str, Stage]:
        # the vectors are the same from the disk and anew: whether they are kept is not part of what a run is
        return {"resource_encoded": self.resource.bench.encoded_stage}

    def prepare(self, stages: Mapping[str, Path]) -> None:
        if self.config.resource is not None:  # the reader's own is looked at in any run
            self.resource.bench.check_vocabulary()
        assert self.bench.report is not None and self.bench.store is not None
        if self.cached:
            self.bench.store.get(self.resource.features_stage())
        else:
            _ = self.resource.model  # loaded here: it draws random numbers, and within a step those are the dropout's
            size = self.resource.bytes() / 1e6
            self.bench.report.note(f"the resource's vectors, {size:,.0f} MB, are not kept: each batch computes its own")

    def beside(self, split: str) -> Source:
        return self.resource.cached(split) if self.cached else self.resource.live(split)

    def student(self, model: nn.Module) -> nn.Module:
        import torch

        from kbench.methods.reading import Reader

        torch.manual_seed(derive(self.bench.seed, "injection"))
        self._reader = Reader(model, self.resource.width, **self._options(model))
        return self._reader

    def save(self, model: nn.Module, folder: Path) -> None:
        """The reader as transformers loads it; beside it the resource, and what joins them (exported.py)."""
        from kbench.methods.exported import save_resource

        super().save(model, folder)
        kinds = [bench.backbone.tokenizer for bench in (self.bench, self.resource.bench)]
        save_resource(self._reader, self._options(model), self.resource, kinds, folder)

    def diagnostics(self) -> dict[str, float]:
        return {"resource_unknown_tokens": self.resource.bench.encoded("test").unknown}

    def _options(self, model: Any) -> dict[str, Any]:
        """Those of the Reader around a task's model."""
        config = self.config
        same = config.projection is Projection.auto and self.resource.width == model.config.hidden_size
        return {
            "states": self.resource.states,
            "free": config.fusion_weights is FusionWeights.free,
            "depth": 0 if same or config.projection is Projection.identity else config.depth,
            "with_embeddings": config.inject_at is InjectAt.inputs_embeds,
            "segment": config.segment,
            "norm": config.inject_norm is Norm.layernorm,
            "dropout": config.inject_dropout,
        }
