"""The service over loopback: the openai client, streams, limits, clients that vanish, SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
httpx = pytest.importorskip("httpx")

import uvicorn
from conftest import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues
from prefix_tuning.bank import PrefixBank
from prefix_tuning.beam_search import beam_search
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.serve.__main__ import main, parse_args
from prefix_tuning.serve.app import create_app
from prefix_tuning.serve.engine import Engine
from prefix_tuning.serve.protocol import ChatRequest, CompletionRequest
from prefix_tuning.serve.service import Service, Settings, _disconnected
from prefix_tuning.shape import PrefixShape

KEY = "secret"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PROMPT = "name : The Vaults"


def write_prefixes(folder: Path, model: Any) -> None:
    for seed, length in enumerate((3, 8)):
        torch.manual_seed(seed)
        prefix = FlatPrefix(model.config, length)
        home = folder / f"p{length}"
        checkpoint.export(home, prefix, checkpoint.metadata(prefix, model, "tiny"))


class Running:
    """A service in a thread of the test's process."""

    def __init__(self, folder: Path, prefixes: Path, **options: Any) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.chat_template = TEMPLATE
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        write_prefixes(prefixes, self.model)
        self.bank = PrefixBank(self.model, prefixes)
        sizes = {key: options.pop(key) for key in ("max_rows", "max_waiting") if key in options}
        self.engine = Engine(self.bank, **sizes)
        self.settings = Settings(base_name="base", **{"api_key": KEY, "timeout": 30.0, **options})
        app = create_app(self.engine, self.tokenizer, self.settings)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        headers = {"Authorization": f"Bearer {KEY}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self.client = openai.OpenAI(
            base_url=self.url + "/v1", api_key=KEY, max_retries=0, timeout=30
        )

    def post(self, **body: Any) -> Any:
        body = {"model": "p3", "prompt": PROMPT, "max_tokens": 4, "temperature": 0, **body}
        return self.http.post("/v1/completions", json=body)

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def greedy(self, name: str | None, text: str, n_token: int = 6) -> str:
        ids = self.tokenizer(text, return_tensors="pt").input_ids
        given = {}
        if name is not None:
            given["prefix"] = KeyValues(checkpoint.load(self.bank.folder / name)[0].key_values())
        output = self.model.generate(ids, max_new_tokens=n_token, do_sample=False, **given)
        return self.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def running(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    service = Running(tiny_folder, tmp_path_factory.mktemp("prefixes"), max_body=5000)
    yield service
    service.stop()


def error_of(answer: Any) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_models_are_the_prefixes(running: Running) -> None:
    assert [model.id for model in running.client.models.list()] == ["base", "p3", "p8"]
    assert running.client.models.retrieve("p8").id == "p8"
    with pytest.raises(openai.NotFoundError):
        running.client.models.retrieve("p9")


def test_completions_equal_generate(running: Running) -> None:
    texts = set()
    for name in ("p3", "p8", "base"):
        answer = running.client.completions.create(
            model=name, prompt=[PROMPT, "food"], max_tokens=6, temperature=0
        )
        own = None if name == "base" else name
        expected = [running.greedy(own, PROMPT), running.greedy(own, "food")]
        assert [choice.text for choice in answer.choices] == expected
        n_prompt = sum(len(running.tokenizer(text).input_ids) for text in (PROMPT, "food"))
        assert answer.usage.prompt_tokens == n_prompt
        texts.update(expected)
    assert len(texts) > 3


def test_choices_stand_in_the_order_of_the_prompts(running: Running) -> None:
    """Though the first to end is a text of the last prompt."""
    long, short = running.greedy("p3", PROMPT, 4), running.greedy("p3", "food", 4)
    stop = next(letter for letter in short if letter not in long)
    answer = running.post(prompt=[PROMPT, "food"], n=2, stop=stop).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [long, long, *[short.split(stop)[0]] * 2]


def test_what_the_model_and_a_template_say_of_special_tokens(running: Running) -> None:
    """All its ends end a text, the tokenizer's first; a template brings its own beginning."""

    class Beginning:
        chat_template, eos_token_id = "some", 3

        def apply_chat_template(self, turns: Any, **options: Any) -> str:
            return "a chat"

        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
            return SimpleNamespace(input_ids=[0] * add_special_tokens + [7])

    config = running.model.generation_config
    before, config.eos_token_id = config.eos_token_id, [5, 3]
    try:
        service = Service(running.engine, Beginning(), running.settings)
    finally:
        config.eos_token_id = before
    assert service.ends == [3, 5]
    turns = [{"role": "user", "content": "a"}]
    assert service.prompts(ChatRequest(model="p3", messages=turns)) == [[7]]
    assert service.prompts(CompletionRequest(model="p3", prompt="a")) == [[0, 7]]


def test_beams_and_n(running: Running) -> None:
    ids = running.tokenizer(PROMPT, return_tensors="pt").input_ids
    prefix = KeyValues(checkpoint.load(running.bank.folder / "p8")[0].key_values())
    options = {"eos_token_id": 0, "num_beams": 4, "max_new_tokens": 6}
    found = beam_search(running.model, prefix, ids, torch.ones_like(ids), **options)[0]
    expected = [
        running.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in found.tokens
    ]
    answer = running.client.completions.create(
        model="p8", prompt=ids[0].tolist(), max_tokens=6, n=3, extra_body={"num_beams": 4}
    )
    assert [choice.text for choice in answer.choices] == expected[:3]
    drawn = running.client.completions.create(model="p8", prompt=PROMPT, max_tokens=6, n=3, seed=5)
    again = running.client.completions.create(model="p8", prompt=PROMPT, max_tokens=6, n=3, seed=5)
    texts = [choice.text for choice in drawn.choices]
    assert texts == [choice.text for choice in again.choices]
    assert len(set(texts)) > 1


def test_the_smallest_temperatures_are_greedy(running: Running) -> None:
    greedy = running.post(max_tokens=12).json()["choices"]
    assert running.post(max_tokens=12, temperature=1e-320).json()["choices"] == greedy


def test_streams_join_to_the_same_text(running: Running) -> None:
    stream = running.client.completions.create(
        model="p3",
        prompt=PROMPT,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == running.greedy("p3", PROMPT, 12)
    assert chunks[-2].choices[0].finish_reason in {"length", "stop"}
    assert chunks[-1].usage.completion_tokens <= 12
    one = running.post(stream=True, stream_options={"include_usage": True}, max_tokens=1)
    used = json.loads(one.text.split("data: ")[-2])["usage"]
    n_prompt = len(running.tokenizer(PROMPT).input_ids)
    assert used == {
        "prompt_tokens": n_prompt,
        "completion_tokens": 1,
        "total_tokens": n_prompt + 1,
    }


def test_chat_uses_the_template(running: Running) -> None:
    turns = [{"role": "user", "content": "name : Aromi"}]
    expected = running.greedy("p8", "user: name : Aromi\n")
    ask = {"model": "p8", "messages": turns, "max_completion_tokens": 6, "temperature": 0}
    answer = running.client.chat.completions.create(**ask)
    assert answer.choices[0].message.content == expected
    chunks = [*running.client.chat.completions.create(**ask, stream=True)]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == expected
    template, running.tokenizer.chat_template = running.tokenizer.chat_template, None
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        running.client.chat.completions.create(**ask)
    running.tokenizer.chat_template = template


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "p9"}, 404, "no prefix 'p9'"),
        ({"model": "../p3"}, 404, "no prefix"),
        ({"prompt": ""}, 400, "at least one token"),
        ({"prompt": []}, 400, "at least one token"),
        ({"prompt": [300]}, 400, "token ids are 0 to 299"),
        ({"prompt": [-1]}, 400, "token ids are 0 to 299"),
        ({"prompt": {"a": 1}}, 400, "prompt"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 2000}, 400, "max_tokens: at most 1024"),
        ({"max_tokens": 1000}, 400, "do not fit into the 320"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": 1, "num_beams": 2}, 400, "draws nothing"),
        ({"num_beams": 100}, 400, "100 beams are more than"),
        ({"num_beams": 2, "n": 3}, 400, "has no 3 texts"),
        ({"top_p": 0}, 400, "top_p"),
        ({"num_beams": 2, "length_penalty": 400}, 400, "length_penalty"),
        ({"prompt": [[5]] * 400, "n": 128}, 400, "need more than 320 rows"),
        ({"prompt": [[5]] * 200, "num_beams": 2}, 400, "need more than 320 rows"),
        ({"stop": ["a", ""]}, 400, "stop"),
        ({"model": "x" * 300}, 404, "no prefix"),
        ({"n": True}, 400, "n: "),
        ({"prompt": [True]}, 400, "prompt"),
        ({"length_penalty": 2}, 400, "length_penalty: has no effect"),
        ({"early_stopping": True}, 400, "early_stopping: has no effect"),
        ({"num_beams": 2, "top_p": 0.5}, 400, "top_p: has no effect"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options: has no effect"),
        ({"logprobs": 5}, 400, "logprobs: this service has no such field"),
        ({"no_repeat_ngram_size": 4}, 400, "no_repeat_ngram_size: this service has no such field"),
        ({"prompt": "x" * 6000}, 413, "more than 5000 bytes"),
    ],
)
def test_what_is_refused(running: Running, body: dict[str, Any], status: int, message: str) -> None:
    answer = running.post(**body)
    assert answer.status_code == status
    assert message in error_of(answer)["message"]


