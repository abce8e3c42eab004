"""What a SQL statement says about itself: masked text, operation, collection, summary.

Masking works by itself; operation, collection and summary come from sqlglot's tokenizer where
sqlglot is installed (`pip install "apmkit[sql]"`), and without it from the first keyword alone.
The tokenizer, not the parser: its time grows with the length of the statement, whatever it holds.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LENGTH = 4_096
"""Characters of a statement that are read; a bulk insert can be megabytes."""

MAX_SUMMARY = 255
"""Characters of a summary, as the semantic conventions have it."""

_DIALECTS = {
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "oracle.db": "oracle",
    "microsoft.sql_server": "tsql",
}

_STATEMENTS = (
    "ALTER ANALYZE ATTACH BEGIN CALL COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE DELETE DESCRIBE"
    " DETACH DO DROP EXEC EXECUTE EXPLAIN FETCH GRANT INSERT KILL LISTEN LOAD LOCK MERGE NOTIFY"
    " OPTIMIZE PRAGMA PREPARE REFRESH REINDEX RELEASE RENAME REPLACE RESET REVOKE ROLLBACK"
    " SAVEPOINT SELECT SET SHOW START TRUNCATE UNLISTEN UPDATE USE VACUUM VALUES"
)
_VERBS = frozenset(_STATEMENTS.split())
# Verbs that also occur inside a statement: in a subquery, a common table expression, EXPLAIN.
_INNER_VERBS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})
_BEFORE_INNER_VERB = frozenset(
    {"(", ")", "AS", "EXPLAIN", "ANALYZE", "PLAN", "MATERIALIZED", "BEGIN"}
)
_DEFINING = frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE"})
_OBJECTS = frozenset({"TABLE", "VIEW", "INDEX", "TRIGGER", "SCHEMA", "DATABASE"})
_BEFORE_NAME = frozenset(
    {"ABORT", "CONCURRENTLY", "EXISTS", "FAIL", "IF", "IGNORE", "LATERAL", "LOW_PRIORITY", "NOT"}
    | {"ONLY", "OR", "REPLACE", "ROLLBACK", "TABLE"}
)
_END_OF_FROM = frozenset(
    {"EXCEPT", "FETCH", "FOR", "GROUP BY", "HAVING", "INTERSECT", "LIMIT", "OFFSET", "ON"}
    | {"ORDER BY", "RETURNING", "SET", "UNION", "WHERE", "WINDOW"}
)
_FIRST_WORD = re.compile(r"[\s(;]*([A-Za-z]+)")
_PROCEDURE = re.compile(r"\s*([\w.]+)")


class Statement(NamedTuple):
    """What is known of a statement."""

    text: str
    """The statement without literals and comments, cut to 4,096 characters."""
    summary: str | None = None
    """Operations and their targets in order, `INSERT orders SELECT users`."""
    operation: str | None = None
    """`SELECT`; `BATCH` or `BATCH INSERT` for several statements in one text."""
    collection: str | None = None
    """The table, if there is exactly one."""


# Masking. One pass with one pattern, so that a quote in a comment, or `--` in a literal, is seen
# as what it is. Every alternative for a literal also ends at the end of the text.

_COMMENT = r"/\*(?:(?!\*/|/\*).)*(?:\*/|/\*.*|\Z)|--[^\n]*"  # a nested one takes all that follows
_MYSQL_COMMENT = r"/\*(?:(?!\*/).)*(?:\*/|\Z)|--(?=\s|\Z)[^\n]*|\#[^\n]*"
_DOLLAR_QUOTED = r"\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)"
_ESCAPED = r"[eE]'(?:[^'\\]|''|\\(?:.|\Z))*(?:'|\Z)"
_QUOTED = r"(?:[bBnNxX]|[uU]&)?'(?:[^']|'')*(?:'|\Z)"
# Whether a backslash escapes a quote depends on the server's settings: take all that follows.
_CAUTIOUS = r"(?:[bBnNxXrR])?'(?:[^'\\]|''|\\[^'])*(?:'|\\'.*|\\?\Z)"
_CAUTIOUS_DOUBLE = _CAUTIOUS.replace("'", '"')
_NUMBER = r"\.?\d[\w.]*(?:(?<=[eE])[+-]\d+)?"
_NAME = r"[^\W\d][\w$]*"
_QUOTED_NAME = r'"(?:[^"]|"")*(?:"|\Z)'
_BACKTICKED = r"`(?:[^`]|``)*(?:`|\Z)"
_BRACKETED = r"\[[^\]]*(?:\]|\Z)"
_NUMBERED = r"[$?]\d+"
_COLON_NUMBERED = r"(?<![\w\])\[?:]):\d+"


def _pattern(comment: str, literals: Sequence[str], kept: Sequence[str]) -> re.Pattern[str]:
    literal, keep = "|".join(literals), "|".join([_NAME, *kept])
    return re.compile(f"(?P<comment>{comment})|(?P<literal>{literal})|(?P<kept>{keep})", re.DOTALL)


_SQLITE = _pattern(
    _COMMENT,
    [_QUOTED, _NUMBER],
    [_NUMBERED, _COLON_NUMBERED, _QUOTED_NAME, _BACKTICKED, _BRACKETED],
)
_POSTGRESQL = _pattern(
    _COMMENT, [_ESCAPED, _QUOTED, _DOLLAR_QUOTED, _NUMBER], [_NUMBERED, _QUOTED_NAME]
)
_MYSQL = _pattern(_MYSQL_COMMENT, [_CAUTIOUS, _CAUTIOUS_DOUBLE, _NUMBER], [_NUMBERED, _BACKTICKED])
_OTHER = _pattern(
    _COMMENT,
    [_CAUTIOUS, _DOLLAR_QUOTED, _NUMBER],
    [_NUMBERED, _COLON_NUMBERED, _QUOTED_NAME, _BACKTICKED],
)
_PATTERNS = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "microsoft.sql_server": _SQLITE,  # the same quotes and brackets
}
_LIST = re.compile(r"\(\s?\?(?:\s?,\s?\?)+\s?\)")
_ROWS = re.compile(r"\(\?\)(?:\s?,\s?\(\?\))+")


def mask(statement: str, system: str = "other_sql") -> str:
    """Return a statement with `?` for every literal and without comments.

    Args:
        statement: SQL; its first 4,096 characters are read.
        system: `db.system.name`; it decides what a quote and a backslash mean. Text in double
            quotes is a name, except for MySQL and MariaDB.

    Example:
        >>> mask("SELECT * FROM users WHERE name = 'Ann' AND id IN (1, 2, 3)")
        'SELECT * FROM users WHERE name = ? AND id IN (?)'
    """
    masked = _PATTERNS.get(system, _OTHER).sub(_replacement, statement[:MAX_LENGTH])
    return _ROWS.sub("(?)", _LIST.sub("(?)", " ".join(masked.split())))


def _replacement(match: re.Match[str]) -> str:
    kind = match.lastgroup
    return "?" if kind == "literal" else " " if kind == "comment" else match.group()


def first_keyword(text: str) -> str | None:
    """Return the first word of a statement in capitals, if it is one that statements start with."""
    match = _FIRST_WORD.match(text)
    word = match.group(1).upper() if match else ""
    return word if word in _VERBS else None


def describe(text: str, system: str = "other_sql") -> Statement:
    """Return what a statement does to what.

    Args:
        text: a masked statement.
        system: `db.system.name`, for the dialect.

    Example:
        >>> describe("INSERT INTO orders SELECT id FROM users WHERE age > ?").summary
        'INSERT orders SELECT users'
    """
    tokenize = load_tokenizer()
    if tokenize is None:
        return Statement(text, operation=first_keyword(text))
    try:
        reader = _Reader(tokenize(text, read=_DIALECTS.get(system)))
        reader.read()
    except Exception:  # noqa: BLE001 - whatever a tokenizer thinks of the text, the call is recorded
        return Statement(text, operation=first_keyword(text))
    return Statement(text, reader.summary(), reader.operation(), reader.collection())


class _Level:
    """The state between two parentheses."""

    __slots__ = ("in_from", "verb")

    def __init__(self) -> None:
        self.verb = ""
        self.in_from = False


class _Reader:
    """Walks over tokens once and notes operations and targets."""

    def __init__(self, tokens: Sequence[object]) -> None:
        self._texts = [str(getattr(token, "text", "")) for token in tokens]
        self._quoted = [_kind(token) == "IDENTIFIER" for token in tokens]
        self._words = [
            "" if quoted else text.upper()
            for text, quoted in zip(self._texts, self._quoted, strict=True)
        ]
        self._parts: list[str] = []
        self._targets: list[str] = []
        self._operations: list[str] = []
        self._defined: set[str] = set()

    def read(self) -> None:
        """Walk over all tokens."""
        levels = [_Level()]
        for index, word in enumerate(self._words):
            level = levels[-1]
            before = self._word(index - 1)
            if word == "(":
                levels.append(_Level())
            elif word == ")":
                del levels[max(1, len(levels) - 1) :]
            elif word == ";":
                levels = [_Level()]
            elif word == "AS":
                self._define(index)
            elif word in _VERBS and self._is_verb(index, word):
                self._verb(index, word, level, outermost=len(levels) == 1)
            elif word in _END_OF_FROM:
                level.in_from = False
            elif level.verb:
                self._clause(index, word, before, level)

    def _verb(self, index: int, word: str, level: _Level, *, outermost: bool) -> None:
        if outermost and not level.verb:
            self._operations.append(word)
        level.verb = word
        level.in_from = False
        self._parts.append(word)
        if word == "UPDATE" or (word == "TRUNCATE" and self._word(index + 1) != "TABLE"):
            self._target(index + 1)
        elif word in {"CALL", "EXEC", "EXECUTE"}:
            # The tokenizer gives the rest of such a statement as one token.
            procedure = _PROCEDURE.match("".join(self._texts[index + 1 : index + 2]))
            self._parts += [procedure.group(1)] if procedure else []

    def _clause(self, index: int, word: str, before: str, level: _Level) -> None:
        opens = (word == "FROM" and before != "DISTINCT") or word == "JOIN"
        if opens or (word == "," and level.in_from):
            level.in_from = True
            self._target(index + 1, functions=True)
        elif word == "INTO" or (word == "USING" and level.verb in {"MERGE", "DELETE"}):
            self._target(index + 1)
        elif word in _OBJECTS and level.verb in _DEFINING and self._parts[-1] in _DEFINING:
            self._parts.append(word)
            self._target(index + 1)

    def _is_verb(self, index: int, word: str) -> bool:
        before = self._word(index - 1)
        if index == 0 or before == ";":
            return True
        if word not in _INNER_VERBS or (
            word in {"REPLACE", "INSERT"} and self._word(index + 1) == "("
        ):
            return False
        return word == "SELECT" or before in _BEFORE_INNER_VERB

    def _define(self, index: int) -> None:
        """Note the name of a common table expression: `name AS (`, `name (a, b) AS (`."""
        after = index + 1
        while self._word(after) in {"NOT", "MATERIALIZED"}:
            after += 1
        if self._word(after) != "(" or "WITH" not in self._words:
            return
        name = index - 1
        if self._word(name) == ")":
            while name >= 0 and self._word(name) != "(":
                name -= 1
            name -= 1
        if name >= 0:
            self._defined.add(self._texts[name].lower())

    def _target(self, index: int, *, functions: bool = False) -> None:
        """Note the name at `index`; `functions` may stand in its place and are no collections."""
        while self._word(index) in _BEFORE_NAME:
            index += 1
        if not self._is_name(index):
            return
        name = self._texts[index]
        while self._word(index + 1) == "." and self._is_name(index + 2):
            index += 2
            name = f"{name}.{self._texts[index]}"
        if (functions and self._word(index + 1) == "(") or name.lower() in self._defined:
            return
        self._parts.append(name)
        self._targets.append(name)

    def _is_name(self, index: int) -> bool:
        if index >= len(self._texts):
            return False
        text = self._texts[index]
        return self._quoted[index] or text[:1].isalpha() or text[:1] in {"_", "#"}

    def _word(self, index: int) -> str:
        return self._words[index] if 0 <= index < len(self._words) else ""

    def summary(self) -> str | None:
        """Return operations and targets, cut between two of them."""
        parts = self._parts
        while parts and len(" ".join(parts)) > MAX_SUMMARY:
            parts = (
                parts[: max(1, len(parts) * 3 // 4)] if len(parts) > 1 else [parts[0][:MAX_SUMMARY]]
            )
        return " ".join(parts) or None

    def operation(self) -> str | None:
        """Return the operation, BATCH for several."""
        operations = self._operations
        if len(operations) > 1:
            return f"BATCH {operations[0]}" if len(set(operations)) == 1 else "BATCH"
        # Without an outermost one, all stand in parentheses: (SELECT …) UNION (SELECT …).
        return operations[0] if operations else self._parts[0] if self._parts else None

    def collection(self) -> str | None:
        """Return the target, if there is only one."""
        return self._targets[0] if len(set(self._targets)) == 1 else None


def _kind(token: object) -> str:
    return getattr(getattr(token, "token_type", None), "name", "")


@lru_cache(maxsize=1)
def load_tokenizer() -> Callable[..., Sequence[object]] | None:
    """Return sqlglot's tokenizer, if it is installed.

    The import takes some 0.3 s, so it happens when a client is wrapped, not at its first call.
    """
    try:
        import sqlglot
    except ImportError:
        return None
    return sqlglot.tokenize
