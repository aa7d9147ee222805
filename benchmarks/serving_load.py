"""A service in a process of its own, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.shapes import SERVED
from prefix_tuning import checkpoint
from prefix_tuning.parametrizations import FlatPrefix

ROOT = Path(__file__).resolve().parents[1]
Body = dict[str, Any]
Texts = tuple[str, ...]


def make_model(folder: Path, shape: str) -> GPT2LMHeadModel:
    """Write a base model with its tokenizer, one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
    torch.manual_seed(0)
    n_layer, n_head, width = SERVED[shape]
    config = GPT2Config(
        vocab_size=len(tokens),
        n_positions=512,
        n_embd=width,
        n_layer=n_layer,
        n_head=n_head,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # spread, so that texts differ and rounding decides nothing
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 2.0 * parameter.shape[0] ** -0.5)
    model.save_pretrained(folder)
    return model


def write_prefix(folder: Path, model: GPT2LMHeadModel, name: str, seed: int) -> None:
    """Write a random prefix; its length comes from its name."""
    torch.manual_seed(seed)
    prefix = FlatPrefix(model.config, 1 + sum(name.encode()) % 20)
    checkpoint.export(folder / name, prefix, checkpoint.metadata(prefix, model, "benchmark"))


def make_load(count: int, names: Sequence[str], seed: int = 0) -> list[Body]:
    """Requests of mixed lengths and searches."""
    chance, bodies = random.Random(seed), []
    for i in range(count):
        prompt = "".join(chance.choice("abcdefgh ") for _ in range(chance.randrange(4, 80)))
        body: Body = {"model": names[i % len(names)], "prompt": prompt, "temperature": 0}
        body["max_tokens"] = chance.randrange(4, 40)
        body["stream"] = chance.random() < 0.3
        kind = chance.random()
        if kind < 0.3:
            body |= {"temperature": 0.8, "top_p": 0.95, "seed": i, "n": chance.choice([1, 1, 2])}
        elif kind < 0.4:
            body |= {"num_beams": 4, "n": 2}
        bodies.append(body)
    return bodies


@contextlib.contextmanager
def serving(model: Path, prefixes: Path, *flags: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A service in a process of its own, and its address."""
    command = [sys.executable, "-m", "prefix_tuning.serve", "--port", "0", "--name", "base"]
    with subprocess.Popen(
        [*command, "--model", str(model), "--prefixes", str(prefixes), *flags],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PREFIX_TUNING_API_KEY": ""},
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def texts_of(raw: str, is_stream: bool) -> Texts:
    """The texts of an answer, streamed or not."""
    texts: Counter[int] = Counter()
    parts: dict[int, str] = {}
    if is_stream:
        lines = [line.removeprefix("data: ") for line in raw.split("\n\n") if line]
        assert lines.pop() == "[DONE]"
        answers = [json.loads(line) for line in lines]
    else:
        answers = [json.loads(raw)]
    for answer in answers:
        for choice in answer["choices"]:
            parts[choice["index"]] = parts.get(choice["index"], "") + choice["text"]
            texts[choice["index"]] += choice["finish_reason"] is not None
    assert set(texts.values()) == {1}, "every text ends once"
    return tuple(parts[i] for i in sorted(parts))


@dataclass
class Load:
    """What became of a load."""

    seconds: float = 0.0
    answers: list[Texts | int | None] = field(default_factory=list)
    """The texts of each request; or its status, where that is not 200; None without an answer."""
    latencies: list[float] = field(default_factory=list)

    def __add__(self, other: Load) -> Load:
        return Load(
            self.seconds + other.seconds,
            self.answers + other.answers,
            self.latencies + other.latencies,
        )

    def __str__(self) -> str:
        n_text = sum(len(answer) for answer in self.answers if isinstance(answer, tuple))
        ranked = sorted(self.latencies)
        p95 = ranked[int(0.95 * len(ranked))]
        return (
            f"{len(self.answers) / self.seconds:6.1f} requests/s  {n_text / self.seconds:6.1f} "
            f"texts/s  p50 {statistics.median(ranked):6.3f} s  p95 {p95:6.3f} s"
        )


async def send(client: httpx.AsyncClient, body: Body) -> Texts | int | None:
    """Ask once."""
    try:
        answer = await client.post("/completions", json=body)
    except httpx.TransportError:
        return None
    if answer.status_code != 200:
        return answer.status_code
    return texts_of(answer.text, body["stream"])


@contextlib.asynccontextmanager
async def connected(url: str, at_a_time: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections."""
    limits = httpx.Limits(max_connections=at_a_time, max_keepalive_connections=at_a_time)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as client:
        yield client


def run_load(url: str, bodies: Sequence[Body], at_a_time: int) -> Load:
    """Send all requests, ``at_a_time`` of them together."""

    async def everything() -> Load:
        answers: list[Texts | int | None] = [None] * len(bodies)
        latencies, waiting = [], iter(enumerate(bodies))

        async def worker(client: httpx.AsyncClient) -> None:
            for i, body in waiting:
                began = time.perf_counter()
                answers[i] = await send(client, body)
                latencies.append(time.perf_counter() - began)

        async with connected(url, at_a_time) as client:
            began = time.perf_counter()
            await asyncio.gather(*(worker(client) for _ in range(at_a_time)))
            return Load(time.perf_counter() - began, answers, latencies)

    return asyncio.run(everything())
