"""What every test may use: a place for outputs, runs in this process, and the real data where it is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# one thread and no spinning: tests share small machines
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.pop("KBENCH_DATA", None)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
SHARED_PAPERS = REPOSITORY.parent / "shared" / "papers"

# as small as a run can be: every test that is not about numbers uses it
QUICK = ["data=toy", "data.train_size=96", "data.test_size=48", "train.epochs=2", "teacher.epochs=1", "log_every=1"]

# a graph of which little is used, and a pre-training of a few steps
SMALL_GRAPH = ["knowledge.sentences.triples=60", "knowledge.cycles.length3=120", "knowledge.cycles.length4=120"]
SMALL_GRAPH += ["knowledge.xlr.train=96", "knowledge.xlr.dev=24", "knowledge.xlr.test=48"]
SMALL_GRAPH += ["knowledge.xlr.per_answer=0.5", "knowledge.xlr.per_entity=0.3", "knowledge.xlr.per_signature=0.3"]
SMALL_MULTI = ["backbone=tiny_multi", "backbone.tiny.width=32", "backbone.tiny.vocabulary=600"]
PRETRAIN = ["train@pretrain=quick_pretrain", "pretrain.epochs=1", "pretrain.max_steps=4"]
PRETRAIN += ["pretrain.global_batch_size=8", "method.long_steps=1", "method.long_length=24", "method.long_batch_size=4"]

# the same of text with linked mentions: vectors that know little, a backbone whose words are the corpus's
LINKED = ["knowledge.corpus.documents=40", "knowledge.vectors.epochs=1", "knowledge.vectors.negatives=8"]
LINKED += ["knowledge.vectors.dimension=8", "backbone.tiny.texts=corpus", "train@pretrain=quick_pretrain"]
LINKED += ["pretrain.max_steps=4", "pretrain.global_batch_size=8", "method.routing.every=2", "method.routing.points=2"]


def plain_text(folder: Path, lines: int = 120) -> list[str]:
    """The overrides of a graph with plain text: some lines of it, written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    known = ("the river crosses an old bridge and a garden", "near harbour meadow orchard every spring morning")
    words = " ".join(known).split()
    text = [" ".join(words[(line * step) % len(words)] for step in range(2, 8 + line % 9)) for line in range(lines)]
    (folder / "en.txt").write_text("\n".join(f"{line} ." for line in text) + "\n", encoding="utf-8")
    return [f"knowledge.text.path={folder}", "knowledge.text.languages=[en]"]


def in_process(overrides: list[str], outputs: Path, **runtime: Any) -> Any:
    """Make a run in this process; gives (run, result)."""
    from kbench.config.compose import compose
    from kbench.engine.runtime import Runtime
    from kbench.runs.execute import execute
    from kbench.runs.prepare import freeze, prepare
    from kbench.runs.reporter import Reporter

    run = prepare(compose([*overrides, f"outputs={outputs}"]))
    freeze(run, overrides)
    hardware = run.config.hardware
    made = Runtime(
        device="cpu",
        micro_batch_size=runtime.get("micro_batch_size", hardware.micro_batch_size),
        eval_batch_size=hardware.eval_batch_size,
        checkpoint_seconds=runtime.get("checkpoint_seconds", 1e9),
    )
    if "stop" in runtime:
        made.stop = runtime["stop"]
    return run, execute(run, made, Reporter(run.folder, out=io.StringIO()))


def bench_of(run: Any, **runtime: Any) -> Any:
    """What the method of a run works with, to look into its stages and data."""
    from kbench.engine.runtime import Runtime
    from kbench.runs.prepare import STAGES
    from kbench.runs.reporter import Reporter
    from kbench.stages.store import Store

    store = Store(Path(run.config.outputs) / STAGES)
    return run.bench(runtime=Runtime(**runtime), store=store, report=Reporter(run.folder, main=False))


def points(run: Any, scope: str = "student") -> list[dict[str, Any]]:
    """The logged losses of a training of a run, one a step where log_every is 1."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["scope"] == scope and "loss" in line]


def small_bert(folder: Path, pieces: list[str], seed: int = 0, **shape: int) -> Path:
    """A folder with a BERT of random weights and a WordPiece tokenizer of some pieces, filled up to 120."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    names += [f"[unused{number}]" for number in range(120 - len(names))]
    inner = Tokenizer(models.WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(names), **(sizes | shape))).save_pretrained(folder)
    return folder


def command(words: list[str], cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `kbench` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "kbench", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def shared_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs that tests share, so that one trains the teachers for all."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def toy(shared_outputs: Path) -> Callable[..., Any]:
    """Make a quick run in this process: `toy("method=muki")` gives (run, result); `data=` names another data set."""

    def make(*overrides: str, data: str = "toy", **more: Any) -> Any:
        words = [f"data={data}", *QUICK[1:]]
        if data == "toy_xlr":
            words += [*SMALL_MULTI, *SMALL_GRAPH]
        if {"method=kmlm", "method=mlm"} & set(overrides):
            words += [*SMALL_GRAPH, *PRETRAIN]
        if {"method=trelm", "method=dkplm"} & set(overrides):
            words += LINKED
        if "method=mlm" in overrides:
            words += plain_text(shared_outputs / "text")
        return in_process([*words, *overrides], more.pop("outputs", shared_outputs), **more)

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data in {SHARED_DATA}")
    return SHARED_DATA
