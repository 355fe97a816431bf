"""Where a paper and its code differ, kbench has a switch: it exists, says its source, and does exactly what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from kbench import registry
from kbench.cli.ls import parts
from kbench.config.compose import compose
from kbench.config.keys import HELP
from kbench.methods.dfa import Dfa, Train
from kbench.methods.ensemble import Merge
from kbench.methods.muki import Direction, McMode, Reduction, Target
from kbench.runs.prepare import config_hash
from kbench.runs.stored import stored_method

from ..conftest import bench_of, points

SCORES = "keep_scores=[test]"

# switch -> another value, and a method and data that read it
MUKI = {
    "method.target": "hard",
    "method.tau": "0.5",
    "method.direction": "student_target",
    "method.reduction": "sum",
    "method.weight_floor": "0",
    "method.reweight": "false",
    "method.temperature": "5",
    "method.renormalise": "false",
    "method.mc.mode": "deterministic",
    "method.mc.samples": "4",
    "method.mc.dropout": "null",
    "method.teacher_seed": "2",
    "method.split": "[[rivers,gardens,harbours],[bridges,orchards,meadows]]",
}
ALIGN = {
    "method.align_train": "biases",
    "method.align_lr": "null",
    "method.mask_padding": "false",
    "method.layers": "2",
    "method.align_weight": "0.5",
    "method.reconstruction_weight": "0",
    "method.o_merge": "max",
    "method.temperature": "5",
}
COMMON = {
    "data.validation_share": "0.1",
    "data.max_length": "32",
    "train.selection": "last",
    "train.eval_every": "200",
    "train.patience": "50",
    "train.global_batch_size": "16",
    "train.warmup": "0",
    "train.precision": "bf16",
    "teacher.global_batch_size": "64",
}
# method.resource and method.teacher, which are models, say nothing: the tables name them
KR2 = {
    "method.resource_seed": "2",
    "method.fusion": "layer:1",
    "method.fusion_weights": "free",
    "method.inject_at": "inputs_embeds",
    "method.segment": "1",
    "method.inject_norm": "layernorm",
    "method.inject_dropout": "0.3",
    "method.projection": "mlp",
    "method.depth": "1",
    "method.drop_special": "true",
    "method.stored": "bf16",
}
KD = {
    "method.teacher_seed": "2",
    "method.weight": "0.2",
    "method.temperature": "3",
    "method.soft_loss": "ce",
    "method.word_pooling": "mean",
}
SWITCHES = [("muki", *one) for one in (MUKI | COMMON).items()]
SWITCHES += [(method, *one) for method in ("dfa", "cfl") for one in ALIGN.items()]
SWITCHES += [("kr2", *one) for one in KR2.items()] + [("kd", *one) for one in KD.items()]
# what KMLM's pre-training does where paper and released code differ
KMLM = {
    "method.reasoning": "ordinary",
    "method.alpha": "0.5",
    "method.sentence_probability": "0",
    "method.period_loss": "true",
    "method.linkers": "compat",
    "method.told_by": "linkers",
    "method.chord": "second",
    "method.mlm_probability": "0.2",
    "method.sample_length": "64",
    "method.mean_rows": "null",
    "method.long_steps": "0",
    "method.long_length": "256",
    "method.long_batch_size": "64",
    "method.pretrain_seed": "2",
    "pretrain.adam_beta2": "0.98",
    "pretrain.adam_epsilon": "1e-8",
    "pretrain.warmup_steps": "5",
    "train.adam_beta2": "0.98",
    "train.adam_epsilon": "1e-6",
    "train.warmup_steps": "5",
}
SWITCHES += [("kmlm", *one) for one in KMLM.items()]
# the points that TRELM's paper leaves open (docs/trelm.md)
TRELM = {
    "si.score": "one_minus_cosine",
    "si.replacement": "delete",
    "si.pooling": "cls",
    "select.rule": "klt",
    "select.k": "5",
    "select.hops": "2",
    "inject.enabled": "false",
    "inject.triple": "first",
    "inject.level": "sum",
    "inject.share_projection": "true",
    "mlm.in_spans": "true",
    "mlm.probability": "0.2",
    "mlm.whole_words": "false",
    "cka.target": "self",
    "cka.direction": "head_to_tail",
    "cka.decoder": "one_step",
    "cka.delta": "1",
    "cka.longest": "4",
    "cka.similarity": "cosine",
    "cka.tau": "0.1",
    "cka.sampler": "uniform",
    "cka.negatives": "50",
    "cka.power": "1",
    "cka.correction": "false",
    "theta": "0.3",
    "memory.initial": "0.3",
    "memory.beta": "3",
    "memory.unit": "fraction",
    "memory.every": "0.2",
    "memory.final_zero": "true",
    "memory.window": "8",
    "memory.divisor": "printed",
    "memory.gamma": "0.2",
    "memory.start": "zero",
    "memory.global_mean": "per_epoch",
    "memory.members": "all",
    "memory.scale": "layernorm",
    "routing.mode": "random",
    "routing.layers": "upper_half",
    "routing.granularity": "path",
    "routing.rho": "0.2",
    "routing.rho_sites": "0.3",
    "routing.select": "threshold",
    "routing.threshold": "0.1",
    "routing.scope": "relation",
    "routing.every": "10",
    "routing.sequences": "8",
    "routing.points": "10",
    "routing.rule": "midpoint",
    "routing.scaling": "per_layer",
    "routing.positions": "first",
    "routing.optimizer": "masked_grad",
    "routing.trainable.attention": "true",
    "routing.trainable.norms": "true",
    "routing.trainable.embeddings": "true",
    "routing.trainable.head": "false",
    "pretrain_seed": "2",
}
SWITCHES += [("trelm", f"method.{name}", value) for name, value in TRELM.items()]
SWITCHES += [("vanilla_kd", "method.o_merge", "max"), ("ensemble", "method.o_merge", "max")]
# what a comment must say: the paper, the code, or that neither does
SOURCE = r"paper|released code|not stated|ours|inferred"


def line_of(group: str, name: str, key: str) -> str:
    """The line of a YAML that gives a key its value; of one built upon others the line there, the last one first."""
    paths = [registry.conf_root() / group / f"{name}.yaml", *reversed(parts(group, name))]
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return next(line for line in lines if re.match(rf" *{key}: *\S", line))


@pytest.mark.parametrize(("method", "switch", "value"), SWITCHES)
def test_a_switch_exists_and_is_part_of_what_a_run_is(method, switch, value):
    base = [f"method={method}", "data=toy"]
    assert config_hash(compose([*base, f"{switch}={value}"])) != config_hash(compose(base))


@pytest.mark.parametrize(
    ("method", "switch"), [(method, switch) for method, switch, _ in SWITCHES if switch.startswith("method.")]
)
def test_a_switch_of_a_method_says_its_source(method, switch):
    line = line_of("method", method, switch.rpartition(".")[2])
    assert re.search(rf"#.*\b({SOURCE})\b", line), line


@pytest.mark.parametrize("name", ["muki", "muki_teacher"])
@pytest.mark.parametrize("key", ["selection", "eval_every", "global_batch_size", "warmup", "precision", "length_pool"])
def test_a_switch_of_a_recipe_says_its_source(name, key):
    line = line_of("train", name, key)
    assert re.search(rf"#.*\b({SOURCE}|not read)\b", line), line


@pytest.mark.parametrize("name", registry.choices("data"))
@pytest.mark.parametrize("key", ["validation_share", "max_length"])
def test_a_switch_of_a_data_set_says_its_source(name, key):
    line = line_of("data", name, key)
    generated = (
        key == "max_length"
        and "cite: generated by kbench" in (registry.conf_root() / "data" / f"{name}.yaml").read_text()
    )
    generated = generated or compose(["method=finetune", f"data={name}"]).data.task == "probe"  # nothing is trained
    # or that of another data set, whose page says it
    others = "|".join(f"as {one}" for one in registry.choices("data") if one != name)
    assert generated or re.search(rf"#.*\b({SOURCE}|paper's|not used|XTREME's|{others})\b", line), line


@pytest.mark.parametrize(("method", "switch"), sorted({(method, switch) for method, switch, _ in SWITCHES}))
def test_a_switch_has_help(method, switch):
    node, group = registry.load("method", method).Config, switch.split(".")
    if group[0] == "method":
        value = compose([f"method={method}", "data=toy"]).method
        for name in group[1:-1]:
            value = getattr(value, name)
        node = type(value)
        assert node.__dataclass_fields__[group[-1]].metadata[HELP]


# Equations, against plain numpy in double precision.


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


class Fixed(nn.Module):
    """A student that says the same whatever it reads."""

    def __init__(self, logits: np.ndarray):
        super().__init__()
        self.logits = torch.from_numpy(logits.astype(np.float32))

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.logits)


class Bits:
    """Some units of a method: its columns, a student's logits, and the loss of both."""

    def __init__(self, method, units: int = 200):
        self.method = method
        self.classes = len(method.bench.task.outputs)
        columns = {name: np.array(column[:units]) for name, column in method.columns().items()}
        self.size = len(next(iter(columns.values())))
        self.z = [columns[f"teacher_{i}"] for i in range(len(method.teachers))]
        self.c = columns.get("certainty")
        self.s = 2 * np.random.default_rng(0).standard_normal((self.size, self.classes))
        self.batch = {name: torch.from_numpy(column) for name, column in columns.items()}
        self.batch |= {"input_ids": torch.ones(self.size, 1, dtype=torch.long)}
        self.batch |= {"attention_mask": self.batch["input_ids"], "step_units": torch.tensor(3 * self.size)}
        if method.bench.records.tagged:
            self.batch["units"] = torch.arange(self.size)

    def padded(self, values: np.ndarray, teacher: int) -> np.ndarray:
        whole = np.zeros((self.size, self.classes))
        whole[:, self.method.teachers.columns[teacher]] = values
        return whole

    def loss(self, **options) -> float:
        """The loss with these options, the others as the run's."""
        self.method.config = replace(self.method.config, **options)
        logits = self.s[:, None] if "units" in self.batch else self.s
        (value,) = self.method.loss(Fixed(logits), self.batch).values()
        return float(value)

    def each(self, target: np.ndarray, student: np.ndarray | None = None, reverse: bool = False) -> np.ndarray:
        """KL(T || S) of each unit, or KL(S || T)."""
        p, q = target, softmax(self.s) if student is None else student
        if reverse:
            p, q = q, p
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(p > 0, p * np.log(p / q), 0.0).sum(-1)

    def soft(self, tau: float = 0.2, temperature: float = 1.0) -> np.ndarray:
        w = softmax(self.c / tau)
        return sum(w[:, i : i + 1] * self.padded(softmax(z / temperature), i) for i, z in enumerate(self.z))

    def hard(self) -> np.ndarray:
        best = self.c.argmax(1)[:, None]
        return sum((best == i) * self.padded(softmax(z), i) for i, z in enumerate(self.z))

    @property
    def margin(self) -> np.ndarray:
        top = np.sort(self.c.astype(np.float64), 1)
        return top[:, -1] - top[:, -2]