def test_two_names_of_one_limit(running: Running) -> None:
    turns = [{"role": "user", "content": "a"}]
    body = {"model": "p3", "messages": turns, "max_tokens": 2, "max_completion_tokens": 3}
    answer = running.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "max_tokens"
    raw = b'{"model": "p3", "prompt": "a", "prompt": "b"}'
    answer = running.http.post("/v1/completions", content=raw)
    assert "'prompt' comes twice" in error_of(answer)["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 3000, b'{"model": 3}'])
def test_malformed_bodies(running: Running, raw: bytes) -> None:
    answer = running.http.post("/v1/completions", content=raw)
    assert answer.status_code == 400
    error_of(answer)


def test_other_routes_methods_and_keys(running: Running) -> None:
    assert error_of(running.http.get("/v1/nothing"))["type"] == "invalid_request_error"
    assert running.http.get("/v1/completions").status_code == 405
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}):
        gets = [("GET", "/v1/models"), ("GET", "/v1/models/p3")]
        for method, path in (*gets, ("POST", "/v1/completions"), ("POST", "/v1/chat/completions")):
            answer = running.http.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "invalid_api_key"
    assert httpx.get(running.url + "/health").json() == {"status": "ok"}


def test_metrics_count_what_happened(running: Running) -> None:
    def value(name: str) -> float:
        lines = running.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    name = 'prefix_tuning_requests_total{route="/v1/completions",code="200"}'
    before, tokens = value(name), value("prefix_tuning_generated_tokens_total ")
    running.post()
    assert value(name) == before + 1
    assert 1 <= value("prefix_tuning_generated_tokens_total ") - tokens <= 4
    assert value("prefix_tuning_rows_running ") == 0
    running.http.get("/made/up")  # else whoever asks for many paths fills the memory
    assert value('prefix_tuning_requests_total{route="other",code="404"}') > 0
    assert value('prefix_tuning_requests_total{route="/made') == 0


