"""Tokens and passwords: named in the configuration, read when they are used, shown nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.grid.contract import GridError, Reason
from jobwatt.host.files import read_bytes

__all__ = ["Secret"]

_MOST_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is: a file, or a variable of the environment.

    It is read anew each time, so that a file that is replaced needs no restart.
    """

    file: Path | None = None
    variable: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        return str(self.file) if self.file is not None else f"${self.variable}"

    def reveal(self) -> str:
        """Return the secret.

        Raises:
            GridError: it cannot be read, or is none; the message does not hold it.
        """
        text = self._text().strip()
        if not text:
            raise GridError(Reason.UNREADABLE, f"{self} is empty")
        # It stands in a header, or is a part of one.
        if len(text) > _MOST_CHARACTERS or not (text.isascii() and text.isprintable()):
            raise GridError(
                Reason.UNREADABLE, f"{self} does not hold one line of printable ASCII characters"
            )
        return text

    def _text(self) -> str:
        if self.file is None:
            return self.environment.get(self.variable, "")
        try:
            return read_bytes(self.file).decode()
        except ReadError as error:
            raise GridError(Reason.UNREADABLE, str(error)) from error
        except UnicodeDecodeError:
            raise GridError(Reason.UNREADABLE, f"{self} is not text") from None
