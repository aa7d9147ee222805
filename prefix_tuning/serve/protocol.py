"""What a request may say, and what an error looks like: OpenAI's, as far as it goes."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefix_tuning.errors import UserError
from prefix_tuning.files import parse_json
from prefix_tuning.serve.generation import Search

_COLDEST = 1e-5
"""Below, a temperature is 0: the best token is as good as certain, and a division may overflow."""


class ApiError(Exception):
    """An answer other than 200: one sentence, and OpenAI's type and code."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        other = "server_error" if status >= 500 else "invalid_request_error"
        kind = kinds.get(status, other)
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Strict(BaseModel):
    # A field that would be ignored is an error: whoever sends it expects an effect. True is no 1.
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool = False


class Decoding(_Strict):
    """What completions and chat completions have in common."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=128)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    num_beams: int = Field(1, ge=1)
    length_penalty: float = Field(1.0, ge=-10, le=10)  # beyond, powers of lengths overflow
    early_stopping: bool = False

    def search(self, default_tokens: int) -> Search:
        """How to decode.

        Raises:
            ApiError: the fields contradict each other.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > 4 or "" in stop:
            raise ApiError(400, "stop: give at most 4 strings, none of them empty", param="stop")
        if self.num_beams > 1 and self.temperature:
            message = "temperature: a beam search draws nothing; leave it out or give 0"
            raise ApiError(400, message, param="temperature")
        for field, needed, does in (
            ("length_penalty", "num_beams above 1", self.num_beams > 1),
            ("early_stopping", "num_beams above 1", self.num_beams > 1),
            ("top_p", "num_beams of 1", self.num_beams == 1),
            ("stream_options", "stream", self.stream),
        ):
            if not does and getattr(self, field) != type(self).model_fields[field].default:
                raise ApiError(400, f"{field}: has no effect without {needed}", param=field)
        if self.n > self.num_beams > 1:
            raise ApiError(
                400, f"n: a search of {self.num_beams} beams has no {self.n} texts", param="n"
            )
        warm = 1.0 if self.temperature is None else self.temperature
        if warm < _COLDEST:
            warm = 0.0
        return Search(
            max_tokens=self.max_tokens or default_tokens,
            temperature=0.0 if self.num_beams > 1 else warm,
            top_p=self.top_p,
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            stop=tuple(stop),
        )


class CompletionRequest(Decoding):
    """The body of ``/v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]


class Message(_Strict):
    """One turn of a conversation."""

    role: str
    content: str
    name: str | None = None


class ChatRequest(Decoding):
    """The body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], raw: bytes) -> Body:
    """The body of a request.

    Raises:
        ApiError: it is not JSON, or not what ``kind`` allows.
    """
    try:
        parse_json(raw.decode("utf-8", "replace"), "the body")  # it sees a name that comes twice
        return kind.model_validate_json(raw)
    except UserError as error:
        raise ApiError(400, str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, str | int))
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"{where}: this service has no such field", param=where) from error
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise ApiError(400, message, param=where or None) from error


def choice(index: int, text: str, reason: str | None, is_chat: bool, part: bool) -> dict[str, Any]:
    """One of the choices of an answer, or of a chunk of one (``part``)."""
    content: dict[str, Any] = {"text": text}
    if is_chat:
        message = {"role": "assistant", "content": text}
        content = {"delta": message} if part else {"message": message}
    return {"index": index, **content, "logprobs": None, "finish_reason": reason}


def usage(n_prompt: int, n_generated: int) -> dict[str, int]:
    """Tokens of a request."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
    }