on_both = pytest.mark.parametrize("data", ["toy", "toy_entities"])
about = partial(pytest.approx, rel=1e-4)
PLAIN = {"reweight": False, "direction": Direction.target_student, "reduction": Reduction.mean}


@pytest.fixture
def bits(toy):
    """The units of a MUKI run."""
    return lambda data, *words: Bits(stored_method(toy("method=muki", *words, data=data)[0]))


@on_both
def test_target_and_tau(data, bits):
    one = bits(data)
    assert one.loss(**PLAIN, target=Target.hard) == about(one.each(one.hard()).mean())
    for tau in (0.05, 0.2, 5.0):
        assert one.loss(**PLAIN, target=Target.soft, tau=tau) == about(one.each(one.soft(tau)).mean())
    spread = [np.abs(one.soft(tau) - one.soft(1e9)).max() for tau in (0.05, 0.2, 5.0)]
    assert spread == sorted(spread, reverse=True)


@on_both
def test_direction(data, bits):
    one = bits(data)
    options = PLAIN | {"target": Target.soft}
    ours = one.loss(**options)
    theirs = one.loss(**options | {"direction": Direction.student_target})
    assert ours == about(one.each(one.soft()).mean())
    assert theirs == about(one.each(one.soft(), reverse=True).mean())
    assert abs(ours - theirs) > 0.01 * ours


