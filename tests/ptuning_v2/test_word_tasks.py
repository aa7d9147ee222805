"""NER and SRL: files, the label of every word, batches, metrics, predictions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import official_files
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics
from transformers.trainer_utils import EvalPrediction

from evaluation import tagging
from prefix_tuning.errors import UserError
from ptuning_v2.tasks.ner.dataset import COLUMNS, NERDataset, read_columns
from ptuning_v2.tasks.srl.dataset import SRLDataset, read_predicates
from ptuning_v2.tasks.words import Aligner, Sentence, best_labels, first_tokens

CONLL2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

German JJ B-NP B-MISC
call NN I-NP O"""

# Files


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\n\n", "\n-DOCSTART- -X- -X- O\n\n"])
def test_columns_with_any_end(write, end):
    sentences = read_columns(write("train.txt", CONLL2003 + end))
    assert [s.words for s in sentences] == [("EU", "rejects"), ("German", "call")]
    assert [s.tags for s in sentences] == [("B-ORG", "O"), ("B-MISC", "O")]
    assert sentences[1].where.endswith("train.txt, line 6")


def test_columns_of_ontonotes_and_wnut(write):
    text = "1\tThe cat\t_\tDT\tB-ORG\n2\t\u3000\t_\tNN\tO\n"
    (sentence,) = read_columns(write("train.sd.conllx", text), token_column=1)
    assert sentence.words == ("The cat", "\u3000")
    (first, second) = read_columns(write("dev.conll", "a\tO\n\t\nb\tB-person\n\t\n"))
    assert (first.words, second.tags) == (("a",), ("B-person",))


def test_malformed_files(write):
    with pytest.raises(UserError, match=r"train\.txt, line 2: 1 columns"):
        read_columns(write("train.txt", "EU B-ORG\nrejects\n"))
    for line, message in [
        ("0 a b O O", "expected INDEX words"),
        ("one a ||| O", "expected INDEX words"),
        ("||| O", "expected INDEX words"),
        (f"{'9' * 5000} a ||| O", "expected INDEX words"),
        ("0 a b ||| O", "2 words, but 1 tags"),
        ("2 a b ||| O O", "predicate 2, but there are 2 words"),
    ]:
        with pytest.raises(UserError, match=r"srl\.txt, line 3: " + message):
            read_predicates(write("srl.txt", f"0 ran ||| B-V\n\n{line}\n"))


def test_labels_of_the_data_sets():
    counts = {name: len(layout.labels) for name, layout in COLUMNS.items()}
    assert counts == {"conll2003": 9, "conll2004": 9, "ontonotes": 37, "wnut17": 13}
    assert COLUMNS["ontonotes"].labels[36] == "O"
    assert COLUMNS["conll2003"].labels[:3] == ("O", "B-PER", "I-PER")


_WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=6)
_TAGGED = st.lists(
    st.lists(st.tuples(_WORD, st.sampled_from(["O", "B-Loc", "I-Loc"])), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


@given(_TAGGED, st.sampled_from([" ", "\t"]), st.integers(0, 2))
def test_any_sentences_survive_a_file(tmp_path_factory, sentences, separator, blank_lines):
    path = tmp_path_factory.mktemp("ner") / "train.txt"
    blocks = ["\n".join(separator.join(pair) for pair in sentence) for sentence in sentences]
    path.write_bytes(("\n\n".join(blocks) + "\n" * blank_lines).encode())
    found = [list(zip(s.words, s.tags, strict=True)) for s in read_columns(path)]
    assert found == sentences


@given(_TAGGED, st.randoms(use_true_random=False))
def test_any_predicates_survive_a_file(tmp_path_factory, sentences, random):
    path = tmp_path_factory.mktemp("srl") / "srl.txt"
    lines, expected = [], []
    for sentence in sentences:
        words, tags = (tuple(column) for column in zip(*sentence, strict=True))
        if "|||" in words or "|||" in "".join(words):
            continue
        predicate = random.randrange(len(words))
        lines.append(f"{predicate} {' '.join(words)} ||| {' '.join(tags)}")
        expected.append((predicate, words, tags))
    path.write_bytes(("\n".join(["0 a ||| O", *lines])).encode())
    found = [(s.predicate, s.words, s.tags) for s in read_predicates(path)]
    assert found[1:] == expected


# Labels on sub-tokens


def _sentence(words, tags, predicate=None):
    return Sentence(tuple(words.split()), tuple(tags.split()), "train.txt, line 1", predicate)


def test_the_first_piece_carries_the_label(bert_tokenizer):
    aligner = Aligner(bert_tokenizer, ["O", "B-X", "I-X"], 512)
    (feature,) = aligner.encode([_sentence("The playing xyz", "O B-X I-X")])
    tokens = bert_tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens == "[CLS] the play ##ing x ##y ##z [SEP]".split()
    assert feature["labels"] == [-100, 0, 1, -100, 2, -100, -100, -100]


def test_predicate_is_appended_without_labels(bert_tokenizer, roberta_word_tokenizer):
    sentence = _sentence("a dog played", "B-A0 I-A0 B-V", predicate=2)
    (feature,) = Aligner(bert_tokenizer, ["B-A0", "I-A0", "B-V"], 512).encode([sentence])
    tokens = bert_tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens == "[CLS] a dog play ##ed [SEP] play ##ed [SEP]".split()
    assert feature["labels"] == [-100, 0, 1, 2] + [-100] * 5
    # RoBERTa's pieces of "[SEP]" carry no label either, and there are labels for all of them.
    aligner = Aligner(roberta_word_tokenizer, ["B-A0", "I-A0", "B-V"], 512)
    (feature,) = aligner.encode([sentence])
    assert len(feature["labels"]) == len(feature["input_ids"])
    assert [label for label in feature["labels"] if label != -100] == [0, 1, 2]
    text = roberta_word_tokenizer.decode(feature["input_ids"], skip_special_tokens=True)
    assert text.strip() == "a dog played [SEP] played"


def test_words_without_a_piece_have_no_label(bert_tokenizer):
    # BERT's normalizer removes zero-width characters.
    (feature,) = Aligner(bert_tokenizer, ["O", "B-X"], 512).encode(
        [_sentence("cat \u200d dog", "O B-X O")]
    )
    assert feature["labels"] == [-100, 0, 0, -100]


def test_long_rows_lose_whole_words(bert_tokenizer):
    # 2 special tokens and pieces of 1, 2 and 3: 8 in all.
    sentence = _sentence("The playing xyz", "O B-X O")
    for limit, expected in ((8, 3), (7, 2), (5, 2), (4, 1), (3, 1)):
        (feature,) = Aligner(bert_tokenizer, ["O", "B-X"], limit).encode([sentence])
        assert sum(label != -100 for label in feature["labels"]) == expected
        assert len(feature["labels"]) == len(feature["input_ids"]) <= limit
    # A single word that is too long keeps its first pieces.
    (feature,) = Aligner(bert_tokenizer, ["O", "B-X"], 4).encode([_sentence("xyz", "B-X")])
    assert feature["labels"] == [-100, 1, -100, -100]


def test_cut_sentences_are_counted_once(parse, write, bert_tokenizer, capsys):
    write("valid.txt", "xyz O\nxyz O\n\nThe O\n")
    data = NERDataset(bert_tokenizer, *parse("ner", "conll2003")[1:3], max_tokens=5).load()
    assert "1 of 2 sentences of conll2003 lose words at their end" in capsys.readouterr().out
    data.encode([_sentence("The", "O")])
    assert "lose words" not in capsys.readouterr().out


def test_long_rows_keep_the_predicate(bert_tokenizer):
    sentence = _sentence("a cat sat on the mat", "O O B-V O O O", predicate=2)
    (feature,) = Aligner(bert_tokenizer, ["O", "B-V"], 7).encode([sentence])
    tokens = bert_tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens == "[CLS] a cat sat [SEP] sat [SEP]".split()
    assert feature["labels"] == [-100, 0, 0, 1, -100, -100, -100]


@given(st.lists(_WORD, min_size=1, max_size=8), st.data())
@pytest.mark.parametrize("kind", ["bert", "roberta_word"])
def test_alignment_of_any_words(request, kind, words, data):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    predicate = data.draw(st.none() | st.integers(0, len(words) - 1))
    tags = [str(number) for number in range(len(words))]
    sentence = Sentence(tuple(words), tuple(tags), "x", predicate)
    labels = Aligner(tokenizer, tags, 512).encode([sentence])[0]["labels"]
    # Pieces of each word alone, as the original counts them; the words follow one another.
    encoded = [tokenizer([w], is_split_into_words=True, add_special_tokens=False) for w in words]
    lengths = [len(e["input_ids"]) for e in encoded]
    expected = [-100]
    for number, length in enumerate(lengths):
        expected += [number, *[-100] * (length - 1)] if length else []
    assert labels[: len(expected)] == expected
    assert set(labels[len(expected) :]) == {-100}
    assert first_tokens([None, 0, 0, 2, 2, None]) == {0: 1, 2: 3}


def test_unknown_tags(bert_tokenizer):
    with pytest.raises(UserError, match=r"train\.txt, line 1: tag 'B-GPE' is none of O, B-LOC"):
        Aligner(bert_tokenizer, ["O", "B-LOC"], 512).encode([_sentence("cat", "B-GPE")])


# Data sets


def test_ner_run(parse, write, bert_tokenizer, tmp_path):
    for split in ("train", "valid", "test"):
        write(f"CoNLL03/{split}.txt", CONLL2003 + "\n")
    flags = ("do_train", "do_eval", "do_predict")
    data = NERDataset(bert_tokenizer, *parse("ner", "conll2003", *flags)[1:3]).load()
    assert (data.num_labels, data.test_key, data.task_type) == (9, "f1", "token")
    batch = data.data_collator(data.train_dataset.features)
    assert batch["labels"].shape == batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["labels"][0][1] == data.label_list.index("B-ORG")
    # The right answer everywhere, but for the last word of the second sentence.
    ids = np.where(batch["labels"] == -100, 8, batch["labels"])
    last = max(i for i, label in enumerate(batch["labels"][1]) if label != -100)
    ids[1, last] = data.label_list.index("I-MISC")
    logits = np.eye(9)[ids]
    found = data.compute_metrics(EvalPrediction(logits, batch["labels"].numpy()), ())
    assert found == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.75}
    assert found == data.compute_metrics(EvalPrediction(ids, batch["labels"].numpy()), ())
    path = data.write_predictions(tmp_path / "out", "test", logits)
    expected = "EU B-ORG B-ORG\nrejects O O\n\nGerman B-MISC B-MISC\ncall O I-MISC\n\n"
    assert path.read_text(encoding="utf-8") == expected
    scores = tagging.score(
        tagging.read_tags(tmp_path / "CoNLL03" / "test.txt"), tagging.read_tags(path)
    )
    assert scores["overall"].values == pytest.approx(found)


def test_ner_without_do_predict_and_with_room_for_a_prefix(parse, write, bert_tokenizer):
    write("valid.txt", "The O\nxyz O\n")
    arguments = parse("ner", "conll2003", max_seq_length=2)[1:3]
    data = NERDataset(bert_tokenizer, *arguments, max_tokens=4).load()
    assert data.predict_datasets == {}
    assert len(data.eval_dataset[0]["input_ids"]) == 3
    assert data.max_tokens == 4
    assert NERDataset(bert_tokenizer, *arguments, max_tokens=10**6).max_tokens == 512
    # No chunk to find: accuracy only.
    found = data.compute_metrics(
        EvalPrediction(np.zeros((1, 3), int), np.array([[-100, 0, -100]])), ()
    )
    assert found == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}
    trained = NERDataset(bert_tokenizer, *arguments, label_list=["B-PER", "O"]).load()
    assert trained.eval_dataset[0]["labels"] == [-100, 1, 1, -100, -100, -100]


