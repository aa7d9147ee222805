"""Names of the data sets, by family."""

from __future__ import annotations

GLUE_DATASETS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")
SUPERGLUE_DATASETS = ("boolq", "cb", "rte", "wic", "wsc", "copa", "record", "multirc")
NER_DATASETS = ("conll2003", "conll2004", "ontonotes", "wnut17")
SRL_DATASETS = ("conll2005", "conll2012")
QA_DATASETS = ("squad", "squad_v2")

TASKS = {
    "glue": GLUE_DATASETS,
    "superglue": SUPERGLUE_DATASETS,
    "ner": NER_DATASETS,
    "srl": SRL_DATASETS,
    "qa": QA_DATASETS,
}
OWN = ("classification", "tagging")
"""Families whose data are files of one's own."""
DATASETS = tuple(dict.fromkeys(name for names in TASKS.values() for name in names))

ADD_PREFIX_SPACE = {"bert": False, "roberta": True, "deberta": True, "deberta-v2": True}
"""By model type: how its tokenizer has to be loaded to read words one by one (ner and srl)."""