@on_both
def test_reduction(data, bits):
    one = bits(data)
    mean = one.loss(reduction=Reduction.mean)
    # over the units of the whole step, of which a micro batch has a part
    assert one.loss(reduction=Reduction.sum) == about(3 * one.size * mean)


@on_both
def test_reweight_and_weight_floor(data, bits):
    one = bits(data)
    plain, each = one.loss(reweight=False), one.each(one.soft())
    assert plain == about(each.mean())
    assert one.loss(reweight=True, weight_floor=0.0) == about((each * one.margin).mean())
    # weights are not renormalised: a floor adds its share of the plain loss
    floored = one.loss(reweight=True, weight_floor=0.5)
    assert floored == about((each * (one.margin + 0.5)).mean())
    assert floored - one.loss(weight_floor=0.0) == about(0.5 * plain)
    assert one.loss(reweight=False, weight_floor=0.5) == plain


@on_both
def test_temperature_of_muki(data, bits):
    one = bits(data)
    for t in (1.0, 5.0):
        found = one.each(one.soft(temperature=t), softmax(one.s / t)).mean()
        assert one.loss(**PLAIN, temperature=t) == about(found), "no squared factor"


@on_both
@pytest.mark.parametrize("temperature", [1.0, 5.0])
@pytest.mark.parametrize("method", ["vanilla_kd", "uhc"])
def test_temperature_of_distillation(method, temperature, data, toy):
    one = Bits(stored_method(toy(f"method={method}", data=data)[0]))
    columns, t = one.method.teachers.columns, temperature
    if method == "vanilla_kd":
        joined = sum(one.padded(z, i) for i, z in enumerate(one.z))
        if data == "toy_entities":
            joined[:, 0] /= 2  # O is the mean
        expected = one.each(softmax(joined / t), softmax(one.s / t)).mean()
    else:
        pairs = [(softmax(z / t), softmax(one.s[:, own] / t)) for z, own in zip(one.z, columns, strict=True)]
        expected = sum((p * np.log(p / q)).sum(-1).mean() for p, q in pairs)
    assert one.loss(temperature=t) == about(t * t * expected)


