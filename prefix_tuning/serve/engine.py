"""The queue, and the thread that decodes: rows of any prefix join and leave between steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from prefix_tuning.bank import PrefixBank
from prefix_tuning.errors import NOT_FINITE, UserError
from prefix_tuning.finite import usable_rows
from prefix_tuning.positions import check_length, check_window
from prefix_tuning.serve.generation import Beams, Text, choose
from prefix_tuning.serve.rows import Rows


class QueueFull(Exception):
    """There is no room for more requests now."""


class Stopping(Exception):
    """The service stops and takes no more requests."""


class Late(Exception):
    """The time of a request was over before its texts were complete."""


class Engine:
    """Decodes what is submitted, as many rows at a time as there is room for.

    Args:
        bank: of the prefixes; its model must be a decoder.
        max_rows: rows that run together; a beam is a row.
        max_waiting: rows that may wait besides.
    """

    def __init__(self, bank: PrefixBank, max_rows: int = 64, max_waiting: int = 256) -> None:
        if bank.model.config.is_encoder_decoder:
            raise UserError(f"--model: {type(bank.model).__name__} is no decoder-only model")
        self.bank, self.max_rows, self.max_waiting = bank, max_rows, max_waiting
        self.steps = 0
        self.tokens = 0
        """Tokens generated."""
        self._rows = Rows(bank.model)
        self._running: list[Text | Beams] = []
        self._waiting: deque[Text | Beams] = deque()
        self._work = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="decoding", daemon=True)

    def start(self) -> None:
        """Begin to decode."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and return when the last one is done."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether it decodes."""
        return self._thread.is_alive()

    @property
    def n_running(self) -> int:
        """Rows that run."""
        return sum(generation.width for generation in self._running)

    @property
    def n_waiting(self) -> int:
        """Rows that wait."""
        with self._work:
            return sum(generation.width for generation in self._waiting)

    def check(self, generation: Text | Beams) -> None:
        """Raise where a generation could never run.

        Raises:
            UserError: its prefix cannot be had, or prefix, prompt and output do not fit the model.
        """
        name, n_token = generation.ticket.prefix, len(generation.prompt)
        n_token += generation.search.max_tokens
        offset = 0 if name is None else self.bank.occupied(name)
        check_length(self.bank.model, offset, n_token)
        check_window(self.bank.model, n_token)
        if generation.width > self.max_rows:
            raise UserError(f"{generation.width} beams are more than the {self.max_rows} rows here")

    def submit(self, generations: Sequence[Text | Beams]) -> None:
        """Put the parts of a request into the queue.

        Raises:
            QueueFull: not all of them find room.
            Stopping: the service stops.
        """
        wanted = sum(generation.width for generation in generations)
        with self._work:
            if self._stopping:
                raise Stopping
            # Whoever has an answer may ask again at once, though its rows are free a moment later.
            others = (g for g in (*self._running, *self._waiting) if not g.is_over)
            if sum(g.width for g in others) + wanted > self.max_rows + self.max_waiting:
                raise QueueFull
            self._waiting.extend(generations)
            self._work.notify()

    def _loop(self) -> None:
        while True:
            with self._work:
                while not (self._waiting or self._running or self._stopping):
                    self._work.wait()
                if self._stopping and not self._waiting and not self._running:
                    return
            try:
                self._step()
            except Exception as error:  # of the model: whatever runs is lost, what waits is not
                for generation in self._running:
                    generation.ticket.fail(error)
                self._running = []
                self._rows.clear()

    def _step(self) -> None:
        """Every running text gets one token more; prompts that were waiting are read."""
        self._drop_given_up()
        n_old = len(self._rows)
        tokens: list[list[int]] = [[]] * n_old
        for generation in self._running:
            for row, last in zip(generation.rows, generation.last_tokens(), strict=True):
                tokens[row] = last
        new = self._join()
        parts = [self._rows.read(0, tokens)] if tokens else []
        if new:
            parts.append(self._rows.read(n_old, [generation.prompt for generation in new]))
        if parts:
            self.steps += 1
            self._advance(torch.cat(parts))

    def _advance(self, logits: Tensor) -> None:
        """Let every generation take its step from its rows of ``logits [B, V]``."""
        running, usable = [], usable_rows(logits).tolist()
        for generation in self._running:
            self.tokens += generation.width
            if all(usable[row] for row in generation.rows):
                running.append(generation)
            else:
                generation.ticket.fail(UserError(f"the logits of this text are {NOT_FINITE}"))
        texts = [generation for generation in running if isinstance(generation, Text)]
        at = [text.rows[0] for text in texts]
        chosen = iter(choose(logits[at], texts)) if texts else iter(())
        going_on: list[tuple[Text | Beams, list[int]]] = []
        for generation in running:
            try:
                if isinstance(generation, Text):
                    parents = [0] if generation.accept(next(chosen)) else None
                else:
                    parents = generation.advance(logits[generation.rows])
            except Exception as error:  # of this text: those beside it go on
                generation.ticket.fail(error)
                continue
            if parents is not None:
                going_on.append((generation, [generation.rows[i] for i in parents]))
        self._place(going_on)

    def _place(self, going_on: Sequence[tuple[Text | Beams, list[int]]]) -> None:
        """Give rows to what goes on, each from a row of now, and let the others leave.

        Rows stay where they are if they can: only what lies behind the new end, and beams that
        fork, are moved into rows that became free.
        """
        n_row = sum(len(sources) for _, sources in going_on)
        order, homeless = [-1] * n_row, []
        for generation, sources in going_on:
            generation.rows = [-1] * len(sources)
            for i, source in enumerate(sources):
                if source < n_row and order[source] < 0:
                    order[source] = generation.rows[i] = source
                else:
                    homeless.append((generation, i, source))
        free = (row for row in range(n_row) if order[row] < 0)
        for (generation, i, source), row in zip(homeless, [*free], strict=True):
            order[row], generation.rows[i] = source, row
        self._running = [generation for generation, _ in going_on]
        self._rows.select(order)

    def _drop_given_up(self) -> None:
        """Let rows leave whose client went away or whose time is over."""
        with self._work:
            for generation in (*self._running, *self._waiting):
                if generation.ticket.is_late:
                    generation.ticket.fail(Late())
            self._waiting = deque(g for g in self._waiting if not g.ticket.cancelled)
        self._place([(g, g.rows) for g in self._running if not g.ticket.cancelled])

    def _join(self) -> list[Text | Beams]:
        """Take from the queue, in order, what there are rows for; their prefixes enter the rows."""
        joined: list[Text | Beams] = []
        free = self.max_rows - self.n_running
        while True:
            with self._work:
                if not self._waiting or self._waiting[0].width > free:
                    return joined
                generation = self._waiting.popleft()
            try:
                # The prefix may have changed since the request came.
                self.check(generation)
                generation.rows = [len(self._rows)]
                self._rows.join(self.bank.key_values([generation.ticket.prefix]))
            except UserError as error:
                generation.ticket.fail(error)
                continue
            self._running.append(generation)
            joined.append(generation)
            free -= generation.width
