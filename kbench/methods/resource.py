"""The frozen resource of KR2: its hidden states are constants, fused and computed once, or anew for every batch.

    <split>.npy    the fused states of all tokens of all sequences, one after another, [tokens, width] or, where a
                   trainable fusion needs them all, [tokens, states, width]; fp16, fp32, or bf16 as its 16 bits

The model stands outside of everything that is trained or saved with the reader, always in eval mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbench.backbones.locate import depth_and_width
from kbench.engine.seeding import derive
from kbench.stages.stage import Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from kbench.data.encode import Encoded
    from kbench.methods.bench import Bench

LAYER = re.compile(r"layer:(\d+)")
# what features are stored as; numpy has no bf16
_STORED: dict[str, np.dtype] = {"fp16": np.dtype(np.float16), "bf16": np.dtype(np.int16), "fp32": np.dtype(np.float32)}
_LAST = 4


def fused_layers(fusion: str, depth: int) -> list[int]:
    """The hidden states that a fusion reads, of 0 (the embeddings) to depth (the last layer).

    Raises:
        ValueError: there is no such fusion or layer.
    """
    if found := LAYER.fullmatch(fusion):
        if int(found[1]) > depth:
            raise ValueError(f"there is no layer {found[1]}: the resource has {depth}")
        return [int(found[1])]
    every = list(range(depth + 1))
    if fusion == "avg_last4":
        return every[-_LAST:]  # all of a smaller model
    if fusion in ("avg_all", "learned"):
        return every
    raise ValueError("must be layer:K, avg_all, avg_last4 or learned")


class Resource:
    """A frozen model on a data set.

    Args:
        bench: the run's surroundings, with the resource for its backbone.
        fusion: as `fused_layers` reads it.
        stored: number format of the features, fp16, bf16 or fp32: the same whether they are cached or not.
        drop_special: leave out the features of special tokens.
        seed: of the weights of a resource that is built here.
    """

    def __init__(self, bench: Bench, fusion: str, stored: str, drop_special: bool, seed: int):
        self.bench = bench
        self.fusion = fusion
        self.stored = stored
        self.drop_special = drop_special
        self.seed = seed
        depth, self.width = depth_and_width(bench.backbone, bench.located)
        self.layers = fused_layers(fusion, depth)
        self.states = len(self.layers) if fusion == "learned" else 0

    @cached_property
    def model(self) -> nn.Module:
        """The encoder on the device: frozen, in eval mode, without the layers above the last one that is read."""
        from kbench.backbones.load import load_encoder

        assert self.bench.runtime is not None
        folder, seed = self.bench.backbone_folder, derive(self.seed, "resource")
        return load_encoder(folder, seed=seed, layers=self.layers[-1]).to(self.bench.runtime.device)

    def features_stage(self) -> Stage:
        """The features of all splits."""
        bench = self.bench
        chosen = {
            "backbone": bench.located.identity,
            "layers": self.layers,
            "fused": not self.states,
            "stored": self.stored,
            "precision": bench.train.precision.value,
            "seed": self.seed if bench.located.folder is None else None,
        }

        def build(work: Path, parents: Mapping[str, Path]) -> None:
            from kbench.engine.predict import PASS_TOKENS
            from kbench.engine.spill import Spill

            assert bench.runtime is not None and bench.report is not None
            spills, batches = {}, {}
            for split in bench.records.splits:  # all are reserved before the first is computed
                shape = (int(bench.encoded(split).ends[-1]), *self.shape)
                batches[split] = bench.feed(split).by_tokens(PASS_TOKENS[bench.runtime.device.type])
                path, count = work / f"{split}.npy", len(batches[split])
                spills[split] = Spill(path, shape, _STORED[self.stored], count, bench.runtime)
            for split, spill in spills.items():
                encoded = bench.encoded(split)
                live = Live(self, encoded)
                for index in spill.left():
                    rows = batches[split][index]
                    values = _plain(live.batch(rows, bench.runtime.device)["resource"])
                    values = values.reshape(-1, *values.shape[-1 - len(self.shape) :])
                    for line, sequence in enumerate(encoded.sequences_of(rows)):
                        end, length = encoded.ends[sequence], encoded.sequence_lengths[sequence]
                        spill.put(int(end - length), values[line, :length])
                    bench.report.progress(f"features of {split}", index + 1, len(batches[split]), {})
                spill.close()
            for spill in spills.values():
                spill.forget()
            self.__dict__.pop("model", None)  # from here on its vectors are read

        return Stage("resource_features", 1, chosen, build, {"encoded": bench.encoded_stage})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one token's features."""
        return (self.states, self.width) if self.states else (self.width,)

    def bytes(self) -> int:
        """What the features of all splits take on disk."""
        tokens = sum(int(self.bench.encoded(split).ends[-1]) for split in self.bench.records.splits)
        return tokens * int(np.prod(self.shape)) * _STORED[self.stored].itemsize

    def cached(self, split: str) -> Cached:
        """Features from the disk, computed first where they are not there."""
        assert self.bench.store is not None
        return Cached(self, self.bench.encoded(split), self.bench.store.get(self.features_stage()) / f"{split}.npy")

    def live(self, split: str) -> Live:
        """Features computed for every batch."""
        return Live(self, self.bench.encoded(split))