@on_both
def test_mc_mode_and_samples(data, toy):
    run, _ = toy("method=muki", data=data)
    other, _ = toy("method=muki", "method.mc.mode=deterministic", data=data)
    config = run.config.method

    def certainty(mode: McMode, samples: int = 16) -> np.ndarray:
        method = stored_method(run, mc=replace(config.mc, mode=mode, samples=samples))
        return method.certainty

    def naive(name: str, used: slice) -> np.ndarray:
        method = stored_method(run)
        found = []
        for i in range(2):
            logits = np.array(method.stored(f"{name}_{i}", "train"))
            p = softmax(logits[:, used] if name == "samples" else logits[:, None]).mean(1)
            if data == "toy_entities":
                p = p[:, 1:] / p[:, 1:].sum(-1, keepdims=True)
            found.append(1 - entropy(p) / np.log(p.shape[-1]))
        return np.stack(found, 1)

    close = partial(pytest.approx, abs=1e-6)
    for samples in (16, 4, 1):
        assert certainty(McMode.mc, samples) == close(naive("samples", slice(samples)))
    assert certainty(McMode.deterministic) == close(naive("logits", slice(1)))
    assert certainty(McMode.single_sample) == close(naive("samples", slice(1)))
    assert np.abs(certainty(McMode.mc) - certainty(McMode.deterministic)).max() > 1e-4
    # a run with dropout off needs no samples, and learns from what they would not say
    method = stored_method(other)
    assert set(method.stages()) == {"logits_0", "logits_1"}
    assert np.array_equal(method.certainty, certainty(McMode.deterministic))


def samples_of(run) -> np.ndarray:
    return np.array(stored_method(run).stored("samples_0", "train"))


@on_both
def test_mc_dropout(data, toy):
    """Everywhere or nowhere: at nearly 0 the samples are the logits, attention included; null is the teacher's own."""
    runs = {p: toy("method=muki", f"method.mc.dropout={p}", data=data)[0] for p in ("1e-7", "0.1", "0.5", "null")}
    logits = np.array(stored_method(runs["0.1"]).stored("logits_0", "train"))[:, None]
    assert np.isclose(samples_of(runs["1e-7"]), logits, atol=1e-4).mean() > 0.999
    spread = {p: samples_of(run).std(1).mean() for p, run in runs.items()}
    assert spread["1e-7"] < 1e-4 < spread["0.1"] < spread["0.5"]
    # the tiny backbone's is 0.1
    assert np.array_equal(samples_of(runs["null"]), samples_of(runs["0.1"]))
    weak, _ = toy("method=muki", "method.mc.dropout=null", "backbone.dropout=0.3", data=data)
    assert samples_of(weak).std(1).mean() > 1.2 * spread["0.1"]


