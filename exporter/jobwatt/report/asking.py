"""Asking about a long range and many jobs: in parts, as small as the server needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from jobwatt.report.client import Prometheus, TooMuch
from jobwatt.report.questions import IS_LEFT_OPEN, MOST_HALVINGS, Question, halved
from jobwatt.report.sample import Sample
from jobwatt.report.timerange import LEAST_MS, Window, first_length_ms, windows

__all__ = ["Asker"]


class Asker:
    """Asks questions about one range, and remembers how much at once was too much.

    A question that the server finds too big is asked anew about half the time, down to an hour,
    then about half of the jobs. Parts never overlap and leave nothing out.
    """

    def __init__(
        self, prometheus: Prometheus, whole: Window, progress: Callable[[float], None]
    ) -> None:
        """Take the server, the range, and whom to tell which share of a question is done."""
        self._prometheus = prometheus
        self._whole = whole
        self._progress = progress
        self._most_ms = first_length_ms(whole)
        found = prometheus.query(IS_LEFT_OPEN, whole.end_ms // 1000 * 1000)
        self._left_open = not found or found[0].value <= 2  # noqa: PLR2004 - see IS_LEFT_OPEN

    def ask(self, question: Question, matchers: Sequence[str]) -> Iterator[Sample]:
        """Yield the answers of all parts.

        Raises:
            RunError: there is no answer; `TooMuch` where even the smallest part is too big.
        """
        first = windows(self._whole, self._most_ms) if question.by_time else [self._whole]
        parts = [(window, tuple(matchers), 0) for window in reversed(first)]
        done_ms = 0
        while parts:
            window, inside, depth = parts.pop()
            text = question.text(window, inside, left_open=self._left_open)
            try:
                yield from self._prometheus.query(text, window.end_ms)
            except TooMuch:
                if question.by_time and window.length_ms > LEAST_MS:
                    self._most_ms = max(LEAST_MS, window.length_ms // 2 // 1000 * 1000)
                    smaller = reversed(windows(window, self._most_ms))
                    parts += [(one, inside, depth) for one in smaller]
                elif depth < MOST_HALVINGS:
                    parts += [(window, (*inside, half), depth + 1) for half in halved(depth)]
                else:
                    raise
            else:
                done_ms += window.length_ms / 2**depth
                self._progress(done_ms / self._whole.length_ms)
