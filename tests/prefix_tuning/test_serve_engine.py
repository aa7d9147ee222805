"""Continuous batching: rows join and leave between steps, and no text depends on its neighbours."""

from __future__ import annotations

import queue
import random
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SLIDING, tiny_model

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues
from prefix_tuning.bank import PrefixBank
from prefix_tuning.beam_search import beam_search
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.serve.engine import Engine, Late, QueueFull, Stopping
from prefix_tuning.serve.generation import Beams, Piece, Search, Text, Ticket
from prefix_tuning.serve.metrics import Metrics
from prefix_tuning.serve.rows import Rows
from prefix_tuning.serve.sampling import draw

END = 1
NAMES = {"short": 2, "long": 7, "middle": 4}


class Numbers:
    """A tokenizer whose text is the token ids."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return "".join(f"{token} " for token in tokens)


def make_bank(folder: Path, family: Any) -> PrefixBank:
    model = tiny_model(family)
    for seed, (name, length) in enumerate(NAMES.items()):
        torch.manual_seed(seed)
        prefix = FlatPrefix(model.config, length)
        checkpoint.export(folder / name, prefix, checkpoint.metadata(prefix, model, "tiny"))
    return PrefixBank(model, folder)


def solo(bank: PrefixBank, name: str | None, prompt: list[int], search: Search, seed: int) -> list:
    """Each text of a request, computed by plain forward calls over the whole text."""
    prefix = None
    if name is not None:
        prefix = KeyValues(checkpoint.load(bank.folder / name)[0].key_values())
    if search.num_beams > 1:
        prefix = prefix or bank.key_values([None])
        found = beam_search(
            bank.model,
            prefix,
            torch.tensor([prompt]),
            torch.ones(1, len(prompt), dtype=torch.long),
            eos_token_id=END,
            num_beams=search.num_beams,
            max_new_tokens=search.max_tokens,
            length_penalty=search.length_penalty,
            early_stopping=search.early_stopping,
        )[0]
        return [tokens[:-1] if tokens[-1] == END else tokens for tokens in found.tokens]
    chance, tokens = random.Random(seed), []
    while len(tokens) < search.max_tokens:
        logits = bank.model(torch.tensor([prompt + tokens]), prefix=prefix).logits[:, -1]
        token = int(logits.argmax())
        if search.temperature:
            uniform, warm, top_p = (
                torch.tensor([x], dtype=torch.float64)
                for x in (chance.random(), search.temperature, search.top_p)
            )
            token = int(draw(logits, uniform, warm, top_p))
        if token == END:
            break
        tokens.append(token)
    return [tokens]


SEARCHES = [
    Search(8),
    Search(12, temperature=0.9),
    Search(5, temperature=0.7, top_p=0.8),
    Search(7, num_beams=3),
    Search(3, num_beams=2),
    Search(9, num_beams=3, length_penalty=-4.0, early_stopping=True),
]


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_texts_equal_those_decoded_alone(tmp_path: Path, family: str) -> None:
    bank, chance = make_bank(tmp_path, family), random.Random(3)
    engine = Engine(bank, max_rows=7, max_waiting=500)  # few rows: many join where others left
    expected, found = {}, {}
    done: queue.Queue[tuple[int, Piece | Exception]] = queue.Queue()
    n_text = 0
    for i in range(40):
        name, search = chance.choice([*NAMES, None]), chance.choice(SEARCHES)
        prompt = [chance.randrange(3, 50) for _ in range(chance.randrange(1, 9))]
        expected[i] = solo(bank, name, prompt, search, seed=i)
        ticket = Ticket(lambda piece, i=i: done.put((i, piece)), name, seconds=60)
        common = (ticket, prompt, 0, search, [END], Numbers())
        beams = search.num_beams
        engine.submit([Beams(*common, n_text=beams) if beams > 1 else Text(*common, seed=i)])
        n_text += beams
    most: list[int] = []
    bank.model.register_forward_pre_hook(lambda *_: most.append(engine.n_running))
    engine.start()
    for _ in range(n_text):
        i, piece = done.get(timeout=60)
        assert isinstance(piece, Piece), piece
        found.setdefault(i, {})[piece.index] = [int(token) for token in piece.text.split()]
    engine.stop()
    assert {i: [texts[j] for j in sorted(texts)] for i, texts in found.items()} == expected
    assert max(most) == 7
    assert engine.steps < 0.5 * sum(len(text) + 1 for texts in expected.values() for text in texts)


class Client:
    """Submits texts of one prompt, and collects what comes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.heard: queue.Queue[Piece | Exception] = queue.Queue()

    def ask(self, max_tokens: int, n: int = 1, seconds: float = 60, **options: Any) -> Ticket:
        ticket = Ticket(self.heard.put, options.pop("prefix", "short"), seconds, stream=True)
        search = Search(max_tokens, **options)
        ends: list[int] = []  # texts go on to their full length
        parts = [Text(ticket, [5, 6], i, search, ends, Numbers(), 0) for i in range(n)]
        self.engine.submit(parts)
        return ticket