def test_renormalise(toy):
    run, _ = toy("method=muki", data="toy_entities")
    found = {flag: stored_method(run, renormalise=flag).certainty for flag in (True, False)}
    method = stored_method(run)
    for i in range(2):
        p = softmax(np.array(method.stored(f"samples_{i}", "train"))).mean(1)[:, 1:]
        partial_sum = 1 - entropy(p) / np.log(4)
        p = p / p.sum(-1, keepdims=True)
        assert found[False][:, i] == pytest.approx(partial_sum, abs=1e-6)
        assert found[True][:, i] == pytest.approx(1 - entropy(p) / np.log(4), abs=1e-6)
    assert np.abs(found[True] - found[False]).max() > 1e-3


MERGES = {
    "mean": lambda o: o.mean(0),
    "max": lambda o: o.max(0),
    "logsumexp": lambda o: np.log(np.exp(o.astype(np.float64)).sum(0)),
}


@pytest.mark.parametrize("merge", MERGES)
def test_o_merge(merge, toy):
    run, _ = toy("method=ensemble", f"method.o_merge={merge}", SCORES, data="toy_entities")
    method = stored_method(run)
    test = method.logits("test")
    joined = np.concatenate(
        [MERGES[merge](np.stack([z[:, 0] for z in test]))[:, None], test[0][:, 1:], test[1][:, 1:]], 1
    )
    assert np.load(run.scores("test")) == pytest.approx(joined, abs=1e-5)
    one = Bits(stored_method(toy("method=vanilla_kd", data="toy_entities")[0]))
    o = MERGES[merge](np.stack([z[:, 0] for z in one.z]))[:, None]
    target = softmax(np.concatenate([o, one.z[0][:, 1:], one.z[1][:, 1:]], 1))
    assert one.loss(o_merge=Merge(merge)) == about(one.each(target).mean())


def test_the_student_sees_no_label(toy):
    method = stored_method(toy("method=muki")[0])
    assert set(method.columns()) == {"teacher_0", "teacher_1", "certainty"}
    for name in ("vanilla_kd", "uhc", "dfa", "cfl"):
        assert set(stored_method(toy(f"method={name}")[0]).columns()) == {"teacher_0", "teacher_1"}


# Teachers.


def teacher_keys(run) -> list[str]:
    method = stored_method(run)
    return [method.teachers.teacher(i).key for i in range(2)]


