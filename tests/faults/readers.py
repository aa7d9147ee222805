"""Every reader of the project, with a small file that it reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from conftest import ROOT
from faults import damage

from data.download import convert, sources
from evaluation import classification, dart, e2e, qa_files, tagging, webnlg
from evaluation import files as evaluation_files
from experiments import results, spec
from gpt2.tasks import read_records
from harness.decode import decode_resumably
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json
from ptuning_v2.tasks.glue.dataset import GLUE_TASKS, read_glue
from ptuning_v2.tasks.ner.dataset import read_columns
from ptuning_v2.tasks.qa.dataset import read_squad
from ptuning_v2.tasks.srl.dataset import read_predicates
from ptuning_v2.tasks.superglue.records import read_superglue
from seq2seq.data import read_split

Read = Callable[[Path], int]


class Fault(AssertionError):
    """A reader did something else than accept, or refuse in one sentence."""


@dataclass(frozen=True)
class Reader:
    """A reader and a file.

    Attributes:
        file: name of the file that is damaged.
        content: text; JSON values, one a line; or a single JSON value.
        read: gives the number of records in the file at a path.
        count: how many there are.
        beside: files beside it, by name.
    """

    file: str
    content: Any
    read: Read
    count: int
    beside: tuple[tuple[str, str], ...] = ()
    is_lines: bool = True
    """Whether a list stands for lines."""

    @property
    def raw(self) -> bytes:
        if isinstance(self.content, str):
            return self.content.encode()
        return self._dump(self.content)

    def _dump(self, value: Any) -> bytes:
        lines = value if self.is_lines and isinstance(value, list) else [value]
        return b"".join(damage.dump(line) + b"\n" for line in lines)

    def attempt(self, folder: Path, content: bytes) -> int | None:
        """How many records are read of ``content``; None where it is refused in one sentence."""
        for name, text in self.beside:
            (folder / name).write_text(text, encoding="utf-8")
        path = folder / self.file
        path.write_bytes(content)
        try:
            return self.read(path)
        except UserError as error:
            message = str(error)
            if self.file not in message or "\n" in message:
                raise Fault(f"the message names no file, or has lines: {message!r}") from error
            return None
        except Exception as error:
            raise Fault(f"{type(error).__name__}: {error}") from error

    def damaged(self, folder: Path, chance: random.Random) -> str:
        """Read a damaged file; ``accepted`` or ``refused``."""
        content, is_whole = self.raw, False
        if not isinstance(self.content, str) and chance.randrange(2):
            value, is_whole = damage.json_value(self.content, chance)
            content = self._dump(value)
        else:
            for _ in range(chance.randrange(1, 3)):
                content = chance.choice(damage.TEXT)(content, chance)
        found = self.attempt(folder, content)
        if found is not None and is_whole and found != self.count:
            raise Fault(f"{found} records were read of {self.count}, none was refused")
        return "refused" if found is None else "accepted"


def _tsv(columns: str, *rows: str) -> str:
    return "".join(row.replace(" ", "\t").replace("_", " ") + "\n" for row in (columns, *rows))


def _gpt2(mode: str, training: bool = True) -> Read:
    return lambda path: len(read_records(mode, path, training))


def _summaries(path: Path) -> int:
    is_pair = path.suffix in (".source", ".target")
    return len(read_split(path.parent if is_pair else path, "train", training=True))


def _dart(path: Path) -> int:
    return len(dart.read_references(path)[0])


def _webnlg(path: Path) -> int:
    return len(webnlg.read_references(path)[0])


def _queries(path: Path) -> int:
    return len({row.idx["query"] for row in read_superglue("record", path)})


def _chunks(path: Path) -> int:
    return len(evaluation_files.read_table(path)[1])


def _partial(path: Path) -> int:
    texts = decode_resumably(path, {"a": 1}, 2, lambda skip: ((i, "new") for i in {0, 1} - {*skip}))
    if any(not isinstance(text, str) for text in texts):
        raise Fault(f"{texts!r} are kept as texts")
    return len(texts)


WEBNLG = {
    "entries": [
        {
            str(number): {
                "category": "Food",
                "modifiedtripleset": [{"subject": "a", "property": "p", "object": "b"}],
                "lexicalisations": [{"comment": "good", "lex": "A text ."}],
            }
        }
        for number in (1, 2)
    ]
}
DART = [
    {"tripleset": [["a", "p", "b"]], "annotations": [{"source": "s", "text": "A text ."}]},
    {"tripleset": [["c", "q", "d"]], "annotations": [{"source": "s", "text": "One more ."}]},
]
CONTEXT = "A cat sat on the mat."
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": f"q{number}",
                            "question": "Who sat?",
                            "is_impossible": False,
                            "answers": [{"text": "cat", "answer_start": 2}],
                        }
                        for number in (1, 2)
                    ],
                }
            ],
        }
    ],
}
MULTIRC = [
    {
        "idx": number,
        "passage": {
            "text": CONTEXT,
            "questions": [
                {
                    "idx": number,
                    "question": "Who?",
                    "answers": [{"idx": number, "text": "cat", "label": 1}],
                }
            ],
        },
    }
    for number in (0, 1)
]
RECORD = [
    {
        "idx": number,
        "passage": {"text": CONTEXT, "entities": [{"start": 2, "end": 4}]},
        "qas": [
            {
                "idx": number,
                "query": "@placeholder sat",
                "answers": [{"start": 2, "end": 4, "text": "cat"}],
            }
        ],
    }
    for number in (0, 1)
]
SUPERGLUE: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is it", "passage": "It is.", "label": True},
    "cb": {"premise": "a", "hypothesis": "b", "label": "neutral"},
    "copa": {"premise": "a", "question": "cause", "choice1": "b", "choice2": "c", "label": 1},
    "rte": {"premise": "a", "hypothesis": "b", "label": "entailment"},
    "wic": {"word": "w", "sentence1": "a w", "sentence2": "b w", "label": False},
    "wsc": {
        "text": "A cat saw it",
        "target": {"span1_text": "cat", "span1_index": 1, "span2_text": "it", "span2_index": 3},
        "label": False,
    },
}
GLUE = {
    "cola": "a 1 * A_cat\nb 0 * No_cat\n".replace(" ", "\t").replace("_", " "),
    "mnli": _tsv("index sentence1 sentence2 gold_label", "0 a b neutral", "1 c d entailment"),
    "mrpc": _tsv("Quality #1_ID #2_ID #1_String #2_String", "1 1 2 a b", "0 3 4 c d"),
    "qnli": _tsv("index question sentence label", "0 a b entailment", "1 c d not_entailment")
    .replace("not entailment", "not_entailment"),
    "qqp": _tsv("id qid1 qid2 question1 question2 is_duplicate", "0 1 2 a b 1", "1 3 4 c d 0")
    .replace("is duplicate", "is_duplicate"),
    "rte": _tsv("index sentence1 sentence2 label", "0 a b entailment", "1 c d entailment"),
    "sst2": _tsv("sentence label", "good 1", "bad 0"),
    "stsb": _tsv("index sentence1 sentence2 score", "0 a b 5.0", "1 c d 0.0"),
    "wnli": _tsv("index sentence1 sentence2 label", "0 a b 1", "1 c d 0"),
}  # fmt: skip
GLUE["mnli"] = GLUE["mnli"].replace("gold label", "gold_label")
PREDICATES = "1 A cat sat ||| O B-A0 B-V\n0 Go ||| B-V\n"
COLUMNS = "A O\ncat B-PER\n\nsat O\n"
LINES = "a : b||A text .\nc : d||One more .\n"
XML = (
    '<benchmark><entries><entry category="Food"><lex>A .</lex></entry>'
    '<entry category="Food"><lex>B .</lex></entry></entries></benchmark>\n'
)
PAIRS = [{"source": "a", "target": "b"}, {"source": "c", "targets": ["d"]}]


def _all() -> dict[str, Reader]:
    found = {
        "gpt2 e2e": Reader("a.txt", LINES, _gpt2("data2text"), 2),
        "gpt2 webnlg": Reader("a.json", WEBNLG, _gpt2("webnlg", training=False), 2),
        "gpt2 webnlg training": Reader("a.json", WEBNLG, _gpt2("webnlg"), 2),
        "gpt2 dart": Reader("a.json", DART, _gpt2("triples"), 2, is_lines=False),
        "gpt2 prompts": Reader("a.txt", "p|||a\nq|||b\n", _gpt2("writingPrompts"), 2),
        "gpt2 sentiment": Reader("a.txt", "pos|||a\nneg|||b\n", _gpt2("sentiment"), 2),
        "gpt2 topic": Reader("a.txt", "1||a\n2||b\n", _gpt2("topic"), 2),
        "gpt2 classes": Reader("a.txt", "1||a\n2||b\n", _gpt2("classify-topic"), 2),
        "gpt2 parallel": Reader("a.source", "a\nb\n", _gpt2("xsum"), 2, (("a.target", "c\nd\n"),)),
        "gpt2 jsonl": Reader("a.jsonl", PAIRS, _gpt2("data2text"), 2),
        "gpt2 jsonl prompts": Reader("a.jsonl", PAIRS, _gpt2("data2text", training=False), 2),
        "seq2seq csv": Reader("a.csv", "source,target\na,b\nc,d\n", _summaries, 2),
        "seq2seq jsonl": Reader("a.jsonl", PAIRS[:1] * 2, _summaries, 2),
        "seq2seq e2e": Reader("a.txt", LINES, _summaries, 2),
        "seq2seq pairs": Reader(
            "train.source", "a\nb\n", _summaries, 2, (("train.target", "c\nd\n"),)
        ),
        "squad": Reader("a.json", SQUAD, lambda path: len(read_squad(path, True)), 2),
        "columns": Reader("a.txt", COLUMNS, lambda path: len(read_columns(path)), 2),
        "predicates": Reader("a.txt", PREDICATES, lambda path: len(read_predicates(path)), 2),
        "superglue multirc": Reader(
            "a.jsonl", MULTIRC, lambda path: len(read_superglue("multirc", path)), 2
        ),
        "superglue record": Reader("a.jsonl", RECORD, _queries, 2),
        "scored webnlg": Reader("a.json", WEBNLG, _webnlg, 2),
        "scored webnlg xml": Reader("a.xml", XML, _webnlg, 2),
        "scored dart": Reader("a.json", DART, _dart, 2, is_lines=False),
        "scored e2e": Reader("a.txt", LINES, lambda path: len(e2e._read_references(path)), 2),
        "scored squad": Reader("a.json", SQUAD, lambda path: len(qa_files.read_squad(path)), 2),
        "scored record": Reader("a.jsonl", RECORD, lambda path: len(qa_files.read_record(path)), 2),
        "scored multirc": Reader(
            "a.jsonl", MULTIRC, lambda path: len(qa_files.read_multirc(path)[0]), 2
        ),
        "answers": Reader(
            "a.json", {"q1": "a", "q2": "b"}, lambda path: len(qa_files.read_predictions(path)), 2
        ),
        "tags": Reader("a.txt", COLUMNS, lambda path: len(tagging.read_tags(path)), 2),
        "tags of predicates": Reader(
            "a.txt", PREDICATES, lambda path: len(tagging.read_tags(path)), 2
        ),
        "classes": Reader("a.txt", "0\n1\n", lambda path: len(classification.read_labels(path)), 2),
        "scores": Reader(
            "a.txt", "0.5\n1\n", lambda path: len(classification.read_labels(path, float)), 2
        ),
        "table csv": Reader("a.csv", "mr,ref\na,b\nc,d\n", _chunks, 2),
        "table tsv": Reader("a.tsv", "mr\tref\na\tb\nc\td\n", _chunks, 2),
        "lines": Reader("a.txt", "a\nb\n", lambda path: len(evaluation_files.read_lines(path)), 2),
        "e2e test set": Reader(
            "a.csv",
            'mr,ref\n"name[A], food[B]",It is .\n"name[C], food[D]",It is .\n',
            lambda path: convert.e2e_test_set([path]).count(b"\n"),
            2,
        ),
        "partial decode": Reader("a.partial", '{"a": 1}\n[0, "x"]\n[1, "y"]\n', _partial, 2),
    }
    for name, content in GLUE.items():
        found[f"glue {name}"] = Reader("a.tsv", content, partial(_glue, name), 2)
    for name, record in SUPERGLUE.items():
        lines = [{**record, "idx": number} for number in (0, 1)]
        found[f"superglue {name}"] = Reader("a.jsonl", lines, partial(_superglue, name), 2)
    return found | _of_tables()


def _glue(name: str, path: Path) -> int:
    assert name in GLUE_TASKS
    return len(read_glue(name, path))


def _superglue(name: str, path: Path) -> int:
    return len(read_superglue(name, path))


def _of_tables() -> dict[str, Reader]:
    """The YAML and JSON that tables are made of: real files."""
    paper = read_json(ROOT / "data/paper_results/low_data.json")
    known = read_json(ROOT / "data/sources.json")
    table = (ROOT / "experiments/tables/small_e2e.yaml").read_text(encoding="utf-8")
    n_row = len(spec.read("small_e2e").rows)
    return {
        "paper": Reader("a.json", paper, lambda path: len(results.read_paper(path)), len(paper)),
        "experiment": Reader("a.yaml", table, lambda p: len(spec.read("a", p.parent).rows), n_row),
        "sources": Reader("a.json", known, lambda p: len(sources.read_sources(p)), len(known)),
    }


READERS = _all()