def test_a_client_that_goes_away_frees_its_row(running: Running) -> None:
    body = {"model": "p3", "prompt": PROMPT, "max_tokens": 280, "temperature": 0}
    slow = running.model.register_forward_pre_hook(lambda *_: time.sleep(0.01))
    for stream in (True, False):
        request = json.dumps({**body, "stream": stream}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as link:
            link.sendall(f"{head}Content-Length: {len(request)}\r\n\r\n".encode() + request)
            steps = running.engine.steps
            while running.engine.steps == steps:
                time.sleep(0.001)
        began = running.engine.steps
        while running.engine.n_running:
            time.sleep(0.001)
        assert running.engine.steps - began < 200
    slow.remove()


def test_a_broken_prefix_is_refused_by_name_and_served_again_when_mended(running: Running) -> None:
    home = running.bank.folder / "new"
    home.mkdir()
    for file in checkpoint.EXPORT:
        (home / file).write_bytes((running.bank.folder / "p3" / file).read_bytes()[:300])
    answer = running.post(model="new")
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "prefix_broken"
    for file in checkpoint.EXPORT:
        (home / file).write_bytes((running.bank.folder / "p3" / file).read_bytes())
    assert running.post(model="new").json()["choices"] == running.post().json()["choices"]


def test_a_full_queue_and_a_request_that_takes_too_long(tiny_folder: Path, tmp_path: Path) -> None:
    service = Running(tiny_folder, tmp_path, max_rows=1, max_waiting=0, timeout=2.0)
    slow = service.model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.post(max_tokens=280)))
    thread.start()
    while not service.engine.n_running:
        time.sleep(0.01)
    full = service.post()
    assert (full.status_code, error_of(full)["code"]) == (429, "queue_full")
    assert full.headers["retry-after"] == "1"
    thread.join()
    assert (answers[0].status_code, error_of(answers[0])["type"]) == (504, "server_error")
    slow.remove()
    while service.engine.n_running:  # the step that ran when its time was over
        time.sleep(0.01)
    assert service.post(max_tokens=1).status_code == 200
    service.stop()


