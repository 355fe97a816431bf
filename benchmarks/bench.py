"""Speed and memory of kbench as ratios within one run: `make bench`. Absolute times of a shared machine say little.

The model has MiniLM's shape (6 layers of width 384) with random weights. The texts are AG News where KBENCH_DATA has
it, else the toy data; the head says which.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 320
REPEATS = 5

HYDRA_APP = """
import hydra
from omegaconf import DictConfig
@hydra.main(version_base="1.3", config_path=None)
def main(config: DictConfig) -> None: ...
main()
"""

MEMORY = """
import sys, numpy as np, torch
from pathlib import Path
from kbench.data.encode import Encoded
from kbench.engine.feed import Feed
folder = Path(sys.argv[1])
encoded = Encoded(folder, "train")
column = np.load(folder / "logits.npy", mmap_mode="r")
feed = Feed(encoded, np.arange(len(encoded)), 0, {"teacher": column})
def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) / 1024
before = anonymous()
for start in range(0, len(feed), 256):
    feed.batch(np.arange(start, min(start + 256, len(feed))), torch.device("cpu"))
print(anonymous() - before)
"""


RESIDENT = """
import sys, numpy as np, torch
from pathlib import Path
from types import SimpleNamespace
from kbench.data.encode import Encoded
from kbench.methods.resource import Cached
folder = Path(sys.argv[1])
encoded = Encoded(folder, "train")
bench = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))
source = Cached(SimpleNamespace(bench=bench, drop_special=False, stored="fp16"), encoded, folder / "train.npy")
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) / 1024
order = np.random.default_rng(0).permutation(len(encoded))
source.batch(order[:32], torch.device("cpu"))
before = highest = resident()
for start in range(0, len(order), 32):
    source.batch(order[start : start + 32], torch.device("cpu"))
    highest = max(highest, resident())
print(highest - before)
"""


def main() -> None:
    rows: list[tuple[str, float, float, str]] = []
    rows += startup()
    with tempfile.TemporaryDirectory() as folder:
        rows += training(Path(folder))
        rows += sampling(Path(folder))
        rows += resource(Path(folder))
        rows += memory(Path(folder))
    print(f"\n{'measure':<66} {'ratio':>8} {'target':>8}")
    for name, value, target, sense in rows:
        good = value <= target if sense == "<=" else value >= target
        print(f"{name:<66} {value:>8.3f} {sense + ' ' + format(target, 'g'):>8}  {'ok' if good else 'MISSED'}")


def startup() -> list[tuple[str, float, float, str]]:
    """Verbs that need no model, against a bare Hydra application's --help."""

    def best(command: list[str]) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        return min(times)

    with tempfile.NamedTemporaryFile("w", suffix=".py") as app:
        app.write(HYDRA_APP)
        app.flush()
        bare = best([sys.executable, app.name, "--help"])
    print(f"a bare Hydra application's --help: {bare:.3f} s")
    commands = {"kbench --help": ["--help"], "kbench ls data": ["ls", "data"]}
    return [
        (f"{name} / bare Hydra --help", best([sys.executable, "-m", "kbench", *words]) / bare, 2.0, "<=")
        for name, words in commands.items()
    ]


def data_and_shape() -> list[str]:
    """AG News where it is, else the toy data; a model of MiniLM's shape."""
    shape = ["backbone=tiny", "backbone.tiny.layers=6", "backbone.tiny.width=384", "backbone.tiny.heads=12"]
    if (Path(os.environ.get("KBENCH_DATA", "/nowhere")) / "ag_news").is_dir():
        return ["data=agnews", "data.train_size=1100", "data.test_size=100", *shape]
    return ["data=toy", *shape]


