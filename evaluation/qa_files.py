"""The files of SQuAD, ReCoRD and MultiRC, and of predictions, checked while they are read."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from pathlib import Path
from typing import Any

from prefix_tuning import files
from prefix_tuning.errors import UserError


def check_span(text: str, start: object, length: int, where: str) -> None:
    """Refuse a span that does not lie within ``text``, such as that of an answer or entity.

    Args:
        start: its first character, counted from 0.
        length: how many characters it has.
        where: begins the sentence, such as file and question.
    """
    if isinstance(start, bool) or not isinstance(start, int):
        raise UserError(f"{where}: the start {start!r} of a span is not a whole number")
    if not 0 <= start < start + length <= len(text):
        raise UserError(
            f"{where}: answer_start {start} is outside the paragraph: {length} characters from "
            f"there on, of {len(text)}"
        )


def check_answer(answer: Mapping[str, Any], context: object, where: str) -> str:
    """The text of an answer of SQuAD.

    Raises:
        UserError: it is no text, or empty, or does not stand at ``answer_start``.
    """
    text = answer["text"]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: an answer is not a text, or empty: {text!r}")
    if "answer_start" in answer and isinstance(context, str):
        start = answer["answer_start"]
        check_span(context, start, len(text), where)
        found = context[start : start + len(text)]
        if found != text:
            raise UserError(f"{where}: at answer_start {start} stands {found!r} and not {text!r}")
    return text


def check_question_id(question: object, known: Container[str], where: str) -> str:
    """The id of a question as text.

    Args:
        known: those of the questions before it.

    Raises:
        UserError: it is neither text nor number, or comes twice.
    """
    if isinstance(question, bool) or not isinstance(question, str | int) or question == "":
        raise UserError(f"{where}: the id of a question is neither text nor number: {question!r}")
    if str(question) in known:
        raise UserError(f"{where}: two questions have the id {question}")
    return str(question)


def _add(answers: dict[str, list[str]], question: object, texts: list[str], where: str) -> None:
    answers[check_question_id(question, answers, where)] = texts


def read_squad(path: Path) -> dict[str, list[str]]:
    """Question id -> accepted answers, from a SQuAD file.

    Raises:
        UserError: it is none, an id comes twice, an answer does not stand where it should.
    """
    document = files.read_json(path)
    answers: dict[str, list[str]] = {}
    try:
        for paragraph in (p for article in document["data"] for p in article["paragraphs"]):
            for question in paragraph["qas"]:
                where = f"{path}, question {question['id']}"
                context = paragraph.get("context")
                texts = [check_answer(answer, context, where) for answer in question["answers"]]
                _add(answers, question["id"], texts, str(path))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a SQuAD file: no {error}") from error
    return answers


def read_record(path: Path) -> dict[str, list[str]]:
    """Query id -> accepted entities, from SuperGLUE's ReCoRD file (JSON lines).

    Raises:
        UserError: it is none, an id comes twice, an answer is no text.
    """
    answers: dict[str, list[str]] = {}
    for row, where in files.read_json_lines(path):
        try:
            for query in row["qas"]:
                texts = [check_answer(answer, None, where) for answer in query["answers"]]
                _add(answers, query["idx"], texts, where)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{where}: {path.name} is not a ReCoRD file: no {error}") from error
    return answers


def read_multirc(path: Path) -> tuple[list[Hashable], list[float]]:
    """Question and label of each candidate answer, from SuperGLUE's MultiRC file (JSON lines).

    Raises:
        UserError: it is none, a question comes twice, a label is neither 0 nor 1.
    """
    questions: list[Hashable] = []
    labels: list[float] = []
    seen: dict[str, list[str]] = {}
    for row, where in files.read_json_lines(path):
        try:
            for question in row["passage"]["questions"]:
                key = (row["idx"], question["idx"])
                _add(seen, f"{key[0]!r}, {key[1]!r}", [], where)
                found = [answer["label"] for answer in question["answers"]]
                if any(label not in (0, 1) for label in found):
                    raise UserError(f"{where}: the labels {found} are not 0 or 1")
                labels += found
                questions += [key] * len(found)
                hash(key)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{where}: {path.name} is not a MultiRC file: no {error}") from error
    return questions, labels


def read_predictions(path: Path) -> dict[str, str]:
    """Question id -> answer text, from a JSON object.

    Raises:
        UserError: it is none, an id comes twice, an answer is no text.
    """
    predictions = files.read_json(path)
    if not isinstance(predictions, dict):
        raise UserError(f"{path} is not a JSON object of question id and answer")
    for question, answer in predictions.items():
        if not isinstance(answer, str):
            raise UserError(f"{path}: the answer to question {question} is not a text: {answer!r}")
    return predictions
