"""Sections of the configuration file: each key is asked for, and what nobody asked for is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from jobwatt.errors import UsageError
from jobwatt.grid.secret import Secret
from jobwatt.text import shown
from jobwatt.units import duration_seconds

__all__ = ["Options"]

_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Options:
    """One section.

    Args:
        where: its name, for errors.
        tree: what the file has there; None is an empty section.

    Raises:
        UsageError: it is no mapping of names.
    """

    def __init__(self, where: str, tree: object) -> None:
        self.where = where
        if tree is None:
            tree = {}
        if not isinstance(tree, Mapping):
            raise UsageError(f"{where}: keys with values are expected, not {shown(tree)}")
        self._tree = tree
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._get(key) is not None

    def error(self, key: str, problem: str) -> UsageError:
        """Return the error that names this key."""
        return UsageError(f"{self.where}: {key}: {problem}")

    def finish(self) -> None:
        """Raise `UsageError` for a key that nobody has asked for."""
        for key in self._tree:
            if key not in self._asked:
                near = difflib.get_close_matches(str(key), self._asked, 1)
                hint = f"did you mean {near[0]}?" if near else f"known: {self._known()}"
                raise UsageError(f"{self.where}: unknown key {shown(key)}; {hint}")

    def _known(self) -> str:
        return ", ".join(sorted(self._asked)) or "none"

    def _get(self, key: str) -> object:
        self._asked.add(key)
        return self._tree.get(key)

    def value(self, key: str) -> object:
        """Return whatever is there, None where nothing is."""
        return self._get(key)

    def text(self, key: str, default: str = "") -> str:
        """Return a text."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            # Not shown: it may be a secret that stands in the wrong place.
            raise self.error(key, "a text is expected; quote a number that is meant as one")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of several words."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(key, f"{shown(value)} is none of {', '.join(choices)}")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        """Return a number within bounds, None where there is none."""
        value = self._get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"{shown(value)} is not a number")
        if not least <= value <= most:
            raise self.error(key, f"{shown(value)} is not from {least:g} to {most:g}")
        return float(value)

    def duration(self, key: str, default: float, least: float, most: float) -> float:
        """Return seconds."""
        value = self._get(key)
        if value is None:
            return default
        try:
            seconds = duration_seconds(str(value))
        except ValueError as error:
            raise self.error(key, str(error)) from error
        if not least <= seconds <= most:
            raise self.error(key, f"{shown(value)} is not from {least:g}s to {most:g}s")
        return seconds

    def url(self, key: str, default: str) -> str:
        """Return an http or https address, without a slash at its end."""
        value = self.text(key, default)
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
            usable = usable and parts.port != 0 and value.isascii() and value.isprintable()
        except ValueError:
            usable = False
        # Not shown: somebody may have put a password into it.
        if not usable or parts.username is not None or set("?# ") & set(value):
            raise self.error(
                key, "write http(s)://host[:port][/path], without user, password or query"
            )
        return value.rstrip("/")

    def path(self, key: str) -> Path | None:
        """Return the full name of a file."""
        value = self.text(key)
        if value and not value.startswith("/"):
            raise self.error(key, "write the file's full name, from / on")
        return Path(value) if value else None

    def secret(self, name: str, environment: Mapping[str, str]) -> Secret | None:
        """Return the secret that `<name>_file` or `<name>_env` names, None where neither does."""
        file, variable = self.path(f"{name}_file"), self.text(f"{name}_env")
        if file is not None and variable:
            raise self.error(f"{name}_env", f"{name}_file is given too; leave one of the two")
        if variable and not _WORD.fullmatch(variable):
            # Not shown: it may be the secret itself.
            raise self.error(f"{name}_env", "write the name of a variable of the environment")
        if file is None and not variable:
            return None
        return Secret(file, variable, environment)
