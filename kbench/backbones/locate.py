"""Where a backbone's files are, and what identifies them. No torch here, and no network."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from kbench import registry
from kbench.config import schema
from kbench.config.identity import digest, science
from kbench.errors import BackboneError, Problem
from kbench.files import hash_file

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")

# BERT's family: an embedding block of absolute positions, then an encoder whose layers end in their norm
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie")
# the names that families give their layers and hidden size
_DEPTHS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_WIDTHS = ("hidden_size", "dim", "n_embd", "d_model")


@dataclass(frozen=True)
class Located:
    """A backbone found on this machine.

    Attributes:
        identity: what decides its weights and vocabulary; part of every run's and stage's key.
        folder: its files; None where it is built from the data.
        where: address, for people.
    """

    identity: str
    folder: str | None
    where: str


def locate(backbone: schema.Backbone, place: str = "") -> Located:
    """Find a backbone: `backbone.path`, then built small, then an installed package, then the hub's cache.

    Args:
        backbone: as configured.
        place: what it is for where it is not the run's own, such as teacher_1; for messages.

    Raises:
        BackboneError: it is not on this machine, or its folder lacks a file.
    """
    if backbone.path is not None:
        folder = Path(backbone.path).expanduser()
        setting = f"{place}, {backbone.path}" if place else f"backbone.path={backbone.path}"
        if not folder.is_dir():
            raise BackboneError(Problem(setting, f"there is no folder {folder}"))
        return Located("files:" + _content(folder, setting), str(folder.resolve()), str(folder))
    if backbone.tiny is not None:
        return Located("tiny:" + digest(science(backbone.tiny))[:16], None, "built by kbench")
    if backbone.package is not None:
        return _packaged(backbone)
    if backbone.hub is not None:
        return _cached(backbone, f"{place}, {backbone.name}" if place else f"backbone={backbone.name}")
    setting, way = (place, f"its folder in place of {backbone.name}") if place else ("backbone", "backbone.path=FOLDER")
    raise BackboneError(Problem(f"{setting}={backbone.name}", "is not on the hub", f"give {way}"))


def named(word: str, setting: str) -> schema.Backbone:
    """The backbone that a word means: a name of conf/backbone, a folder, or a hub id, `id` or `id@revision`.

    Raises:
        BackboneError: it is none of them.
    """
    if word in registry.choices("backbone"):
        values = yaml.safe_load((registry.conf_root() / "backbone" / f"{word}.yaml").read_text(encoding="utf-8"))
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Backbone), values))
        assert isinstance(found, schema.Backbone)
        return found
    path, hub = None, None
    if Path(word).expanduser().is_dir():
        path = word
    elif re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", word):
        repository, _, revision = word.partition("@")
        hub = schema.Hub(id=repository, revision=revision or "main")
    else:
        near = registry.near(word, registry.choices("backbone"))
        raise BackboneError(
            Problem(
                setting, f"{word} is no folder, no hub id and no name in conf/backbone{near}", "kbench ls backbones"
            )
        )
    return schema.Backbone(
        name=word, hub=hub, package=None, install=None, sha256=None, path=path, tokenizer="auto", tiny=None,
        dropout=None, languages=["any"], licence="",
    )  # fmt: skip


def shape_of(located: Located) -> dict[str, Any]:
    """The config.json of a backbone that has a folder.

    Raises:
        BackboneError: it is no configuration of a model.
    """
    path = Path(located.folder or "") / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(Problem(str(path), f"is no configuration of a model: {error}")) from error


def depth_and_width(backbone: schema.Backbone, located: Located) -> tuple[int, int]:
    """Layers and hidden size of a backbone, before it is loaded; 0 where its config.json does not say."""
    if located.folder is None:
        assert backbone.tiny is not None
        return backbone.tiny.layers, backbone.tiny.width
    shape = shape_of(located)
    return tuple(next((int(shape[name]) for name in names if name in shape), 0) for names in (_DEPTHS, _WIDTHS))  # type: ignore[return-value]


def positions_of(backbone: schema.Backbone, located: Located) -> int | None:
    """The longest input of a backbone in tokens; None where its config.json does not say."""
    if located.folder is None:
        assert backbone.tiny is not None
        return backbone.tiny.positions
    shape = shape_of(located)
    positions = shape.get("max_position_embeddings", shape.get("n_positions"))
    if not isinstance(positions, int):
        return None
    # RoBERTa's family counts positions from the padding id on, so two of the table are lost
    kind = str(shape.get("model_type", ""))
    return positions - 2 if "roberta" in kind or kind in ("camembert", "mpnet") else positions


def weights_of(located: Located) -> list[str]:
    """The names of a backbone's weights, from the heads of its files; none where there is no such file."""
    found: list[str] = []
    for path in sorted(Path(located.folder or "").glob("*.safetensors")) if located.folder else []:
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                found += json.loads(file.read(size))
        except (OSError, ValueError, OverflowError, MemoryError):
            return []  # loading says what is wrong with it
    return [name for name in found if name != "__metadata__"]