def test_srl_run(parse, write, bert_tokenizer, tmp_path):
    line = "1 a dog played ||| B-A0 I-A0 B-V"
    write("CoNLL05/conll05.train.txt", f"{line}\n\n2 the cat sat ||| O O B-V\n")
    for part in ("devel", "test.wsj", "test.brown"):
        write(f"CoNLL05/conll05.{part}.txt", f"{line}\n{line}\n")
    flags = ("do_train", "do_eval", "do_predict")
    arguments = parse("srl", "conll2005", *flags, max_predict_samples=1, max_eval_samples=2)
    data = SRLDataset(bert_tokenizer, *arguments[1:3], max_tokens=7).load()
    assert data.label_list == ["B-A0", "B-V", "I-A0", "O"]
    sizes = {name: len(examples) for name, examples in data.predict_datasets.items()}
    assert sizes == {"test_wsj": 1, "test_brown": 1}
    assert (len(data.train_dataset), len(data.eval_dataset)) == (2, 2)
    # [CLS] a dog [SEP] dog [SEP]: "played" is two pieces, which 7 tokens have no room for.
    assert data.predict_datasets["test_wsj"][0]["labels"] == [-100, 0, 2, -100, -100, -100]
    logits = np.eye(4)[np.array([[0, 0, 2, 1, 0, 0]])]
    path = data.write_predictions(tmp_path / "out", "test_wsj", logits)
    assert path.name == "test_wsj_predictions.txt"
    assert path.read_text(encoding="utf-8") == "1 a dog played ||| B-A0 I-A0 O\n"
    assert tagging.read_tags(path) == [["B-A0", "I-A0", "O"]]