class Source:
    """Features of the rows of one split, for a reader's batches."""

    def __init__(self, resource: Resource, encoded: Encoded):
        self.resource = resource
        self.encoded = encoded
        self.tokenizer = resource.bench.tokenizer

    def batch(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """`resource` [rows, R, ..] or [rows, K, R, ..], and `resource_mask` [rows, R] or [rows, K, R]."""
        import torch

        from kbench.engine.feed import moved
        from kbench.methods.reading import read_mask

        padded = self.encoded.padded(rows, self.tokenizer.pad_token_id)
        tokens = {name: moved(torch.from_numpy(array), device) for name, array in padded.items()}
        mask = read_mask(tokens, self.tokenizer, self.resource.drop_special)
        return {"resource": self.features(rows, tokens), "resource_mask": mask}

    def features(self, rows: np.ndarray, tokens: Mapping[str, Tensor]) -> Tensor:
        """Those of some rows, of which these are the tokens; what stands behind a sequence's end is not read."""
        raise NotImplementedError  # abstract


class Live(Source):
    """Features computed anew."""

    def features(self, rows: np.ndarray, tokens: Mapping[str, Tensor]) -> Tensor:
        from kbench.methods.reading import features_of

        resource, runtime = self.resource, self.resource.bench.runtime
        assert runtime is not None
        with runtime.autocast(resource.bench.train.precision):
            return features_of(resource.model, tokens, resource.layers, not resource.states, resource.stored)


class Cached(Source):
    """Features read from the disk, from a file and not from a map: a map's pages count as this process's memory."""

    def __init__(self, resource: Resource, encoded: Encoded, path: Path):
        super().__init__(resource, encoded)
        from kbench.engine.spill import row_places

        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        self._begin, self._row = row_places(stored)
        self._shape, self._type = stored.shape[1:], stored.dtype
        self._file = path.open("rb", buffering=0)

    def features(self, rows: np.ndarray, tokens: Mapping[str, Tensor]) -> Tensor:
        import torch

        from kbench.engine.feed import moved

        sequences = self.encoded.sequences_of(rows)
        lengths = self.encoded.sequence_lengths[sequences]
        values = np.zeros((len(sequences), int(lengths.max()), *self._shape), self._type)
        for line, (end, length) in enumerate(zip(self.encoded.ends[sequences], lengths, strict=True)):
            self._file.seek(self._begin + int(end - length) * self._row)
            place = values[line, :length].view(np.uint8).data
            if self._file.readinto(place) != place.nbytes:
                raise OSError(f"{self._file.name} is shorter than the texts it belongs to")
        found = torch.from_numpy(values).unflatten(0, tokens["input_ids"].shape[:-1])
        found = found.view(torch.bfloat16) if self.resource.stored == "bf16" else found
        return moved(found, tokens["input_ids"].device)


def _plain(features: Tensor) -> np.ndarray:
    """[sequences, R, ...] as numpy holds them: bf16 as its 16 bits."""
    import torch

    plain = features.view(torch.int16) if features.dtype is torch.bfloat16 else features
    array: np.ndarray = plain.cpu().numpy()
    return array