def outputs_of(located: Located, where: str) -> list[str]:
    """The names a finished model gives its outputs, in order. `where` is the setting that gave it, for messages.

    Raises:
        BackboneError: its config.json has none.
    """
    if located.folder is None:
        raise BackboneError(Problem(where, "is built here and has learned nothing"))
    path = Path(located.folder) / "config.json"
    shape = shape_of(located)
    if "id2label" not in shape and any("ForSequenceClass" in name for name in shape.get("architectures") or []):
        return ["LABEL_0", "LABEL_1"]  # transformers does not write what it takes for granted
    try:
        names = shape["id2label"]
        return [str(names[str(index)]) for index in range(len(names))]
    except (KeyError, TypeError) as error:
        hint = "a finished teacher is a model that was fine-tuned and saved by transformers"
        raise BackboneError(Problem(str(path), "names no labels (id2label)", hint)) from error


def weights(folder: Path) -> list[Path]:
    """The safetensors files of a folder; empty where there are none."""
    return sorted(folder.glob("model*.safetensors"))


def _content(folder: Path, setting: str) -> str:
    problems = []
    if not (folder / "config.json").is_file():
        problems.append(Problem(setting, "holds no config.json"))
    if not weights(folder):
        old = (folder / "pytorch_model.bin").exists()
        hint = "pytorch_model.bin is a pickle and is not read; save the model with safetensors" if old else ""
        problems.append(Problem(setting, "holds no model.safetensors", hint))
    vocabulary = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not vocabulary:
        problems.append(Problem(setting, f"holds no tokenizer ({', '.join(_TOKENIZER_FILES)})"))
    if problems:
        raise BackboneError(*problems)
    named = sorted({*weights(folder), *(p for kind in ("json", "txt", "model") for p in folder.glob(f"*.{kind}"))})
    return digest({path.name: hash_file(path) for path in named})[:16]


def _packaged(backbone: schema.Backbone) -> Located:
    assert backbone.package is not None
    module, _, inner = backbone.package.partition("/")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        way = f"install it: {backbone.install}" if backbone.install else ""
        raise BackboneError(Problem(f"backbone={backbone.name}", f"the package {module} is not installed", way))
    folder = Path(found.origin).parent / inner
    if not weights(folder):
        raise BackboneError(Problem(f"backbone={backbone.name}", f"{folder} holds no model.safetensors"))
    if backbone.sha256 is not None and hash_file(weights(folder)[0]) != backbone.sha256:
        raise BackboneError(
            Problem(f"backbone={backbone.name}", f"{weights(folder)[0]} has not the pinned sha256", "install it anew")
        )
    return Located("files:" + _content(folder, backbone.package), str(folder), backbone.package)


def _cached(backbone: schema.Backbone, setting: str) -> Located:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert backbone.hub is not None
    address = f"{backbone.hub.id}@{backbone.hub.revision}"
    try:
        folder = Path(snapshot_download(backbone.hub.id, revision=backbone.hub.revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise BackboneError(
            Problem(
                setting,
                ("is no folder, and " if backbone.licence == "" else "")
                + f"{backbone.hub.id} is not in the hub's cache on this machine",
                f"with internet: kbench fetch backbone={backbone.name}\n"
                "from files: backbone.path=FOLDER with config.json, model.safetensors and the tokenizer\n"
                "without either: backbone=minilm (pip carries it) or backbone=tiny (built here)",
            )
        ) from error
    if not weights(folder):
        raise BackboneError(
            Problem(
                setting,
                f"the cache holds no model.safetensors of {address}",
                f"fetch it: kbench fetch backbone={backbone.name}\n"
                "where the repository has only pytorch_model.bin (a pickle): convert it and give backbone.path=FOLDER",
            )
        )
    # a branch may move; the folder of a snapshot is named by its commit
    address = f"{backbone.hub.id}@{folder.name}"
    return Located(f"hub:{address}", str(folder), address)