def test_words_cut_off_are_predicted_as_o(parse, write, bert_tokenizer, tmp_path):
    write("test.txt", "cat B-LOC\ndog I-LOC\nmat I-LOC\n")
    data = NERDataset(
        bert_tokenizer, *parse("ner", "conll2003", "do_predict")[1:3], max_tokens=4
    ).load()
    location = data.label_list.index("B-LOC")
    path = data.write_predictions(tmp_path, "test", np.full((1, 4), location))
    tags = tagging.read_tags(path)
    assert tags == [["B-LOC", "B-LOC", "O"]]


def test_missing_srl_files(parse, write, bert_tokenizer):
    with pytest.raises(UserError, match=r"neither CoNLL12/conll2012\.train\.txt"):
        SRLDataset(bert_tokenizer, *parse("srl", "conll2012")[1:3]).load()
    write("conll2012.train.txt", "0 ran ||| B-V\n")
    with pytest.raises(UserError, match=r"neither CoNLL12/conll2012\.devel\.txt"):
        SRLDataset(bert_tokenizer, *parse("srl", "conll2012")[1:3]).load()


@given(st.lists(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC"]), min_size=1, max_size=5),
                min_size=1, max_size=5), st.randoms(use_true_random=False))  # fmt: skip
def test_metrics_equal_seqeval(ner_data, gold, random):
    data = ner_data
    gold = [["B-PER"], *gold]
    predicted = [[random.choice(["O", "B-PER", "I-PER"]) for _ in tags] for tags in gold]

    def padded(sentences):
        rows = [[data.label_list.index(tag) for tag in tags] for tags in sentences]
        return np.array([[-100, *row, *[-100] * (6 - len(row))] for row in rows])

    found = data.compute_metrics(EvalPrediction(padded(predicted), padded(gold)), ())
    assert found == pytest.approx(
        {
            "precision": metrics.precision_score(gold, predicted, zero_division=0),
            "recall": metrics.recall_score(gold, predicted, zero_division=0),
            "f1": metrics.f1_score(gold, predicted, zero_division=0),
            "accuracy": metrics.accuracy_score(gold, predicted),
        }
    )


@pytest.fixture(scope="module")
def ner_data_of(bert_tokenizer, tmp_path_factory):
    from ptuning_v2.arguments import get_args

    folder = tmp_path_factory.mktemp("ner")
    (folder / "valid.txt").write_text(CONLL2003, encoding="utf-8")
    flags = f"--task_name ner --dataset_name conll2003 --data_dir {folder} --do_eval"
    arguments = get_args([*flags.split(), "--model_name_or_path", "m", "--output_dir", "o"])
    return lambda labels=None: NERDataset(bert_tokenizer, *arguments[1:3], label_list=labels)


