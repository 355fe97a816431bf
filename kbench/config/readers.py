"""The names that `data.metrics` and `data.reader` may have, of each task, and what kind of rows some readers give."""

from __future__ import annotations

# task -> names of its metrics in kbench.metrics; a test holds the two together
METRICS = {
    "classification": ("accuracy", "macro_f1", "matthews", "f1"),
    "regression": ("pearson", "spearman"),
    "typing": ("f1", "precision", "recall"),
    "tagging": ("f1", "precision", "recall"),
    "pos": ("accuracy", "macro_f1", "f1"),
    "choice": ("accuracy",),
    "relation": ("accuracy", "f1", "micro_f1", "precision", "recall", "macro_f1"),
    "qa": ("f1", "exact_match"),
    "probe": (
        "accuracy", "micro", "single", "multi", "google_re", "t_rex", "squad", "uhn_google_re", "uhn_t_rex",
    ),
}  # fmt: skip
# task -> names of its readers in kbench.data, likewise
READERS = {
    "classification": (
        "ag_csv", "label_last", "label_first", "label_tab_last", "file_per_class", "parquet", "snli", "xnli_tsv",
        "pawsx_tsv", "glue_cola", "glue_sst2", "glue_mrpc", "glue_pairs",
    ),
    "regression": ("glue_stsb",),
    "typing": ("open_entity",),
    "tagging": ("conll_columns", "conll_brackets", "wikiann"),
    "pos": ("conllu", "conllu_fused"),
    "choice": ("swag", "piqa", "hellaswag", "xlr"),
    "relation": ("kbp37", "tacred"),
    "qa": ("squad",),
    "probe": ("xfactr", "lama"),
}  # fmt: skip
# readers that make the rows themselves, likewise
GENERATED = {
    "classification": ("toy", "toy_other", "toy_inference"),
    "regression": ("toy_scores",),
    "typing": ("toy_typing",),
    "tagging": ("toy_entities",),
    "pos": ("toy_pos",),
    "choice": ("toy_choice",),
    "relation": ("toy_relx", "toy_tacred"),
    "qa": ("toy_qa",),
    "probe": ("toy_probe", "toy_lama"),
}
# the reader of a data set that is made of others
JOINED = "joined"
# tasks whose units are the words of a sentence; readers whose rows are a first text and one or several second ones
OF_WORDS = ("tagging", "pos")
OF_PAIRS = (
    "snli", "xnli_tsv", "pawsx_tsv", "glue_mrpc", "glue_pairs", "toy_inference", *READERS["regression"],
    *GENERATED["regression"], *READERS["choice"], *GENERATED["choice"],
)  # fmt: skip
