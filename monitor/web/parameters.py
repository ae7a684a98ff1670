"""Query parameters: what each may be is said once, for reading requests and for the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp import web

from monitor.web.answers import RequestError

NAME_CHARACTERS = 100
"""Longest name of a venue or market in a request; the longest that can be configured has 40."""

_DECIMAL = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{1,12})?")


class WholeNumber(NamedTuple):
    """A whole number from ``least`` to ``greatest``."""

    name: str
    least: int
    greatest: int
    default: int
    description: str

    def read(self, text: str | None) -> int:
        """Return the number, or the default where there is none."""
        if text is None:
            return self.default
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not self.least <= int(text) <= self.greatest:
            raise _refusal(f"{self.name} must be a whole number from {self.least} to {self.greatest}")
        return int(text)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.greatest, "default": self.default}


class Fraction(NamedTuple):
    """A decimal fraction strictly between ``above`` and ``below``."""

    name: str
    above: float
    below: float
    default: float
    description: str

    def read(self, text: str | None) -> float:
        """Return the number, or the default where there is none."""
        if text is None:
            return self.default
        # A plus sign that nobody quoted arrives as a space.
        text = text.strip(" ")
        if not _DECIMAL.fullmatch(text) or not self.above < float(text) < self.below:
            raise _refusal(
                f"{self.name} must be a decimal fraction between {self.above:g} and {self.below:g}, such as {self.default:g}"
            )
        return float(text)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "number", "exclusiveMinimum": self.above, "exclusiveMaximum": self.below, "default": self.default}


class Choice(NamedTuple):
    """One of several words."""

    name: str
    allowed: tuple[str, ...]
    default: str
    description: str

    def read(self, text: str | None) -> str:
        """Return the word, or the default where there is none."""
        if text is None:
            return self.default
        if text not in self.allowed:
            raise _refusal(f"{self.name} must be one of: {', '.join(self.allowed)}")
        return text

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "string", "enum": list(self.allowed), "default": self.default}


class Name(NamedTuple):
    """The name of something, ``None`` where it is left out or empty."""

    name: str
    description: str

    def read(self, text: str | None) -> str | None:
        """Return the name."""
        if text is not None and len(text) > NAME_CHARACTERS:
            raise _refusal(f"{self.name} must have at most {NAME_CHARACTERS} characters")
        return text or None

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "string", "maxLength": NAME_CHARACTERS}


Parameter = WholeNumber | Fraction | Choice | Name


def read_parameters(request: web.Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of every parameter of a request by its name.

    Raises:
        RequestError: a value is not allowed, a parameter is given twice, or there is none of that name: a misspelt one must not
            be answered as if it had not been given.
    """
    query, allowed = request.query, [parameter.name for parameter in parameters]
    for name in query:
        if name not in allowed:
            raise _refusal(f"{name[:NAME_CHARACTERS]!r} is no parameter here; allowed: {', '.join(allowed) or 'none'}")
        if len(query.getall(name)) > 1:
            raise _refusal(f"{name} is given more than once")
    return {parameter.name: parameter.read(query.get(parameter.name)) for parameter in parameters}


def _refusal(message: str) -> RequestError:
    return RequestError(400, "bad_parameter", message)
