"""The service while things go wrong: what ``serving.py`` runs after its loads."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks.serving_load import (
    Body,
    Texts,
    connected,
    make_load,
    make_model,
    run_load,
    send,
    serving,
    write_prefix,
)
from prefix_tuning import checkpoint


async def vanish(url: str, body: Body, seconds: float) -> None:
    """Send a request and go away."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    raw = json.dumps(body).encode()
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    await asyncio.sleep(seconds)
    writer.close()


async def replace(
    folder: Path, versions: list[Path], names: Sequence[str], done: asyncio.Event
) -> None:
    """Replace prefixes by another version of theirs, or by half a file, again and again."""
    chance = random.Random(0)
    while not done.is_set():
        home = folder / chance.choice(names)
        source = chance.choice(versions) / home.name
        for file in checkpoint.EXPORT:
            temporary = home / "new"
            temporary.write_bytes((source / file).read_bytes())
            if chance.random() < 0.2:
                temporary.write_bytes(temporary.read_bytes()[:100])
            os.replace(temporary, home / file)
        await asyncio.sleep(0.02)


def faults(folder: Path, shape: str, count: int, at_a_time: int) -> Counter[str]:
    """Everything that goes wrong, at once; raises AssertionError if a sound request suffers."""
    model = make_model(folder / "model", shape)
    names = [f"p{i}" for i in range(5)]
    versions = [folder / "old", folder / "new"]
    for version, seed in zip(versions, (0, 100), strict=True):
        for i, name in enumerate(names):
            write_prefix(version, model, name, seed + i)
    bodies = make_load(count, names, 2)
    served = folder / "served"
    shutil.copytree(versions[1], served)
    seen: Counter[str] = Counter()
    n_waiting = 3 * count
    flags = ["--max_rows", "16", "--max_waiting", str(n_waiting), "--max_body", "5000"]
    with serving(folder / "model", served, *flags) as (process, url):
        new = run_load(url, bodies, at_a_time).answers
        shutil.copytree(versions[0], served, copy_function=shutil.copyfile, dirs_exist_ok=True)
        solo = [run_load(url, bodies, at_a_time).answers, new]
        assert solo[0] != solo[1]

        async def disturbed() -> list[Texts | int | None]:
            chance, done = random.Random(1), asyncio.Event()
            async with connected(url, at_a_time) as client:
                replacing = asyncio.create_task(replace(served, versions, names, done))
                vanishing = [
                    vanish(url, {**body, "max_tokens": 300}, chance.random() / 5)
                    for body in make_load(count // 4, names, 3)
                ]
                bad = [{**bodies[0], "prompt": "x" * 6000}, {**bodies[0], "max_tokens": "many"}]
                statuses = asyncio.gather(*(send(client, bad[i % 2]) for i in range(20)))
                tasks = [send(client, body) for body in bodies]
                answers = await asyncio.gather(*tasks, *vanishing)
                seen.update(f"bad body: {status}" for status in await statuses)
                done.set()
                await replacing
                return answers[: len(bodies)]

        answers = asyncio.run(disturbed())
        for answer, old, new in zip(answers, *solo, strict=True):
            assert answer in (old, new), f"{answer} is neither {old} nor {new}"
            seen["sound, as alone with the old or the new prefix"] += 1
            seen["of them with the new"] += answer == new
        await_idle(url)
        n_burst = 100 + n_waiting  # more than may run and wait
        burst = [{**body, "n": 1, "num_beams": 1, "max_tokens": 60} for body in bodies]
        burst = (burst * (1 + n_burst // count))[:n_burst]
        statuses = run_load(url, burst, n_burst).answers
        seen.update(
            f"queue overflows: {answer if isinstance(answer, int) else 'ok'}" for answer in statuses
        )
        assert {type(answer) for answer in statuses} == {tuple, int}
        seen.update(terminate(process, url, bodies[:at_a_time]))
    return seen


def await_idle(url: str) -> None:
    """Return when no row runs: those of clients that vanished are free."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page = httpx.get(url.removesuffix("/v1") + "/metrics").text
        if "prefix_tuning_rows_running 0\n" in page:
            return
        time.sleep(0.05)
    raise AssertionError("rows of clients that went away still run")


def terminate(process: subprocess.Popen, url: str, bodies: Sequence[Body]) -> Counter[str]:
    """SIGTERM while requests run: they finish, and the service ends with status 0."""

    async def interrupted() -> list[Texts | int | None]:
        async with connected(url, len(bodies)) as client:
            long = ({**b, "n": 1, "num_beams": 1, "max_tokens": 150} for b in bodies)
            tasks = [asyncio.create_task(send(client, body)) for body in long]
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    answers = asyncio.run(interrupted())
    assert all(isinstance(answer, tuple) for answer in answers), answers
    assert process.wait(60) == 0
    return Counter({"finished after SIGTERM": len(answers)})