def test_teacher_seed(toy):
    one, other, student = (toy("method=muki", *words)[0] for words in ([], ["method.teacher_seed=2"], ["seed=2"]))
    assert not set(teacher_keys(one)) & set(teacher_keys(other))
    assert teacher_keys(one) == teacher_keys(student)
    logits = [np.array(stored_method(run).logits("test")[0]) for run in (one, other)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_split(toy):
    labels = compose(["data=toy"]).data.labels
    split = [["meadows", "rivers"], ["bridges", "gardens", "orchards", "harbours"]]
    run, _ = toy("method=muki", f"method.split=[[{','.join(split[0])}],[{','.join(split[1])}]]")
    default, _ = toy("method=muki")
    method = stored_method(run)
    assert method.teachers.columns == [[labels.index(name) for name in names] for names in split]
    assert stored_method(default).teachers.columns == [[0, 1, 2], [3, 4, 5]]
    three, _ = toy("method=muki", "method.teachers=3")
    assert stored_method(three).teachers.columns == [[0, 1], [2, 3], [4, 5]]
    assert [z.shape[1] for z in method.logits("test")] == [2, 4]


def test_teachers_learn_from_all_rows_of_their_classes_those_held_out_too(toy, tmp_path):
    words = ["teacher.global_batch_size=1", "data.validation_share=0.5", "train.max_steps=1"]
    run, _ = toy("method=uhc", *words, outputs=tmp_path)
    assert [len(points(run, f"teacher_{i}")) for i in (1, 2)] == [48, 48]
    assert len(points(run)) == 1


# Alignment.


@pytest.fixture
def aligned(toy, monkeypatch):
    """Train a student with alignment blocks: gives the run, the module, and the blocks' values as they were drawn."""

    def make(*words, **more):
        kept = []

        def keep(self, model):
            module = student(self, model)
            kept.append((module, {name: value.clone() for name, value in module.blocks.state_dict().items()}))
            return module

        student = Dfa.student
        with monkeypatch.context() as patch:
            patch.setattr(Dfa, "student", keep)
            run, _ = toy(*words, SCORES, "force=true", **more)
        return run, *kept[0]

    return make


def moved(module, drawn: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float((value - drawn[name]).abs().max()) for name, value in module.blocks.state_dict().items()}


@pytest.mark.parametrize("method", ["dfa", "cfl"])
def test_align_train(method, aligned):
    every, module, drawn = aligned(f"method={method}")
    matrices = [name for name, value in drawn.items() if value.ndim > 1]
    biases = [name for name, value in drawn.items() if value.ndim == 1]
    assert matrices and biases and len(matrices) + len(biases) == len(drawn)
    assert all(0.01 < float(drawn[name].std()) < 0.03 for name in matrices), "drawn with deviation 0.02"
    assert all(not drawn[name].any() for name in biases)
    assert min(moved(module, drawn)[name] for name in matrices) > 1e-5
    some, module, again = aligned(f"method={method}", "method.align_train=biases")
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    change = moved(module, again)
    assert all(change[name] == 0 for name in matrices), "bit for bit as drawn"
    assert max(change[name] for name in biases) > 1e-5
    assert every.scores("test").read_bytes() != some.scores("test").read_bytes()
    assert all(parameter.requires_grad for parameter in module.model.parameters())


@pytest.mark.parametrize("method", ["dfa", "cfl"])
def test_align_lr(method, aligned):
    names = ("null", "1e-3", "1e-5")
    found = {rate: aligned(f"method={method}", f"method.align_lr={rate}", "train.lr=1e-3") for rate in names}
    run, module, drawn = found["null"]
    same, twin, _ = found["1e-3"]
    assert run.scores("test").read_bytes() == same.scores("test").read_bytes()
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in module.state_dict().items())
    slow = moved(*found["1e-5"][1:])
    quick = moved(module, drawn)
    # Adam's steps are as long as the rate
    assert max(slow.values()) < 0.05 * max(quick.values())
    # and the student's own rate is not the blocks'
    own = {rate: one[1].model.state_dict()["classifier.weight"] for rate, one in found.items()}
    start = found["null"][1]
    assert not torch.equal(own["1e-5"], own["null"]) and start is module


@on_both
@pytest.mark.parametrize("method", ["dfa", "cfl"])
def test_mask_padding(method, data, toy):
    """Masked, nothing depends on how far a batch is padded; unmasked, padding counts like words, up to max_length."""
    run, _ = toy(f"method={method}", data=data)
    rows = np.arange(8)
    found = {}
    for masked in (True, False):
        bench = bench_of(run)
        one = registry.load("method", method)(replace(run.config.method, mask_padding=masked), bench)
        one.prepare({name: bench.store.get(stage) for name, stage in one.stages().items()})
        torch.manual_seed(0)
        student = one.student(bench.model(len(bench.task.outputs), 0)).eval()
        assert one.width() == (None if masked else 64)
        for width in (None, 64):
            batch = bench.lessons(rows, one.columns(), width).batch(rows, torch.device("cpu"))
            assert width is None or batch["input_ids"].shape[1] == width
            with torch.no_grad():
                terms = one.loss(student, batch | {"step_units": torch.tensor(8)})
            found[masked, width] = {name: float(value) for name, value in terms.items()}
    assert set(found[True, None]) == {"kd", one.align, "reconstruction"}
    assert found[True, None] == pytest.approx(found[True, 64], rel=1e-4)
    for name in (one.align, "reconstruction"):
        rounding = abs(found[True, None][name] - found[True, 64][name]) + 1e-7
        for other in (found[True, 64], found[False, None]):
            assert abs(found[False, 64][name] - other[name]) > 10 * rounding
    assert found[False, 64]["kd"] == pytest.approx(found[True, None]["kd"], rel=1e-4)
    # by hand: the reconstruction of DFA's last layer, over all positions
    if method == "dfa" and data == "toy":
        with torch.no_grad():
            states = one._states(batch)
            total = 0.0
            for block, (_, *layers) in zip(student.blocks, student.layers, strict=True):
                hidden = [states[i][layer] for i, layer in enumerate(layers)]
                back = block.decode(block.encode(torch.cat(hidden, -1)))
                total += 2 * float((back - torch.cat(hidden, -1)).square().mean())
        assert found[False, 64]["reconstruction"] == about(total)