@pytest.fixture(scope="module")
def ner_data(ner_data_of):
    return ner_data_of().load()


@pytest.mark.parametrize("name", official_files("classification_qa_ner"))
def test_official_ner_numbers(shared, ner_data_of, name):
    """Whatever the labels are."""
    path = shared / "vectors" / "metrics" / f"{name}.json"
    official = json.loads(path.read_text(encoding="utf-8"))["ner"]
    named = {tag for side in ("preds", "labels") for row in official[side] for tag in row}
    tags = sorted(named.union(COLUMNS["conll2003"].labels))
    width = max(map(len, official["labels"]))

    def padded(sentences):
        rows = [[tags.index(tag) for tag in row] for row in sentences]
        return np.array([row + [-100] * (width - len(row)) for row in rows])

    p = EvalPrediction(padded(official["preds"]), padded(official["labels"]))
    assert ner_data_of(tags).load().compute_metrics(p, ()) == pytest.approx(official["seqeval"])


def test_best_labels_of_a_batch():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
    assert best_labels(logits, logits).tolist() == [[1, 0]]
    assert best_labels((logits, None), logits).tolist() == [[1, 0]]


# Real files


@pytest.mark.parametrize(
    ("file", "sentences", "tokens"),
    # Blocks between blank lines and lines with a token, counted by other means.
    [("wnut17train.conll", 3394, 62730), ("emerging.test.annotated", 1287, 23394)],
)
def test_wnut17_files(shared, file, sentences, tokens):
    rows = read_columns(shared / "data" / "ner" / "wnut17" / file)
    assert len(rows) == sentences
    assert sum(len(row.words) for row in rows) == tokens
    assert {tag for row in rows for tag in row.tags} == set(COLUMNS["wnut17"].labels)


def test_wnut17_run(shared, parse, bert_tokenizer):
    folder = str(shared / "data" / "ner" / "wnut17")
    arguments = parse("ner", "wnut17", data_dir=folder)[1:3]
    data = NERDataset(bert_tokenizer, *arguments, max_tokens=100).load()
    labels = np.array([len(f["labels"]) for f in data.eval_dataset.features])
    assert len(labels) == 1009
    assert labels.max() <= 100
    batch = data.data_collator(data.eval_dataset.features)
    found = data.compute_metrics(
        EvalPrediction(np.maximum(batch["labels"].numpy(), 0), batch["labels"].numpy()), ()
    )
    assert found["f1"] == found["accuracy"] == 1.0


def test_columns_and_tags_of_every_line(write):
    for line, message in [
        ("a O O", "3 columns, the first line has 2"),
        ("a L-PER", "tag 'L-PER'; tags of BILOU are not scored"),
        ("a U-PER", "tag 'U-PER'; tags of BILOU are not scored"),
        ("a o", "tag 'o'; expected O"),
        ("a B", "tag 'B'; expected O"),
        ("\tO", "the token is empty"),
    ]:
        with pytest.raises(UserError, match=r"train\.txt, line 3: " + message):
            read_columns(write("train.txt", f"b B-PER\n\n{line}\n"))


def test_words_that_begin_as_documents_and_lone_carriage_returns(write):
    text = "-DOCSTART- O\r\r-DOCSTART-x B-PER\rb O\r\rc O\r"
    first, second = read_columns(write("train.txt", text))
    assert (first.words, second.words) == (("-DOCSTART-x", "b"), ("c",))


def test_logits_that_are_not_finite_give_no_tag():
    logits = torch.zeros(2, 3, 4)
    logits[1, 2, 1] = torch.nan
    assert best_labels(torch.zeros(2, 3, 4), logits).shape == (2, 3)
    with pytest.raises(UserError, match="not finite numbers, which predict nothing"):
        best_labels(logits, logits)