def test_a_full_queue_refuses_and_a_stopped_engine_finishes(tmp_path: Path) -> None:
    engine = Engine(make_bank(tmp_path, "gpt2"), max_rows=2, max_waiting=1)
    client = Client(engine)
    client.ask(5, n=3)
    with pytest.raises(QueueFull):
        client.ask(5)
    engine.start()
    engine.stop()
    pieces = [client.heard.get_nowait() for _ in range(15)]
    assert sum(piece.finish_reason == "length" for piece in pieces) == 3
    with pytest.raises(Stopping):
        client.ask(5)


def test_whoever_has_an_answer_may_ask_again_at_once(tmp_path: Path) -> None:
    """Though the row of the last text, or of one that is late, is free a moment later."""
    engine = Engine(make_bank(tmp_path, "gpt2"), max_rows=1, max_waiting=0)
    client, answers = Client(engine), []

    def ask_again(piece: Piece | Exception) -> None:
        answers.append(piece)
        if len(answers) < 4:
            seconds = 0.0 if len(answers) % 2 else 60
            ticket = Ticket(ask_again, "short", seconds)
            engine.submit([Text(ticket, [5, 6], 0, Search(1), [], Numbers(), 0)])
        else:
            client.ask(1)

    engine.start()
    engine.submit([Text(Ticket(ask_again, "short", 60), [5, 6], 0, Search(1), [], Numbers(), 0)])
    assert client.heard.get(timeout=20).finish_reason == "length"
    engine.stop()
    assert [type(answer) for answer in answers] == [Piece, Late, Piece, Late]


def test_given_up_and_late_requests_leave_their_rows(tmp_path: Path) -> None:
    engine = Engine(make_bank(tmp_path, "gpt2"), max_rows=1)
    client = Client(engine)
    first = client.ask(50)
    client.ask(50, seconds=0.0)
    engine.start()
    heard = [client.heard.get(timeout=20) for _ in range(4)]
    assert Late in map(type, heard)  # at once, and not when there is a row
    first.cancel()
    while client.engine.n_running:
        threading.Event().wait(0.01)
    client.ask(2)
    engine.stop()
    heard += list(client.heard.queue)
    assert sum(isinstance(piece, Late) for piece in heard) == 1
    assert heard[-1].finish_reason == "length"
    assert heard[-1].n_token == 2


def test_a_failure_of_the_model_ends_what_runs_and_nothing_else(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, "gpt2")
    engine, client = Engine(bank), Client(Engine(bank))
    client.engine = engine
    broken = bank.model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    client.ask(4)
    engine.start()
    assert isinstance(client.heard.get(timeout=20), ZeroDivisionError)
    broken.remove()
    client.ask(1)
    assert client.heard.get(timeout=20).finish_reason == "length"
    engine.stop()


def test_a_failure_of_one_text_leaves_those_beside_it(tmp_path: Path) -> None:
    engine = Engine(make_bank(tmp_path, "gpt2"))
    client, heard = Client(engine), []
    ticket = Ticket(heard.append, "long", 60)
    search = Search(4, num_beams=2, length_penalty=1e6)  # no length to this power is a number
    engine.submit([Beams(ticket, [5, 6], 0, search, [END], Numbers(), n_text=2)])
    client.ask(8)
    engine.start()
    engine.stop()
    assert [type(error) for error in heard] == [OverflowError]
    assert [*client.heard.queue][-1].n_token == 8


def test_what_can_never_run_is_refused(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, "gpt2")
    engine = Engine(bank, max_rows=2)
    ticket = Ticket(print, "long", 60)

    def check(prompt: list[int], search: Search, name: str | None) -> None:
        ticket.prefix = name
        kind = Beams if search.num_beams > 1 else Text
        engine.check(kind(ticket, prompt, 0, search, [END], Numbers(), 1))

    check([5] * 50, Search(7), "long")
    for prompt, search, name, message in [
        ([5] * 50, Search(8), "long", "7 positions and 58 tokens do not fit into the 64"),
        ([5] * 50, Search(15), None, "65 tokens do not fit"),
        ([5], Search(5, num_beams=3), None, "3 beams are more than the 2 rows"),
        ([5], Search(5), "nobody", "has no prefix 'nobody'"),
    ]:
        with pytest.raises(UserError, match=message):
            check(prompt, search, name)


