"""Toy data for ``--scale tiny``, made of the project's own texts.

Every data set is written in its official format, so that the real readers and scorers run. Nothing
can be learned from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.village_news import generate
from prefix_tuning.errors import UserError

RESTAURANTS = Path(__file__).resolve().parents[1] / "data" / "restaurants"
N_RECORD = 12


def restaurants(split: str) -> list[tuple[str, str]]:
    """Source and text of every line."""
    text = (RESTAURANTS / f"src1_{split}.txt").read_text(encoding="utf-8")
    return [(s, t.strip()) for s, _, t in (line.partition("||") for line in text.splitlines())]


def write_data(name: str, folder: Path) -> None:
    """Write the toy version of a data set, by --mode or --dataset_name.

    Raises:
        UserError: there is none.
    """
    if name not in WRITERS:
        raise UserError(f"there is no toy data for {name}; there is for {', '.join(WRITERS)}")
    for path, content in WRITERS[name](name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")


def _triples(source: str) -> list[list[str]]:
    (_, name), *rest = (part.strip().split(" : ", 1) for part in source.split(" | "))
    return [[name, prop.title().replace(" ", ""), value] for prop, value in rest]


def _e2e(name: str) -> dict[str, str]:
    files = {f"src1_{s}.txt": restaurants(s) for s in ("train", "valid", "test")}
    return {n: "".join(f"{s}||{t}\n" for s, t in pairs) for n, pairs in files.items()}


def _webnlg(name: str) -> dict[str, str]:
    files = {}
    for split, file in (("train", "train"), ("valid", "dev"), ("test", "test")):
        entries = []
        for i, (source, text) in enumerate(restaurants(split)[:: 7 if split == "test" else 40]):
            triples = [{"subject": s, "property": p, "object": o} for s, p, o in _triples(source)]
            entry = {
                "category": ("Food", "Artist")[split == "test" and i % 2],
                "modifiedtripleset": triples,
                "lexicalisations": [{"comment": "good", "lex": text}],
            }
            entries.append({str(i + 1): entry})
        files[f"{file}.json"] = json.dumps({"entries": entries})
    return files


def _dart(name: str) -> dict[str, str]:
    return {
        f"dart-v1.1.1-full-{file}.json": json.dumps(
            [
                {"tripleset": _triples(source), "annotations": [{"source": "toy", "text": text}]}
                for source, text in restaurants(split)[::7]
            ]
        )
        for split, file in (("train", "train"), ("valid", "dev"), ("test", "test"))
    }


def _news(name: str) -> dict[str, str]:
    files = generate.generate(seed=0)
    lines = {n.removeprefix("when/"): t for n, t in files.items() if n.startswith("when/")}
    return {n: "".join(t.splitlines(keepends=True)[: 4 * N_RECORD]) for n, t in lines.items()}


def _superglue(name: str) -> dict[str, str]:
    folder, record = _SUPERGLUE[name]
    rows = [
        json.dumps({**record(source, text, i % 2), "idx": i})
        for i, (source, text) in enumerate(restaurants("valid")[:N_RECORD])
    ]
    content = "".join(f"{row}\n" for row in rows)
    return {f"{folder}/{split}.jsonl": content for split in ("train", "val", "test")}


def _wic(source: str, text: str, label: int) -> dict[str, Any]:
    word = text.split()[0]
    span = {"start1": 0, "end1": len(word), "start2": 0, "end2": len(word)}
    return {"word": word, "sentence1": text, "sentence2": text, "label": bool(label), **span}


def _wsc(source: str, text: str, label: int) -> dict[str, Any]:
    first, *_, last = text.split()
    target = {"span1_text": first, "span1_index": 0, "span2_text": last}
    target["span2_index"] = len(text.split()) - 1
    return {"text": text, "target": target, "label": bool(label)}


_SUPERGLUE: dict[str, tuple[str, Callable[[str, str, int], dict[str, Any]]]] = {
    "boolq": ("BoolQ", lambda s, t, y: {"question": s, "passage": t, "label": bool(y)}),
    "rte": (
        "RTE",
        lambda s, t, y: {
            "premise": s,
            "hypothesis": t,
            "label": ("entailment", "not_entailment")[y],
        },
    ),
    "copa": (
        "COPA",
        lambda s, t, y: {
            "premise": s,
            "choice1": t,
            "choice2": t[::-1],
            "question": ("cause", "effect")[y],
            "label": y,
        },
    ),
    "wic": ("WiC", _wic),
    "wsc": ("WSC", _wsc),
}


_NER = {  # columns before the tag, type of entity, files
    "conll2003": (2, "ORG", "CoNLL03/train.txt CoNLL03/valid.txt CoNLL03/test.txt"),
    "conll2004": (2, "Org", "CoNLL04/train.txt CoNLL04/dev.txt CoNLL04/test.txt"),
    "ontonotes": (
        2,
        "ORG",
        "ontoNotes/train.sd.conllx ontoNotes/dev.sd.conllx ontoNotes/test.sd.conllx",
    ),
    "wnut17": (
        2,
        "person",
        "wnut17/wnut17train.conll wnut17/emerging.dev.conll wnut17/emerging.test.annotated",
    ),
}


def _ner(name: str) -> dict[str, str]:
    _, kind, files = _NER[name]
    sentences = []
    for source, text in restaurants("valid")[:N_RECORD]:
        words = {*source.split(" | ")[0].removeprefix("name : ").split()}
        tags = [f"B-{kind}" if word in words else "O" for word in text.split()]
        # OntoNotes has the number of the word first; the tag is last everywhere.
        first = [f"{i}\t" if name == "ontonotes" else "" for i in range(len(tags))]
        rows = zip(first, text.split(), tags, strict=True)
        sentences.append("".join(f"{i}{word}\tNN\t{tag}\n" for i, word, tag in rows) + "\n")
    return dict.fromkeys(files.split(), "".join(sentences))


_SRL = {
    "conll2005": "train devel test.wsj test.brown",
    "conll2012": "train devel test",
}


def _srl(name: str) -> dict[str, str]:
    lines = []
    for _, text in restaurants("valid")[:N_RECORD]:
        tags = ["B-A0", "B-V"] + ["B-A1"] + ["I-A1"] * len(text.split())
        tags = tags[: len(text.split())]
        lines.append(f"1 {text} ||| {' '.join(tags)}\n")
    stem = {"conll2005": "CoNLL05/conll05", "conll2012": "CoNLL12/conll2012"}[name]
    return {f"{stem}.{split}.txt": "".join(lines) for split in _SRL[name].split()}


def _squad(name: str) -> dict[str, str]:
    version = {"squad": "v1.1", "squad_v2": "v2.0"}[name]
    paragraphs = []
    for i, (source, text) in enumerate(restaurants("valid")[:N_RECORD]):
        answer = {"text": text.split()[0], "answer_start": 0}
        question: dict[str, object] = {
            "id": f"q{i}",
            "question": f"{source} ?",
            "answers": [answer],
        }
        if name == "squad_v2":
            question |= {"is_impossible": i % 2 == 0, "answers": [answer] if i % 2 else []}
        paragraphs.append({"context": text, "qas": [question]})
    content = json.dumps({"data": [{"title": "toy", "paragraphs": paragraphs}]})
    return {f"{name}/{part}-{version}.json": content for part in ("train", "dev")}


WRITERS: dict[str, Callable[[str], dict[str, str]]] = {
    "data2text": _e2e,
    "webnlg": _webnlg,
    "triples": _dart,
    **dict.fromkeys(("xsum", "xsum_news", "xsum_news_sport", "translation"), _news),
    **dict.fromkeys(_SUPERGLUE, _superglue),
    **dict.fromkeys(_NER, _ner),
    **dict.fromkeys(_SRL, _srl),
    **dict.fromkeys(("squad", "squad_v2"), _squad),
}
"""--mode or --dataset_name -> file -> content."""
