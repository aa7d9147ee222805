"""The HTTP routes: OpenAI's, where ``model`` names the prefix."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from transformers import PreTrainedTokenizerBase

from prefix_tuning.serve.engine import Engine
from prefix_tuning.serve.metrics import Metrics
from prefix_tuning.serve.protocol import ApiError, ChatRequest, CompletionRequest, parse
from prefix_tuning.serve.service import ClientGone, Service, Settings


class Measured:
    """Counts every answer and the seconds it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: set[str]) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            # Paths come from clients: only those that exist become labels.
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.answered(route, status, time.monotonic() - began)


def create_app(engine: Engine, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> FastAPI:
    """The application; its lifespan starts and stops the engine."""
    service = Service(engine, tokenizer, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await run_in_threadpool(engine.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)

    @app.get("/health")
    async def health() -> Response:
        alive = engine.is_alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        gauges = {"rows_running": engine.n_running, "rows_waiting": engine.n_waiting}
        counters = {
            "generated_tokens_total": engine.tokens,
            "steps_total": engine.steps,
            "prefix_loads_total": engine.bank.loads,
        }
        gauges["prefixes_refused"] = len(engine.bank.refused)
        return PlainTextResponse(service.metrics.render(gauges, counters))

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        service.authorise(request)
        names = [settings.base_name, *await run_in_threadpool(engine.bank.names)]
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    @app.get("/v1/models/{name}")
    async def one_model(name: str, request: Request) -> Response:
        service.authorise(request)
        if name != settings.base_name and name not in engine.bank:
            raise ApiError(404, f"there is no prefix {name!r}", "model_not_found", "model")
        return JSONResponse(_model(name))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        service.authorise(request)
        return await service.answer(request, parse(CompletionRequest, await service.body(request)))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        service.authorise(request)
        return await service.answer(request, parse(ChatRequest, await service.body(request)))

    routes = {"/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions"}
    app.add_middleware(Measured, metrics=service.metrics, routes=routes)
    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "prefix-tuning"}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code)

    @app.exception_handler(ClientGone)
    async def client_gone(*_: Any) -> Response:
        return Response(status_code=499)  # read by nobody but the counters

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, "internal error", "internal_error").body, 500)
