"""From the body of a request to its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from transformers import PreTrainedTokenizerBase

from prefix_tuning.bank import BrokenPrefix, UnknownPrefix
from prefix_tuning.errors import UserError
from prefix_tuning.serve.engine import Engine, Late, QueueFull, Stopping
from prefix_tuning.serve.generation import Beams, Piece, Text, Ticket
from prefix_tuning.serve.metrics import Metrics
from prefix_tuning.serve.protocol import ApiError, ChatRequest, CompletionRequest, choice, usage


@dataclass(frozen=True)
class Settings:
    """What the service allows."""

    base_name: str
    """The model name of the base model without a prefix."""
    api_key: str | None = None
    max_body: int = 2**20
    """Bytes."""
    default_tokens: int = 64
    max_tokens: int = 1024
    """The most tokens of one text."""
    timeout: float = 120.0
    """Seconds until a request is given up."""


class ClientGone(Exception):
    """Nobody waits for the answer."""


@dataclass
class _Asked:
    """A request in the engine's hands, and what comes back."""

    ticket: Ticket
    pieces: asyncio.Queue[Piece | Exception]
    n_text: int
    n_prompt: int

    async def each(self, request: Request) -> AsyncIterator[Piece]:
        """The pieces as they come; gives the rows back if the client goes away."""
        gone = asyncio.create_task(_disconnected(request))
        open_texts, piece = self.n_text, None
        try:
            while open_texts:
                piece = asyncio.create_task(self.pieces.get())
                await asyncio.wait({piece, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    raise ClientGone
                found = piece.result()
                if isinstance(found, Exception):
                    raise _as_api_error(found)
                open_texts -= found.finish_reason is not None
                yield found
        finally:
            gone.cancel()
            if piece is not None:
                piece.cancel()
            self.ticket.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, UnknownPrefix):
        return ApiError(404, str(error), "model_not_found", "model")
    if isinstance(error, BrokenPrefix):
        return ApiError(503, f"this prefix cannot be used: {error}", "prefix_broken", "model")
    if isinstance(error, Late):
        return ApiError(504, "the time for this request is over", "timeout")
    if isinstance(error, QueueFull):
        retry = {"Retry-After": "1"}
        return ApiError(429, "the queue is full: try again soon", "queue_full", headers=retry)
    if isinstance(error, Stopping):
        return ApiError(503, "the service is stopping", "stopping")
    if isinstance(error, UserError):
        return ApiError(400, str(error), "context_length_exceeded")
    return ApiError(500, f"decoding failed ({type(error).__name__})", "internal_error")


class Service:
    """The routes' work: from a body to an answer."""

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, settings: Settings
    ) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.metrics = Metrics()
        config = engine.bank.model.generation_config
        ends = [] if config is None else config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or []
        # The tokenizer's first: it is the one that a beam search looks at.
        self.ends = [*dict.fromkeys([tokenizer.eos_token_id, *ends])]

    def authorise(self, request: Request) -> None:
        """Raise :class:`ApiError` where the key is wanted and not given."""
        wanted = self.settings.api_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if wanted is not None and not secrets.compare_digest(given.encode(), wanted.encode()):
            raise ApiError(401, "give the service's key as a bearer token", "invalid_api_key")

    async def body(self, request: Request) -> bytes:
        """The body, no longer than allowed."""
        parts, size, limit = [], 0, self.settings.max_body
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        message = f"the body has more than {limit} bytes"
                        raise ApiError(413, message, "body_too_large")
        except TimeoutError as error:
            raise ApiError(408, "the body did not come in time", "timeout") from error
        return b"".join(parts)

    def prompts(self, asked: CompletionRequest | ChatRequest) -> list[list[int]]:
        """Token ids of every prompt."""
        if isinstance(asked, ChatRequest):
            if self.tokenizer.chat_template is None:
                message = "the tokenizer of this model has no chat template: use /v1/completions"
                raise ApiError(400, message, "no_chat_template", "messages")
            turns = [message.model_dump(exclude_none=True) for message in asked.messages]
            try:
                text = self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=True, tokenize=False
                )
            except Exception as error:  # whatever a template raises, it is about the messages
                raise ApiError(400, f"messages: {error}", param="messages") from error
            return [self.tokenizer(text, add_special_tokens=False).input_ids]
        given: Any = asked.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        prompts = [self.tokenizer(p).input_ids if isinstance(p, str) else p for p in given]
        embeddings: Any = self.engine.bank.model.get_input_embeddings()
        size = embeddings.weight.shape[0]
        if not prompts or not all(prompts):
            raise ApiError(400, "prompt: at least one token is needed", param="prompt")
        if not all(0 <= token < size for prompt in prompts for token in prompt):
            raise ApiError(400, f"prompt: token ids are 0 to {size - 1}", param="prompt")
        return prompts

    def prepare(
        self, asked: CompletionRequest | ChatRequest, ticket: Ticket
    ) -> tuple[list[Text | Beams], int, int]:
        """The parts of a request, how many texts they give, and the tokens of its prompts."""
        search = asked.search(self.settings.default_tokens)
        if search.max_tokens > self.settings.max_tokens:
            limit = self.settings.max_tokens
            raise ApiError(400, f"max_tokens: at most {limit}", param="max_tokens")
        prompts = self.prompts(asked)
        limit = self.engine.max_rows + self.engine.max_waiting
        # Before any of them is made: a small body may ask for millions.
        if len(prompts) * max(asked.n, search.num_beams) > limit:
            raise ApiError(400, f"n: all texts of a request need more than {limit} rows", param="n")
        parts: list[Text | Beams] = []
        seed = random.randrange(2**31) if asked.seed is None else asked.seed
        for i, prompt in enumerate(prompts):
            first = i * asked.n
            common = (search, self.ends, self.tokenizer)
            if search.num_beams > 1:
                parts.append(Beams(ticket, prompt, first, *common, asked.n))
            else:
                texts = range(first, first + asked.n)
                parts += [Text(ticket, prompt, j, *common, seed + j) for j in texts]
        for part in parts:
            self.engine.check(part)
        return parts, len(prompts) * asked.n, sum(map(len, prompts))

    async def ask(self, asked: CompletionRequest | ChatRequest) -> _Asked:
        """Hand a request to the engine."""
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception]()

        def listen(piece: Piece | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        name = None if asked.model == self.settings.base_name else asked.model
        ticket = Ticket(listen, name, self.settings.timeout, asked.stream)
        try:
            parts, n_text, n_prompt = await run_in_threadpool(self.prepare, asked, ticket)
            self.engine.submit(parts)
        except (UserError, QueueFull, Stopping) as error:
            raise _as_api_error(error) from error
        return _Asked(ticket, pieces, n_text, n_prompt)

    async def answer(self, request: Request, asked: CompletionRequest | ChatRequest) -> Response:
        """Decode, and answer in one piece or many."""
        is_chat = isinstance(asked, ChatRequest)
        if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
            if asked.max_tokens is not None:
                message = "max_tokens: give this or max_completion_tokens, not both"
                raise ApiError(400, message, param="max_tokens")
            asked.max_tokens = asked.max_completion_tokens
        running = await self.ask(asked)
        kind = "chat.completion" if is_chat else "text_completion"
        about = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind + ".chunk" if is_chat and asked.stream else kind,
            "created": int(time.time()),
            "model": asked.model,
        }
        pieces = running.each(request)
        if asked.stream:
            # The first piece decides the status: what fails before it is no stream.
            first = await anext(pieces)
            wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            lines = _stream(about, first, pieces, running, is_chat, wants_usage)
            return StreamingResponse(lines, media_type="text/event-stream")
        texts = sorted([piece async for piece in pieces], key=lambda piece: piece.index)
        choices = [choice(p.index, p.text, p.finish_reason, is_chat, False) for p in texts]
        used = usage(running.n_prompt, sum(piece.n_token for piece in texts))
        return JSONResponse({**about, "choices": choices, "usage": used})


async def _stream(
    about: dict[str, Any],
    first: Piece,
    pieces: AsyncIterator[Piece],
    running: _Asked,
    is_chat: bool,
    wants_usage: bool,
) -> AsyncIterator[str]:
    """Server-sent events, the last one ``[DONE]``."""
    generated = 0

    def event(piece: Piece) -> str:
        one = choice(piece.index, piece.text, piece.finish_reason, is_chat, True)
        return f"data: {json.dumps({**about, 'choices': [one]})}\n\n"

    try:
        yield event(first)
        generated += first.n_token
        async for piece in pieces:
            generated += piece.n_token
            yield event(piece)
        if wants_usage:
            used = usage(running.n_prompt, generated)
            yield f"data: {json.dumps({**about, 'choices': [], 'usage': used})}\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body)}\n\n"
    except ClientGone:
        return
    finally:
        running.ticket.cancel()
    yield "data: [DONE]\n\n"
