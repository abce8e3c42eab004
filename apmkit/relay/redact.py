"""What must not leave the process: secrets in headers, query strings, SQL, texts and baggage.

Redaction happens once, as a kept trace is encoded, so that neither the journal nor an exporter
ever sees the original.
"""

from __future__ import annotations

import re
from functools import lru_cache

REDACTED = "[REDACTED]"

_SECRET_NAME = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[-_.]?key|auth(?:orization)?|credential|"
    r"signature|sig|session(?:[-_.]?id)?|cookie|private[-_.]?key|access[-_.]?key|"
    r"awsaccesskeyid|x-goog-signature"
)
_SECRET_KEY = re.compile(rf"(?:^|[-_.])(?:{_SECRET_NAME})s?(?:$|[-_.])|^(?:{_SECRET_NAME})$", re.IGNORECASE)
_QUERY_SECRET = re.compile(rf"(?i)((?:^|[?&;])[^=&;]*(?:{_SECRET_NAME})[^=&;]*=)[^&;#]*")
_TEXT_SECRET = re.compile(
    rf"(?i)(\b[\w.-]*(?:{_SECRET_NAME})[\w.-]*[\"']?\s*[=:]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&)}}]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
_URL_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]*@")
# A quoted literal, a dollar-quoted one, or a number that is not part of a name.
_SQL_LITERAL = re.compile(
    r"'(?:[^'\\]|''|\\.)*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|$)|(?<![\w$:@?.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?\b",
    re.IGNORECASE | re.DOTALL,
)
_SQL_LITERAL_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_SQL_COMMENT = re.compile(r"/\*.*?(?:\*/|$)|--[^\n]*", re.DOTALL)

MAX_STATEMENT = 4_096
"""Characters of a statement that are read; a bulk insert can be megabytes."""


def query_string(text: str) -> str:
    """Return a URL's query string with the values of secret-looking parameters replaced."""
    return _QUERY_SECRET.sub(rf"\1{REDACTED}", text)


def text(value: str) -> str:
    """Return free text (an exception's message, a stack trace) without what looks like a secret."""
    value = _URL_PASSWORD.sub(rf"\1{REDACTED}@", value)
    value = _TEXT_SECRET.sub(rf"\1{REDACTED}", value)
    return _BEARER.sub(rf"\1 {REDACTED}", value)


@lru_cache(maxsize=1_024)
def secret_name(name: str) -> bool:
    """Tell whether an attribute, header or baggage key of this name holds a secret."""
    return bool(_SECRET_KEY.search(name.rpartition(".")[2].replace("-", "_")))


@lru_cache(maxsize=2_048)
def sql(statement: str) -> str:
    """Return a statement with every literal replaced by `?`; lists of them become one.

    >>> sql("SELECT * FROM users WHERE name = 'Ann' AND id IN (1, 2, 3)")
    'SELECT * FROM users WHERE name = ? AND id IN (?)'
    """
    cut = _SQL_COMMENT.sub(" ", statement[:MAX_STATEMENT])
    masked = _SQL_LITERAL.sub("?", cut)
    return " ".join(_SQL_LITERAL_LIST.sub("(?)", masked).split())