def test_sigterm_finishes_what_runs(tiny_folder: Path, tmp_path: Path) -> None:
    write_prefixes(tmp_path, AutoModelForCausalLM.from_pretrained(tiny_folder))
    flags = ["--model", str(tiny_folder), "--prefixes", str(tmp_path), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "prefix_tuning.serve", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PREFIX_TUNING_API_KEY": ""},
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving 2 prefixes on http://127.0.0.1:")
            url = line.split()[-1]
            body = {"model": "p8", "prompt": PROMPT, "max_tokens": 250, "stream": True}
            body["temperature"] = 0
            with httpx.stream("POST", url + "/completions", json=body, timeout=60) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"]
            assert process.wait(100) == 0
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()


def test_flags_reach_the_service(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def note(engine: Engine, tokenizer: Any, settings: Settings) -> None:
        seen.update(vars(settings), engine=engine)

    monkeypatch.setattr("prefix_tuning.serve.app.create_app", note)
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: sockets[0].close())
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    flags = f"--model {tiny_folder} --prefixes {tmp_path} --name some --port 0 --api_key key"
    flags += " --dtype bfloat16 --max_rows 3 --max_waiting 5 --max_tokens 7 --max_body 11"
    main([*flags.split(), "--timeout", "13", "--prefix_memory", "2"])
    engine = seen.pop("engine")
    assert seen == {
        "base_name": "some",
        "api_key": "key",
        "max_body": 11,
        "default_tokens": 7,
        "max_tokens": 7,
        "timeout": 13.0,
    }
    assert (engine.max_rows, engine.max_waiting) == (3, 5)
    assert engine.bank.model.dtype == torch.bfloat16
    shape = PrefixShape.from_config(engine.bank.model.config)
    assert engine.bank.capacity == 2 * 2**20 // (2 * shape.features)
    write_prefixes(tmp_path, engine.bank.model.float())
    with pytest.raises(UserError, match="has a prefix of this name, which would never be asked"):
        main([*flags.split(), "--name", "p3"])


def test_a_client_is_gone_when_the_server_says_so() -> None:
    """What is left of a body comes first, and is not the end of the connection."""
    told = iter(["http.request", "http.request", "http.disconnect"])

    class Asking:
        async def receive(self) -> dict[str, str]:
            return {"type": next(told)}

    asyncio.run(asyncio.wait_for(_disconnected(Asking()), 5))
    assert list(told) == []


def test_flags_are_checked() -> None:
    given = ["--model", "m", "--prefixes", "p"]
    assert parse_args(given).host == "127.0.0.1"
    for flag, value in (
        *(("max_rows", "0"), ("timeout", "-1"), ("max_waiting", "-1"), ("timeout", "nan")),
        *(("timeout", "inf"), ("port", "65536"), ("port", "-1"), ("prefix_memory", "9" * 30)),
    ):
        with pytest.raises(UserError, match=f"--{flag} must be"):
            parse_args([*given, f"--{flag}", value])
