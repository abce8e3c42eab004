"""What must not leave the process: secrets in headers, query strings, SQL, texts and baggage.

Redaction happens once, as a kept trace is encoded, so that neither the journal nor an exporter
ever sees the original. What is read is bounded, and every pattern takes time in proportion to it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from re import Match

REDACTED = "[REDACTED]"

MAX_TEXT = 16_384
"""Characters of a text that are read; what comes after is cut off."""
MAX_STATEMENT = 4_096
"""The same for a statement; a bulk insert can be megabytes."""
MAX_NAME = 256
"""Characters of a name; a longer one is taken for a secret's."""

# Names as they are after `_words`: lower case, words joined by "_".
_SECRET = re.compile(
    r"(?!.*(?:error|exception|warning)$).*?(?:^|_)(?:"
    r"[a-z]*(?:passwords?|passwd|passphrase|passcode|secrets?|credentials?)"
    r"|[a-z]*token(?!s|_(?:count|type)s?$)"
    r"|[a-z]*(?:api|access|private|secret|auth|account|signing|encryption)_?key(?:_?id)?"
    r"|pass|pwd|auth|authorization|authentication|signature|sig|jwt|otp"
    r"|session(?:_?id|_?key)?(?=$)|[a-z]*cookies?"
    r")(?:_|$)"
)
# Names of OpenTelemetry's semantic conventions that only sound like secrets.
_PUBLIC = frozenset({"session.id", "session.previous_id", "gen_ai.token.type"})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS = re.compile(r"[\W_]+")

_NAME = re.compile(r"(?<![\w.-])([\w.-]+)[\"'\]]{0,2}\s*[=:]\s*")
_VALUE = re.compile(
    r"\"[^\"\n]*\"?|'[^'\n]*'?|(?:(?:bearer|basic|digest)\s+)?[^\s\"',;&)}\]]+", re.IGNORECASE
)
_SCHEME = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9._-]+")
_URL_USER = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)[^\s/?#]+@", re.IGNORECASE)
# SQLAlchemy puts the values of a failed statement into the exception's text.
_PARAMETERS = re.compile(r"(\[parameters: )[^\n]*")

# Read in one pass, because a comment may hold quotes and a literal may look like a comment. Where
# a backslash precedes a quote, databases differ on where the literal ends: all after it is masked.
_SQL = re.compile(
    r"""
    (?P<comment> /\*.*?(?:\*/|$) | --[^\n]* )
    | '(?:[^'\\]|''|\\[^'])*(?:\\'.*|'|\\?$)
    | \$(?P<tag>\w{0,64})\$.*?(?:\$(?P=tag)\$|$)
    | (?P<quoted> "(?:[^"]|"")*(?:"|$) )
    | (?<![\w$:@?.])-?(?:0x[0-9a-f]+|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?\b
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_SQL_IDENTIFIER = re.compile(r'"[A-Za-z_][\w$ ]*"')
_SQL_BEFORE_VALUE = re.compile(r"(?:[=<>]|\blike)\s*$|\bvalues\b.*$", re.IGNORECASE | re.DOTALL)
_SQL_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_SQL_ROWS = re.compile(r"\(\?\)(?:\s*,\s*\(\?\))+")


def query_string(query: str) -> str:
    """Return a URL's query string with the values of secret-looking parameters replaced.

    >>> query_string("page=2&access_token=abc")
    'page=2&access_token=[REDACTED]'
    """
    parts = re.split(r"([&;])", query[:MAX_TEXT])
    return "".join(map(_query_pair, parts))


def _query_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    return f"{key}={REDACTED}" if equals and secret_name(unquote_plus(key.lstrip("?"))) else pair


def text(value: str) -> str:
    """Return free text (an exception's message, a stack trace) without what looks like a secret."""
    value = _URL_USER.sub(rf"\1{REDACTED}@", value[:MAX_TEXT])
    value = _PARAMETERS.sub(rf"\1{REDACTED}]", value)
    value = _assignments(value)
    value = _SCHEME.sub(rf"\1 {REDACTED}", value)
    return _JWT.sub(REDACTED, value)


def _assignments(value: str) -> str:
    parts = []
    done = 0
    for found in _NAME.finditer(value):
        # What lies in a value that was replaced is gone: auth=token=...
        if found.start() < done or not secret_name(found[1]):
            continue
        secret = _VALUE.match(value, found.end())
        if secret:
            parts += [value[done : found.end()], REDACTED]
            done = secret.end()
    return "".join([*parts, value[done:]]) if parts else value


@lru_cache(maxsize=1_024)
def secret_name(name: str) -> bool:
    """Tell whether an attribute, header, parameter or baggage key of this name holds a secret."""
    if len(name) > MAX_NAME:
        return True
    words = _BETWEEN_WORDS.sub("_", _CAMEL.sub("_", name).lower())
    return name not in _PUBLIC and _SECRET.match(words) is not None


def sql(statement: str) -> str:
    """Return a statement with every literal replaced by `?`; lists of them become one.

    >>> sql("SELECT * FROM users WHERE name = 'Ann' AND id IN (1, 2, 3)")
    'SELECT * FROM users WHERE name = ? AND id IN (?)'
    """
    return _sql(statement[:MAX_STATEMENT])


@lru_cache(maxsize=512)
def _sql(statement: str) -> str:
    masked = " ".join(_SQL.sub(_masked, statement).split())
    return _SQL_ROWS.sub("(?)", _SQL_LIST.sub("(?)", masked))


def _masked(found: Match[str]) -> str:
    if found["comment"]:
        return " "
    quoted = found["quoted"]
    if quoted is None:
        return "?"
    # An identifier to the standard, and a text to MySQL and SQLite.
    before = found.string[max(found.start() - 512, 0) : found.start()]
    is_column = found.string[found.end() : found.end() + 1] in {".", "("}
    if _SQL_IDENTIFIER.fullmatch(quoted) and (is_column or not _SQL_BEFORE_VALUE.search(before)):
        return str(quoted)
    return "?"