def test_layers(aligned):
    assert aligned("method=dfa")[1].layers == [(2, 2, 2), (1, 1, 1)]
    assert aligned("method=cfl")[1].layers == [(2, 2, 2)]
    _, module, _ = aligned("method=dfa", "method.layers=1")
    assert module.layers == [(2, 2, 2)] and len(module.blocks) == 1
    assert len(aligned("method=cfl", "method.layers=2")[1].blocks) == 2
    _, module, _ = aligned("method=dfa", "method.backbones=[tiny,tiny_large]")
    assert module.layers == [(2, 2, 4), (1, 1, 2)] and module.blocks[0].widths == [64, 96]


@pytest.mark.parametrize("method", ["dfa", "cfl"])
def test_weights_of_the_terms(method, toy):
    base, _ = toy(f"method={method}", "force=true")
    first = points(base)[0]
    none, _ = toy(f"method={method}", "method.align_weight=0", "method.reconstruction_weight=2", "force=true")
    name = "loss/feature" if method == "dfa" else "loss/discrepancy"
    other = points(none)[0]
    assert first[name] > 0 and other[name] == 0
    assert other["loss/reconstruction"] == pytest.approx(2 * first["loss/reconstruction"], rel=1e-5)
    assert other["loss/kd"] == pytest.approx(first["loss/kd"], rel=1e-5)


# Training.


@pytest.mark.parametrize(("share", "held"), [("0.05", 5), ("0.1", 10), ("0.25", 24)])
def test_validation_share(share, held, toy):
    run, result = toy("method=finetune", f"data.validation_share={share}")
    learn, out = bench_of(run).split
    assert (len(learn), len(out)) == (96 - held, held)
    assert sorted([*learn, *out]) == list(range(96))
    assert result.training["steps"] == 2 * -(-(96 - held) // 32)
    other, _ = toy("method=finetune", f"data.validation_share={share}", "seed=2")
    assert bench_of(other).split[1].tolist() != out.tolist(), "each seed holds out others"


@on_both
def test_selection(data, toy):
    words = ["method=finetune", "train.eval_every=1", "data.validation_share=0.3", "force=true", SCORES]

    def validations(run):
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["validation"]) for line in lines if "validation" in line]

    best, ours = toy(*words, data=data)
    curve = validations(best)
    steps = ours.training["steps"]
    assert [step for step, _ in curve] == list(range(1, steps + 1))
    found = ours.training["best_step"], ours.training["best_validation"]
    assert found == max(curve, key=lambda one: (one[1], -one[0]))
    last, theirs = toy(*words, "train.selection=last", data=data)
    assert validations(last) == []
    assert theirs.training == {"steps": steps, "best_step": steps, "best_validation": None}
    # the weights of the best step are those of a training that ends there
    words += ["train.schedule=constant", "train.warmup=0"]
    best, ours = toy(*words, data=data)
    ended = [f"train.max_steps={ours.training['best_step']}", "train.selection=last"]
    stopped, _ = toy(*words, *ended, data=data)
    assert best.scores("test").read_bytes() == stopped.scores("test").read_bytes()


def test_every_recipe_of_the_paper_is_complete():
    recipe = yaml.safe_load((registry.conf_root() / "train" / "muki.yaml").read_text())
    assert (recipe["epochs"], recipe["lr"], recipe["global_batch_size"], recipe["eval_every"]) == (3, 2e-5, 32, 100)
    assert (recipe["warmup"], recipe["weight_decay"], recipe["clip"], recipe["selection"]) == (0.1, 0, 1, "best_val")
    teacher = yaml.safe_load((registry.conf_root() / "train" / "muki_teacher.yaml").read_text())
    assert (teacher["epochs"], teacher["lr"], teacher["global_batch_size"], teacher["selection"]) == (
        3,
        2e-5,
        64,
        "last",
    )
    method = compose(["method=muki", "data=agnews"]).method
    assert (method.tau, method.mc.samples, method.mc.dropout, method.temperature) == (0.2, 16, 0.1, 1)
    assert (method.reweight, method.mc.mode, method.direction) == (True, McMode.mc, Direction.target_student)
    assert compose(["method=dfa", "data=agnews"]).method.align_train is Train.all
