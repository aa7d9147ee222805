"""SQuAD 1.1 and 2.0: long paragraphs are read in overlapping windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase, TrainingArguments

from evaluation import qa
from evaluation.checks import check_finite
from evaluation.qa_files import check_answer, check_question_id
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json
from ptuning_v2.arguments import DataTrainingArguments, QuestionAnwseringArguments
from ptuning_v2.tasks.base import (
    Collator,
    Examples,
    Feature,
    Outputs,
    TaskData,
    chunks,
    cut,
    defined,
    locate,
    read_hub,
)
from ptuning_v2.tasks.own.files import rows_of, split_rows
from ptuning_v2.tasks.qa.utils_qa import Answers, Question, Window, postprocess_qa_predictions

HUB = {"squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}
VERSIONS = {"squad": "v1.1", "squad_v2": "v2.0"}
DOC_STRIDE = 128
"""Tokens that two windows of a paragraph share, at the default length of 384."""


def read_squad(path: Path, unanswerable: bool) -> list[Question]:
    """Read a file of SQuAD.

    Args:
        unanswerable: whether questions may be without an answer.

    Raises:
        UserError: the file is no SQuAD file, or an answer does not stand where it should; names
            the question.
    """
    document = read_json(path)
    questions: list[Question] = []
    where = "the first article"
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for qas in paragraph["qas"]:
                    where = f"question {qas['id']}"
                    # Plausible answers of unanswerable questions are not answers.
                    is_impossible = qas.get("is_impossible", False)
                    if not isinstance(is_impossible, bool):
                        raise TypeError(f"is_impossible is {is_impossible!r}")
                    found = {
                        "id": qas["id"],
                        "question": qas["question"],
                        "context": paragraph["context"],
                        "answers": [] if is_impossible else qas["answers"],
                    }
                    questions.append(_question(found, unanswerable, f"{path}, {where}"))
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}, at {where} or right after it: not as in SQuAD's files ({error!r})"
        ) from error
    if not questions:
        raise UserError(f"{path} has no questions")
    return questions


def _question(found: Mapping[str, Any], unanswerable: bool, where: str) -> Question:
    """Check a question of a file or of the hub.

    Args:
        found: ``id``, ``question``, ``context`` and ``answers``, a list of ``text`` and
            ``answer_start``.
    """
    for name in ("question", "context"):
        if not isinstance(found[name], str):
            raise UserError(f"{where}: the {name} is not a text: {found[name]!r:.80}")
    answers = found["answers"]
    texts = tuple(check_answer(answer, found["context"], where) for answer in answers)
    if not texts and not unanswerable:
        raise UserError(f"{where} has no answer: use --dataset_name squad_v2")
    number = check_question_id(found["id"], (), where)
    starts = tuple(answer["answer_start"] for answer in answers)
    return Question(number, found["question"].lstrip(), found["context"], texts, starts)


def questions_of_hub(rows: Iterable[dict[str, Any]], unanswerable: bool) -> list[Question]:
    """The questions of a split of the hub, checked as those of a file."""
    questions = []
    for number, row in enumerate(rows, 1):
        columns = row["answers"]
        pairs = zip(columns["text"], columns["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        where = f"row {number} of the hub"
        questions.append(_question({**row, "answers": answers}, unanswerable, where))
    return questions


def own_questions(file: str, split: str, unanswerable: bool) -> list[Question]:
    """The questions of a file of one's own: as SQuAD's, or a row each as the hub has them.

    Raises:
        UserError: a row lacks a column, or an answer does not stand where it should.
    """
    path = Path(file)
    if path.suffix == ".json" and isinstance(read_json(path), dict):
        return read_squad(path, unanswerable)
    return [
        _own_question({"id": str(number), **row}, unanswerable, where)
        for number, (row, where) in enumerate(rows_of(file, split), 1)
    ]


def _own_question(row: dict[str, Any], unanswerable: bool, where: str) -> Question:
    missing = {"question", "context", "answers"} - row.keys()
    if missing:
        raise UserError(
            f"{where}: there is no {min(missing)!r}: give question, context and answers"
        )
    answers = row["answers"]
    try:
        if isinstance(answers, dict):  # as the hub has them
            pairs = zip(answers["text"], answers["answer_start"], strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in pairs]
        answers = [{name: answer[name] for name in ("text", "answer_start")} for answer in answers]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{where}: answers are a list of {{"text": ..., "answer_start": ...}}, not '
            f"{row['answers']!r:.60}"
        ) from error
    return _question({**row, "answers": answers}, unanswerable, where)


def check_ids(questions: Sequence[Question], where: str) -> None:
    """Refuse an id that comes twice: answers are known by them."""
    known: set[str] = set()
    for question in questions:
        known.add(check_question_id(question.id, known, where))


class Windows(Examples[Window]):
    """Features of windows; the rows are :class:`Window`, of these questions (none in training)."""

    def __init__(
        self, features: Sequence[Feature], rows: Sequence[Window], questions: Sequence[Question]
    ) -> None:
        super().__init__(features, rows)
        self.questions = questions


class SQuAD(TaskData[Question, Windows]):
    """SQuAD 1.1 or 2.0, with its metrics and its predictions."""

    task_type = "qa"
    num_labels = 2
    test_key = "f1"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        data_args: DataTrainingArguments,
        training_args: TrainingArguments,
        qa_args: QuestionAnwseringArguments,
    ) -> None:
        super().__init__(tokenizer, data_args, training_args)
        self.qa_args = qa_args
        self.unanswerable = self.name == "squad_v2"
        assert data_args.max_seq_length is not None
        self.max_seq_length = min(data_args.max_seq_length, tokenizer.model_max_length)
        self.stride = min(DOC_STRIDE, self.max_seq_length // 3)
        # To one length always: padding takes part in the loss over positions.
        self.data_collator = Collator(tokenizer, self.max_seq_length)

    def read(self, split: str) -> list[Question]:
        if self.data_args.is_own:
            seed = self.training_args.seed
            return split_rows(self.data_args, split, seed, self._own, lambda row: row.context)
        if self.data_args.data_dir is None:
            rows = read_hub(HUB[self.name], None, split)
            questions, where = questions_of_hub(rows, self.unanswerable), "the hub"
        else:
            part = "dev" if split == "validation" else split
            name = f"{part}-{VERSIONS[self.name]}.json"
            path = locate(self.data_args.data_dir, self.name, [name])
            questions, where = read_squad(path, self.unanswerable), str(path)
        check_ids(questions, where)
        return questions

    def _own(self, file: str, split: str) -> list[Question]:
        questions = own_questions(file, split, self.unanswerable)
        check_ids(questions, file)
        return questions

    def encode(self, rows: Sequence[Question], training: bool = False) -> Windows:
        """Questions -> windows; in training with the positions of the first answer."""
        features: list[Feature] = []
        windows: list[Window] = []
        before = 0
        for part in chunks(rows):
            self._check_lengths(part)
            encoded = self._tokenize(part)
            names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
            for i, number in enumerate(encoded["overflow_to_sample_mapping"]):
                offsets = context_offsets(encoded, i)
                feature: Feature = {k: np.array(encoded[k][i], dtype=np.int32) for k in names}
                if training:
                    start, end = answer_tokens(part[number], offsets)
                    feature |= {"start_positions": start, "end_positions": end}
                else:
                    windows.append(Window(before + number, offsets))
                features.append(feature)
            before += len(part)
        # As in the original, which counts windows in training only.
        limit = self.data_args.max_train_samples if training else None
        return Windows(cut(features, limit), windows, rows)

    def _check_lengths(self, rows: Sequence[Question]) -> None:
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        room = self.max_seq_length - special - self.stride - 1
        encoded = self.tokenizer([q.question for q in rows], add_special_tokens=False)
        for question, ids in zip(rows, encoded["input_ids"], strict=True):
            if len(ids) > room:
                raise UserError(
                    f"question {question.id} has {len(ids)} tokens, --max_seq_length "
                    f"{self.max_seq_length} has room for {room}: raise it"
                )

    def _tokenize(self, rows: Sequence[Question]) -> BatchEncoding:
        return self.tokenizer(
            [q.question for q in rows],
            [q.context for q in rows],
            truncation="only_second",
            max_length=self.max_seq_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    def predict(self, examples: Windows, logits: Outputs) -> Answers:
        """Answer the questions of ``examples``.

        Args:
            examples: ``eval_dataset`` or one of ``predict_datasets``.
            logits: of starts and of ends, each ``[windows, T]``.
        """
        starts, ends = logits[:2]
        for values in (starts, ends):
            check_finite(values, f"the logits of {self.name}")
        return postprocess_qa_predictions(
            examples.questions,
            examples.rows,
            starts,
            ends,
            unanswerable=self.unanswerable,
            n_best_size=self.qa_args.n_best_size,
            max_answer_length=self.qa_args.max_answer_length,
            null_score_diff_threshold=self.qa_args.null_score_diff_threshold,
        )

    def score(self, examples: Windows, answers: Answers) -> dict[str, float]:
        """exact_match and f1 (2.0: exact, f1, and both by kind of question), from 0 to 100."""
        accepted = {question.id: question.answers for question in examples.questions}
        scores = (qa.squad_v2 if self.unanswerable else qa.squad)(accepted, answers.texts)
        return defined(scores.values)

    def write_predictions(self, folder: Path, split: str, logits: Outputs) -> Path:
        """Write the answers to a key of ``predict_datasets``, as the official scripts take them."""
        self.predict(self.predict_datasets[split], logits).write(folder, split)
        return folder / f"{split}_predictions.json"


def context_offsets(encoded: BatchEncoding, i: int) -> np.ndarray:
    """The offsets of window ``i`` as :class:`Window` has them."""
    offsets = np.array(encoded["offset_mapping"][i], dtype=np.int32)
    inside = np.array([part == 1 for part in encoded.sequence_ids(i)])
    return np.where(inside[:, None], offsets, np.int32(-1))


def answer_tokens(question: Question, offsets: np.ndarray) -> tuple[int, int]:
    """First and last token of the first answer; twice 0, i.e. [CLS], if it is not in the window.

    Args:
        offsets: ``[T, 2]``, see :class:`Window`.
    """
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not question.answers or not len(inside):
        return 0, 0
    start, end = question.starts[0], question.starts[0] + len(question.answers[0])
    first, last = inside[0], inside[-1]
    if offsets[first, 0] > start or offsets[last, 1] < end:
        return 0, 0
    starts, ends = offsets[first : last + 1].T
    # The last token that begins at or before it, the first that ends at or after it.
    begin = first + np.searchsorted(starts, start, side="right") - 1
    return int(begin), int(first + np.searchsorted(ends, end, side="left"))