def test_prompt_and_output_stay_within_a_sliding_window(tmp_path: Path) -> None:
    engine = Engine(make_bank(tmp_path, SLIDING))
    for n_token, refused in ((5, False), (6, True)):
        text = Text(Ticket(print, None, 60), [5] * 3, 0, Search(n_token), [END], Numbers(), 0)
        with pytest.raises(UserError, match="sliding window of 8") if refused else nullcontext():
            engine.check(text)


def test_a_prefix_that_grew_since_the_request_came_is_refused(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, "gpt2")
    engine, heard = Engine(bank), []
    parts = [Text(Ticket(heard.append, "short", 60), [5] * 50, 0, Search(12), [], Numbers(), 0)]
    engine.check(parts[0])
    engine.submit(parts)
    prefix = checkpoint.load(tmp_path / "long")[0]
    checkpoint.export(tmp_path / "short", prefix, checkpoint.metadata(prefix, bank.model, "tiny"))
    engine.start()
    engine.stop()
    assert "7 positions and 62 tokens do not fit" in str(heard[0])


def test_a_short_prompt_beside_one_that_fills_the_positions(tmp_path: Path) -> None:
    """Its padding would lie behind the table."""
    bank = make_bank(tmp_path, "gpt2")
    rows, prompts, names = Rows(bank.model), [[5] * 64, [6, 8]], [None, "long"]
    for name in names:
        rows.join(bank.key_values([name]))
    found = rows.read(0, prompts)
    for row, prompt, name in zip(found, prompts, names, strict=True):
        alone = bank.model(torch.tensor([prompt]), prefix=bank.key_values([name])).logits[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


def test_a_beam_that_stops_at_a_word_says_so(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, "gpt2")
    whole = solo(bank, "short", [5, 6], Search(6, num_beams=2), 0)[0]
    heard: list[Any] = []
    search = Search(6, num_beams=2, stop=(f" {whole[2]} ",))
    engine = Engine(bank)
    ticket = Ticket(heard.append, "short", 60)
    engine.submit([Beams(ticket, [5, 6], 0, search, [END], Numbers(), n_text=1)])
    engine.start()
    engine.stop()
    first = "".join(f"{token} " for token in whole).split(search.stop[0])[0]
    assert [(piece.text, piece.finish_reason) for piece in heard] == [(first, "stop")]


def test_stop_strings_and_halves_of_characters_are_not_sent(tmp_path: Path) -> None:
    class Letters:
        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return bytes(tokens).decode("utf-8", "replace")

    def send(text: str, stop: tuple[str, ...]) -> list[Piece]:
        pieces: list[Any] = []
        ticket = Ticket(pieces.append, None, 60, stream=True)
        part = Text(ticket, [5], 0, Search(99, stop=stop), [0], Letters(), 0)
        for byte in [*text.encode(), 0]:
            if not part.accept(byte):
                break
        return pieces

    pieces = send("für € END danach", ("END",))
    assert "".join(piece.text for piece in pieces) == "für € "
    assert pieces[-1].finish_reason == "stop"
    search = Search(99, stop=("nach", "END"))  # the first in the text, not of the request
    part = Text(Ticket(print, None, 60), [5], 0, search, [0], Letters(), 0)
    assert part.text_of([*"für € END danach".encode()]) == ("für € ", True)
    pieces = send("für €", ())
    assert [piece.text for piece in pieces] == ["f", "ü", "r", " ", "€", ""]


def test_a_histogram_by_hand() -> None:
    metrics = Metrics()
    for seconds in (0.05, 0.06, 99.0):
        metrics.answered("/health", 200, seconds)
    lines = metrics.render({"rows": 3}, {"steps_total": 4}).splitlines()
    counts = [line.split()[1] for line in lines if "_bucket{" in line]
    assert counts == ["1", *["2"] * 9, "3"]
    assert "prefix_tuning_request_seconds_sum 99.110000" in lines
    assert "# TYPE prefix_tuning_steps_total counter" in lines


def test_tokens_of_a_row_are_numbered_from_where_its_prefix_says(tmp_path: Path) -> None:
    bank = make_bank(tmp_path, "gpt2")
    layers = checkpoint.load(tmp_path / "long", bank.model)[0].key_values()
    rows, expected = Rows(bank.model), []
    for offset in (7, 0, 3):  # of seven slots
        front = KeyValues(layers, offset)
        rows.join(front)
        expected.append(bank.model(torch.tensor([[5, 6, 8]]), prefix=front).logits[0, -1])
    found = rows.read(0, [[5, 6, 8]] * 3)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
