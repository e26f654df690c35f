"""YAML in which each mapping has a key once: of two PyYAML takes the last, silently.

Loaded only where there is a file to read.
"""

from __future__ import annotations

from typing import Any

from yaml import BaseLoader, MappingNode, SafeLoader, ScalarNode
from yaml.composer import Composer

__all__ = ["DuplicateKeyError", "TextLoader", "ValueLoader"]

_MOST_SHOWN = 40


class DuplicateKeyError(Exception):
    """A key stands twice in a mapping; the message names it, and where."""


class _UniqueKeys(Composer):
    """Composes mappings; before merge keys (`<<`), which may be written over, are unfolded."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:  # noqa: ANN401 - its stub errs
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in [key for key, _ in node.value if isinstance(key, ScalarNode)]:
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise DuplicateKeyError(
                    f"line {line}: the key {key.value[:_MOST_SHOWN]!r} stands twice in this "
                    f"section, first in line {lines[name]}; leave one of the two"
                )
            lines[name] = line
        return node


class ValueLoader(_UniqueKeys, SafeLoader):
    """Makes YAML's own kinds of values, and no objects."""


class TextLoader(_UniqueKeys, BaseLoader):
    """Makes lists, mappings and text, whatever YAML takes the text for."""