def training(folder: Path) -> list[tuple[str, float, float, str]]:
    """The loop against a bare one; a cached student against fine-tuning; both against the released scheme."""
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    from kbench.config.compose import compose
    from kbench.engine.feed import Feed, inputs
    from kbench.engine.loop import fit
    from kbench.engine.runtime import Runtime
    from kbench.engine.sampler import epoch_batches
    from kbench.methods.base import Method
    from kbench.methods.finetune import Finetune
    from kbench.methods.muki import Muki
    from kbench.runs.prepare import prepare
    from kbench.stages.store import Store

    words = [*data_and_shape(), "train.epochs=1", "train.precision=fp32"]
    config = compose(["method=muki", *words, f"outputs={folder}"])
    run = prepare(config)
    runtime = Runtime(micro_batch_size=32, checkpoint_seconds=1e9)
    bench = run.bench(runtime=runtime, store=Store(folder / "stages", runtime), report=Silent())
    chosen = np.arange(ROWS)
    classes = len(bench.task.outputs)
    generator = np.random.default_rng(0)
    method = Muki(config.method, bench)
    sizes = [len(columns) for columns in method.teachers.columns]
    count = bench.records.rows("train")
    columns = {f"teacher_{i}": generator.normal(size=(count, size)).astype(np.float32) for i, size in enumerate(sizes)}
    columns["certainty"] = generator.random((count, len(sizes))).astype(np.float32)
    columns["label"] = bench.records.labels("train")
    feed = bench.feed("train", chosen, columns)
    print(f"texts: {config.data.name}, {feed.lengths.mean():.0f} tokens on average, longest {feed.lengths.max()}")

    def ours(method: Method) -> Callable[[], float]:
        def train() -> float:
            model = bench.model(classes, 1)
            began = time.perf_counter()
            fit(model, feed, method.loss, config.train, runtime, seed=1, folder=folder / "none", report=Silent())
            return time.perf_counter() - began

        return train

    def bare(loss: Callable[[Any, Any], Any], feed: Feed = feed) -> Callable[[], float]:
        def train() -> float:
            model = bench.model(classes, 1).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            batches = epoch_batches(feed.lengths, seed=1, epoch=0, batch=32, pool=config.train.length_pool)
            began = time.perf_counter()
            for positions in batches:
                loss(model, feed.batch(positions, torch.device("cpu"))).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return time.perf_counter() - began

        return train

    def supervised(model: Any, batch: Any) -> Any:
        logits = model(**inputs(batch)).logits
        return cross_entropy(logits, batch["label"])

    teachers = [bench.model(size, 2 + i).eval() for i, size in enumerate(sizes)]

    def released(model: Any, batch: Any) -> Any:
        """Both teachers run in every step; the certainty is read from a file, as in the release."""
        with torch.no_grad():
            for i, teacher in enumerate(teachers):
                batch[f"teacher_{i}"] = teacher(**inputs(batch)).logits
        return sum(method.loss(model, batch).values())

    padded = Feed(bench.encoded("train"), chosen, bench.tokenizer.pad_token_id, columns, width=config.data.max_length)
    if config.data.name == "toy":
        padded = Feed(bench.encoded("train"), chosen, bench.tokenizer.pad_token_id, columns, width=128)
    arms = {
        "finetune": ours(Finetune(None, bench)),
        "bare": bare(supervised),
        "student": ours(method),
        "released": bare(released, padded),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(REPEATS):
        names = list(arms)
        for name in names[repeat % 4 :] + names[: repeat % 4]:  # no arm always follows the same one
            if name != "released" or repeat < 2:  # two are enough for a ratio that is far from 1
                times[name].append(arms[name]())
        shown = ", ".join(f"{name} {found[-1]:.1f} s" for name, found in times.items())
        print(f"round {repeat + 1}: {shown}", flush=True)

    def ratio(above: str, below: str) -> float:
        return min(times[above]) / min(times[below])  # what else runs on the machine only ever adds

    return [
        ("kbench's loop / a bare PyTorch loop, same model and batches", ratio("finetune", "bare"), 1.03, "<="),
        ("student with cached teacher outputs / plain fine-tuning", ratio("student", "finetune"), 1.05, "<="),
        ("released scheme / student with cached teacher outputs", ratio("released", "student"), 2.5, ">="),
    ]


def sampling(folder: Path) -> list[tuple[str, float, float, str]]:
    """Sixteen sampled passes against sixteen plain ones; the teacher chosen in bf16 against the one in fp32."""
    import numpy as np
    import torch

    from kbench.config.compose import compose
    from kbench.engine.predict import predict, sample
    from kbench.engine.recipe import Precision
    from kbench.engine.runtime import Runtime
    from kbench.methods.bench import Bench
    from kbench.methods.integration import mean_distribution, uncertainty
    from kbench.methods.muki import Muki
    from kbench.runs.prepare import prepare
    from kbench.stages.store import Store

    runtime = Runtime(micro_batch_size=32, checkpoint_seconds=1e9)

    def surroundings(words: list[str]) -> Bench:
        run = prepare(compose([*words, f"outputs={folder}"]))
        return run.bench(runtime=runtime, store=Store(folder / "stages", runtime), report=Silent())

    def drawn(model: Any, bench: Bench, rows: Any, precision: Precision) -> Any:
        path = folder / "samples.npy"
        path.unlink(missing_ok=True)
        sample(
            model, bench.feed("train", rows), runtime, precision,
            samples=16, seed=1, path=path, tell=lambda done, total: None,
        )  # fmt: skip
        return torch.from_numpy(np.load(path).astype(np.float64))

    bench = surroundings(data_and_shape())
    chosen = np.arange(48)
    model = bench.model(2, 1).eval()
    plain, sampled = [], []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(16):
            predict(model, bench.feed("train", chosen), runtime, Precision.bf16)
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        drawn(model, bench, chosen, Precision.bf16)
        sampled.append(time.perf_counter() - began)
        print(f"48 texts: 16 plain passes {plain[-1]:.1f} s, 16 sampled ones {sampled[-1]:.1f} s", flush=True)

    toy = compose(["method=muki", "data=toy"])
    bench = surroundings(["method=muki", "data=toy"])
    method = Muki(toy.method, bench)
    every = np.arange(bench.records.rows("train"))
    choices = []
    for precision in (Precision.fp32, Precision.bf16):
        found = [drawn(method.teachers.load(i), bench, every, precision) for i in range(len(method.teachers))]
        choices.append(torch.stack([uncertainty(mean_distribution(logits)) for logits in found]).argmin(0))
    agree = float((choices[0] == choices[1]).double().mean())
    return [
        ("16 sampled passes / 16 plain passes", min(sampled) / min(plain), 1.0, "<="),
        ("rows with the same chosen teacher in bf16 and fp32 (toy teachers)", agree, 0.995, ">="),
    ]


def resource(folder: Path) -> list[tuple[str, float, float, str]]:
    """KR2 with the resource's vectors from the disk against computing them; reader and resource of one size.

    By tokens a reader's step costs 3 x 2 forward passes, the resource's one: an epoch takes 6/7 of the time.
    """
    import numpy as np

    from kbench.config.compose import compose
    from kbench.engine.loop import fit
    from kbench.engine.runtime import Runtime
    from kbench.methods.kr2 import Kr2
    from kbench.runs.prepare import prepare
    from kbench.stages.store import Store

    shape = [word for word in data_and_shape() if word.startswith("backbone")]
    words = ["data=toy_pos"]
    if (Path(os.environ.get("KBENCH_DATA", "/nowhere")) / "ud" / "UD_English-EWT").is_dir():
        words = ["data=ud_pos", "data.lang=en", f"data.train_size={ROWS}", "data.validation_size=8", "data.test_size=8"]
    words += ["method=kr2", *shape, "train=quick", "train.epochs=1", "log_every=1", f"outputs={folder}"]
    run = prepare(compose(words))
    runtime = Runtime(micro_batch_size=32, checkpoint_seconds=1e9)
    report = Losses()
    bench = run.bench(runtime=runtime, store=Store(folder / "stages", runtime), report=report)
    method = Kr2(run.config.method, bench)
    bench.encoded("train")
    _ = method.resource.model  # both ways load it
    began = time.perf_counter()
    cached = method.resource.cached("train")
    whole = sum(int(bench.encoded(split).ends[-1]) for split in bench.records.splits)
    writing = (time.perf_counter() - began) * int(bench.encoded("train").ends[-1]) / whole
    times: dict[str, list[float]] = {"cached": [], "live": []}
    losses: dict[str, Any] = {}
    for repeat in range(REPEATS):
        for name in list(times)[:: 1 if repeat % 2 else -1]:
            source = cached if name == "cached" else method.resource.live("train")
            feed = bench.lessons(np.arange(ROWS), method.columns(), beside=source)
            student = method.student(bench.model(len(bench.task.outputs), 1))
            report.found = []
            began = time.perf_counter()
            fit(
                student, feed, method.loss, bench.train, runtime,
                seed=1, folder=folder / "none", report=report, log_every=1,
            )  # fmt: skip
            times[name].append(time.perf_counter() - began)
            losses[name] = np.array(report.found)
        print(f"round {repeat + 1}: vectors cached {times['cached'][-1]:.1f} s, computed {times['live'][-1]:.1f} s")
    print(f"writing the vectors: {writing:.1f} s")
    first = (writing + min(times["cached"])) / min(times["live"])
    apart = float(np.abs(losses["cached"] / losses["live"] - 1).max())

    place = folder / "vectors"
    place.mkdir()
    lengths = np.full(20_000, 30, dtype=np.int64)
    np.cumsum(lengths).tofile(place / "train.ends")
    np.zeros(int(lengths.sum()), dtype=np.int32).tofile(place / "train.ids")
    tokens = {"train": {"all": int(lengths.sum()), "unknown": 0}}
    (place / "encoded.json").write_text(json.dumps({"sequences": 1, "tokens": tokens}))
    np.save(place / "train.npy", np.ones((int(lengths.sum()), 768), dtype=np.float16))
    command = [sys.executable, "-c", RESIDENT, str(place)]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{(place / 'train.npy').stat().st_size / 2**20:.0f} MiB of vectors read: {grown:.0f} MiB of resident memory")
    return [
        ("an epoch with cached vectors / one that computes them", min(times["cached"]) / min(times["live"]), 0.9, "<="),
        ("writing them and the first epoch / one that computes them", first, 1.1, "<="),
        ("largest relative difference of a step's loss, cached and computed", apart, 1e-2, "<="),
        ("MiB of resident memory grown by reading 879 MiB of vectors", grown, 300, "<="),
    ]


def memory(folder: Path) -> list[tuple[str, float, float, str]]:
    """Private memory of reading 8 times as many rows through a feed."""
    import numpy as np

    grown = {}
    for rows in (50_000, 400_000):
        place = folder / f"rows{rows}"
        place.mkdir()
        lengths = np.full(rows, 60, dtype=np.int64)
        np.cumsum(lengths).tofile(place / "train.ends")
        np.zeros(rows * 60, dtype=np.int32).tofile(place / "train.ids")
        tokens = {"train": {"all": rows * 60, "unknown": 0}}
        (place / "encoded.json").write_text(json.dumps({"sequences": 1, "tokens": tokens}))
        np.save(place / "logits.npy", np.zeros((rows, 4), dtype=np.float32))
        found = subprocess.run(
            [sys.executable, "-c", MEMORY, str(place)], check=True, capture_output=True, text=True
        ).stdout
        grown[rows] = float(json.loads(found))
        print(
            f"{rows} rows of 60 tokens ({rows * 76 / 2**20:.0f} MiB on disk): {grown[rows]:.1f} MiB of private memory"
        )
    extra = (grown[400_000] - grown[50_000]) / (350_000 * 76 / 2**20)
    return [("private memory grown / bytes of data added", max(0.0, extra), 0.1, "<=")]


class Silent:
    """A report that says nothing."""

    def log(self, scope: str, step: int, values: Any) -> None: ...

    def progress(self, scope: str, step: int, total: int, values: Any) -> None: ...

    def rewind(self, scope: str, step: int) -> None: ...

    def note(self, text: str) -> None: ...


class Losses(Silent):
    """A report that keeps the losses."""

    found: list[float]

    def log(self, scope: str, step: int, values: Any) -> None:
        if "loss" in values:
            self.found.append(values["loss"])


if __name__ == "__main__":
    main()
