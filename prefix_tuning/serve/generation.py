"""What runs in the rows: one text, or the beams of one search."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prefix_tuning.beam_search import Hypotheses, Row, advance_rows, candidates
from prefix_tuning.serve.sampling import draw


@dataclass(frozen=True)
class Search:
    """How texts are decoded."""

    max_tokens: int
    temperature: float = 0.0
    """0 is greedy search."""
    top_p: float = 1.0
    num_beams: int = 1
    """More than 1 is the beam search of the paper's code."""
    length_penalty: float = 1.0
    early_stopping: bool = False
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""


@dataclass(frozen=True)
class Piece:
    """More of one text."""

    index: int
    text: str
    finish_reason: str | None = None
    """"stop" or "length" with the last piece."""
    n_token: int = 0
    """Tokens of the whole text, with the last piece."""


@dataclass
class Ticket:
    """A request while it waits and runs, shared by the thread that decodes and the one that asks.

    Args:
        listen: called from the decoding thread with every :class:`Piece`, or with the exception
            that ended the request.
        prefix: the name of its prefix; None for the base model alone.
        seconds: after which it is given up.
        stream: whether pieces are wanted as they come.
    """

    listen: Callable[[Piece | Exception], None]
    prefix: str | None
    seconds: float
    stream: bool = False
    cancelled: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() - self.began > self.seconds

    def cancel(self) -> None:
        """Give it up: its rows are free after the step that runs."""
        self.cancelled = True

    def fail(self, error: Exception) -> None:
        """Tell the listener, once, and give up."""
        if not self.cancelled:
            self.cancelled = True
            self.listen(error)


class Generation(ABC):
    """One unit of the queue: it enters all its rows at once.

    Args:
        ticket: the request it is part of.
        prompt: token ids, at least one.
        index: of its first text among the request's choices.
        ends: token ids that end a text.
        tokenizer: makes texts of tokens.
    """

    width = 1
    """How many rows it runs in."""

    def __init__(
        self,
        ticket: Ticket,
        prompt: list[int],
        index: int,
        search: Search,
        ends: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.ticket, self.prompt, self.index = ticket, prompt, index
        self.search, self.ends, self._tokenizer = search, ends, tokenizer
        self.rows: list[int] = []
        """Which rows it has now; a beam search begins in one."""
        self.is_told = False
        """Whether the listener has all of it, which is before its rows are free."""

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.is_told or self.ticket.cancelled

    @abstractmethod
    def last_tokens(self) -> list[list[int]]:
        """What each of its rows reads next, one token."""

    def text_of(self, tokens: list[int]) -> tuple[str, bool]:
        """The text of tokens up to the first stop string, and whether there is one."""
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        found = [at for stop in self.search.stop if (at := text.find(stop)) >= 0]
        return (text[: min(found)], True) if found else (text, False)


class Text(Generation):
    """One text in one row, greedy or drawn by a generator of its own."""

    def __init__(
        self,
        ticket: Ticket,
        prompt: list[int],
        index: int,
        search: Search,
        ends: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
    ) -> None:
        super().__init__(ticket, prompt, index, search, ends, tokenizer)
        self.tokens: list[int] = []
        self.chance = random.Random(seed)
        self._sent = ""

    def last_tokens(self) -> list[list[int]]:
        return [self.tokens[-1:]]

    def accept(self, token: int) -> bool:
        """Append the next token; tell the listener; return whether the text goes on."""
        reason = "stop" if token in self.ends else None
        if reason is None:
            self.tokens.append(token)
            if len(self.tokens) == self.search.max_tokens:
                reason = "length"
        if reason is None and not self.ticket.stream and not self.search.stop:
            return True
        text, is_stopped = self.text_of(self.tokens)
        reason = "stop" if is_stopped else reason
        self.is_told = reason is not None
        if reason is not None:
            rest = text[len(self._sent) :]
            self.ticket.listen(Piece(self.index, rest, reason, len(self.tokens)))
        elif self.ticket.stream:
            self._send(text)
        return reason is None

    def _send(self, text: str) -> None:
        # Not yet: half a character, and what may be the beginning of a stop string.
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")
        held = max((len(stop) - 1 for stop in self.search.stop), default=0)
        text = text[: len(text) - held] if held else text
        if len(text) > len(self._sent) and text.startswith(self._sent):
            self.ticket.listen(Piece(self.index, text[len(self._sent) :]))
            self._sent = text


def choose(logits: Tensor, texts: Sequence[Text]) -> list[int]:
    """The next token of every text from its row of ``logits [len(texts), V]``."""
    tokens = logits.argmax(dim=1)
    drawn = [i for i, text in enumerate(texts) if text.search.temperature > 0]
    if drawn:

        def numbers(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=logits.device)

        at = torch.tensor(drawn, device=logits.device)
        tokens[at] = draw(
            logits[at],
            numbers([texts[i].chance.random() for i in drawn]),
            numbers([texts[i].search.temperature for i in drawn]),
            numbers([texts[i].search.top_p for i in drawn]),
        )
    return tokens.tolist()


class Beams(Generation):
    """The beam search of one prompt, step by step as ``beam_search`` takes them.

    Args:
        n_text: how many of its texts are wanted, best first.
    """

    def __init__(
        self,
        ticket: Ticket,
        prompt: list[int],
        index: int,
        search: Search,
        ends: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        n_text: int,
    ) -> None:
        super().__init__(ticket, prompt, index, search, ends, tokenizer)
        self.width, self._n_text, self._step = search.num_beams, n_text, 0
        finished = Hypotheses(self.width, search.length_penalty)
        self._row = Row(len(prompt), finished, [[]] * self.width)
        self._log_probs: Tensor | None = None  # [1, K]

    def last_tokens(self) -> list[list[int]]:
        return [beam[-1:] for beam in self._row.beams]

    def advance(self, logits: Tensor) -> list[int] | None:
        """Take a step.

        Args:
            logits: ``[1, V]`` behind the prompt at first, then ``[K, V]`` behind every beam.

        Returns:
            which of its rows each of its ``K`` next rows goes on from; None when it is done, which
            the listener has been told.
        """
        row, search = self._row, self.search
        log_probs, is_first = self._log_probs, self._step == 0
        if log_probs is None:  # all beams start equal: only the first may be extended
            logits = logits.expand(self.width, -1)
            log_probs = torch.full((1, self.width), -1e9, device=logits.device)
            log_probs[0, 0] = 0.0
        never = torch.zeros(1, dtype=torch.bool, device=logits.device)
        best, beam, token = candidates([logits.clone()], log_probs, never, self.ends[0], ())
        alive, picked = advance_rows(
            [row], best, beam, token, self._step, self.ends[0], search.early_stopping
        )
        self._step += 1
        if not alive:
            self._tell()
            return None
        pick = torch.tensor(picked, device=best.device)
        self._log_probs = best.gather(1, pick)
        if self._step == search.max_tokens:
            for tokens, log_prob in zip(row.beams, self._log_probs[0].tolist(), strict=True):
                row.finished.add(tokens, log_prob, row.n_prompt + search.max_tokens)
            self._tell()
            return None
        return [0] * self.width if is_first else beam.gather(1, pick)[0].tolist()

    def _tell(self) -> None:
        self.is_told = True
        for i, tokens in enumerate(self._row.finished.tokens[: self._n_text]):
            ended = tokens[-1] == self.ends[0]
            tokens = tokens[:-1] if ended else tokens
            text, is_stopped = self.text_of(tokens)
            reason = "stop" if ended or is_stopped else "length"
            self.ticket.listen(Piece(self.index + i, text, reason, len(tokens)))
