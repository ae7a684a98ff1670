"""Find the line of every key in a TOML text, so that a complaint about a value can say where it is.

The standard parser returns values without positions. This scanner runs after it, over a text that is known to be valid, and only
keeps track of where keys and array items begin; it decodes nothing but keys. A test holds that every key of a parsed document is
found, for documents of every shape.
"""

from __future__ import annotations

import re
import tomllib

TomlPath = tuple[str | int, ...]
"""Keys and array positions from the root, as in ``("venues", 0, "symbols", 2)``."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_SPACE = re.compile(r"[ \t]*")
_SPACE_LINES_COMMENTS = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # up to two quotes may stand before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> dict[TomlPath, int]:
    """Map the path of every table, key and array item in the valid TOML ``text`` to its line, counted from 1."""
    return _Scanner(text).scan()


def line_of(lines: dict[TomlPath, int], path: TomlPath) -> int | None:
    """Return the line of ``path``, or of the nearest enclosing table or array that the file mentions."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Scanner:
    """A cursor over the text; each method reads one construct and leaves the cursor behind it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.counted_position = 0
        self.counted_line = 1
        self.lines: dict[TomlPath, int] = {}
        self.array_lengths: dict[TomlPath, int] = {}

    def scan(self) -> dict[TomlPath, int]:
        table: TomlPath = ()
        while self.skip(_SPACE_LINES_COMMENTS) and self.position < len(self.text):
            if self.text[self.position] == "[":
                table = self.header()
            else:
                self.key_value(table)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Move over ``pattern``, which matches anything, if only the empty text."""
        match = pattern.match(self.text, self.position)
        assert match is not None
        self.position = match.end()
        return True

    def line(self) -> int:
        # Counting goes on from the last count: positions only grow, so the whole text is counted once.
        self.counted_line += self.text.count("\n", self.counted_position, self.position)
        self.counted_position = self.position
        return self.counted_line

    def note(self, path: TomlPath) -> None:
        """Remember where ``path`` was named first: of the parts of a table, the first is where a reader looks."""
        self.lines.setdefault(path, self.line())

    def header(self) -> TomlPath:
        """Read ``[table]`` or ``[[array of tables]]`` and return the path that the following keys belong to."""
        is_array = self.text.startswith("[[", self.position)
        start_line = self.line()
        self.position += 2 if is_array else 1
        keys = self.dotted_key()
        self.position += 2 if is_array else 1
        path: TomlPath = ()
        for depth, key in enumerate(keys):
            path = (*path, key)
            self.lines.setdefault(path, start_line)
            last = depth == len(keys) - 1
            if last and is_array:
                length = self.array_lengths[path] = self.array_lengths.get(path, 0) + 1
                path = (*path, length - 1)
                self.lines[path] = start_line
            elif path in self.array_lengths:
                # A key on the way that is an array of tables stands for its latest table.
                path = (*path, self.array_lengths[path] - 1)
        return path

    def dotted_key(self) -> list[str]:
        keys = []
        while True:
            self.skip(_SPACE)
            quoted = _QUOTED_KEY.match(self.text, self.position)
            match = quoted or _BARE_KEY.match(self.text, self.position)
            assert match is not None, f"no key at offset {self.position}: the text was not valid TOML"
            keys.append(_decoded(match.group()) if quoted else match.group())
            self.position = match.end()
            self.skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return keys
            self.position += 1

    def key_value(self, table: TomlPath) -> None:
        start_line = self.line()
        path = table
        for key in self.dotted_key():
            path = (*path, key)
            self.lines.setdefault(path, start_line)
        self.position += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: TomlPath) -> None:
        first = self.text[self.position]
        if first in "\"'":
            self.skip(_STRING)
        elif first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        else:
            self.skip(_SCALAR)

    def array(self, path: TomlPath) -> None:
        self.position += 1
        index = 0
        while self.skip(_SPACE_LINES_COMMENTS) and self.text[self.position] != "]":
            item = (*path, index)
            self.note(item)
            self.value(item)
            index += 1
            self.skip(_SPACE_LINES_COMMENTS)
            if self.text[self.position] == ",":
                self.position += 1
        self.position += 1

    def inline_table(self, path: TomlPath) -> None:
        self.position += 1
        # TOML 1.0 allows no line breaks here, 1.1 does; reading both costs nothing.
        while self.skip(_SPACE_LINES_COMMENTS) and self.text[self.position] != "}":
            self.key_value(path)
            self.skip(_SPACE_LINES_COMMENTS)
            if self.text[self.position] == ",":
                self.position += 1
        self.position += 1


def _decoded(quoted_key: str) -> str:
    """Decode a quoted key with the parser itself, so that escapes mean the same here and there."""
    return next(iter(tomllib.loads(f"{quoted_key} = 0")))
