from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apmkit.instrument.statement import MAX_LENGTH, MAX_SUMMARY, describe, load_tokenizer, mask

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMS = ("sqlite", "postgresql", "mysql", "microsoft.sql_server", "oracle.db", "other_sql")


@pytest.mark.parametrize(
    ("system", "statement", "masked"),
    [
        (
            "sqlite",
            "SELECT * FROM t1 WHERE a = 'x' AND b = 4",
            "SELECT * FROM t1 WHERE a = ? AND b = ?",
        ),
        ("sqlite", "SELECT 'it''s', x'1F', .5, 1e-9, 0x1f, -3", "SELECT ?, ?, ?, ?, ?, -?"),
        ("sqlite", "SELECT 'C:\\', 'secret'", "SELECT ?, ?"),
        ("sqlite", "SELECT [it's], \"a'b\", `c'd` FROM t", "SELECT [it's], \"a'b\", `c'd` FROM t"),
        (
            "sqlite",
            "a = ? AND b = :name AND c = @p1 AND d = $v AND e = ?3",
            "a = ? AND b = :name AND c = @p1 AND d = $v AND e = ?3",
        ),
        ("sqlite", "SELECT 1 -- it's\n, 'x'", "SELECT ? , ?"),
        ("sqlite", "SELECT /* it's */ 'x' /* open", "SELECT ?"),
        ("sqlite", "SELECT '-- no comment', 2", "SELECT ?, ?"),
        ("sqlite", "a IN (1, 2,3)", "a IN (?)"),
        ("sqlite", "INSERT INTO t VALUES (1,'a'), (2,'b'),(3,'c')", "INSERT INTO t VALUES (?)"),
        ("sqlite", "SELECT 'open", "SELECT ?"),
        (
            "postgresql",
            "SELECT E'it\\'s', U&'d', $$it's$$, $a$ $$ 'b' $a$, $1",
            "SELECT ?, ?, ?, ?, $1",
        ),
        (
            "postgresql",
            "a = %s AND b = %(name)s AND c::int = 4",
            "a = %s AND b = %(name)s AND c::int = ?",
        ),
        (
            "postgresql",
            "SELECT ARRAY['a', 'b'], x[1:2], x[:3]",
            "SELECT ARRAY[?, ?], x[?:?], x[:?]",
        ),
        ("postgresql", "SELECT 1 /* /* */ don't */, 'x'", "SELECT ?"),
        ("mysql", "SELECT 'it\\'s secret', \"two\"", "SELECT ?"),
        ("mysql", "SELECT \"a\", 'b\\\\', `c` # it's\n, 'd'", "SELECT ?, ?, `c` , ?"),
        ("mysql", "SELECT 5--'abc'", "SELECT ?--?"),
        ("oracle.db", "a = :1 AND b = :name", "a = :1 AND b = :name"),
    ],
)
def test_literals_are_masked_and_names_and_placeholders_kept(
    system: str, statement: str, masked: str
) -> None:
    assert mask(statement, system) == masked


NAMES = st.sampled_from(["users", "t1", '"Order Items"', "a.b_2", "%s", "$1", ":name", "?", "@p1"])
SECRET = "zq7"
TEXT = st.text(st.sampled_from("ab '\\\"-/*#$;\n`[]é%"), max_size=12)


def _quoted(text: str, system: str) -> str:
    if system == "mysql":
        text = text.replace("\\", "\\\\")
    return "'" + text.replace("'", "''") + "'"


@st.composite
def statements(draw: st.DrawFn) -> tuple[str, str]:
    system = draw(st.sampled_from(SYSTEMS))
    parts = ["SELECT"]
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["string", "number", "name", "comment", "dollar", "escape"]))
        secret = draw(TEXT) + SECRET + draw(TEXT)
        if kind == "string":
            parts.append(_quoted(secret, system))
        elif kind == "number":
            parts.append(
                draw(st.sampled_from(["{}", "-{}", ".{}", "{}.{}", "{}e-{}", "0x{}"])).replace(
                    "{}", "98765"
                )
            )
        elif kind == "name":
            parts.append(draw(NAMES) if system != "mysql" else "users")
        elif kind == "comment":
            parts.append(f"-- {secret}".replace("\n", " ") + "\n")
        elif kind == "dollar" and system == "postgresql":
            parts.append(f"$tag${secret}$tag$")
        elif kind == "escape" and system == "postgresql":
            parts.append("E'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'")
        parts.append(draw(st.sampled_from([",", "=", "AND", "(", ")"])))
    return system, " ".join(parts)


@given(statements())
def test_no_literal_survives(case: tuple[str, str]) -> None:
    system, statement = case
    masked = mask(statement, system)
    assert SECRET not in masked
    assert "98765" not in masked


@given(st.text(), st.sampled_from(SYSTEMS))
def test_whatever_the_text_is_it_is_described(text: str, system: str) -> None:
    masked = mask(text, system)
    assert describe(masked, system).text == masked


def test_masking_a_masked_statement_changes_nothing() -> None:
    once = mask("SELECT a FROM t WHERE b = 'x' AND c IN (1, 2)")
    assert mask(once) == once


def test_only_the_beginning_of_a_long_statement_is_read() -> None:
    assert len(mask("SELECT " + "a" * 1_000_000)) == MAX_LENGTH


@pytest.mark.parametrize(
    ("statement", "summary", "operation", "collection"),
    [
        ("SELECT * FROM users WHERE id = ?", "SELECT users", "SELECT", "users"),
        ("select a, b from s.t1 x, t2 where c in (?)", "SELECT s.t1 t2", "SELECT", None),
        (
            "INSERT INTO orders (a) SELECT b FROM users",
            "INSERT orders SELECT users",
            "INSERT",
            None,
        ),
        ("INSERT INTO t (a) VALUES (?) ON CONFLICT DO UPDATE SET a = ?", "INSERT t", "INSERT", "t"),
        ("INSERT OR REPLACE INTO t VALUES (?)", "INSERT t", "INSERT", "t"),
        ("REPLACE INTO t VALUES (?)", "REPLACE t", "REPLACE", "t"),
        ("UPDATE t SET a = REPLACE(a, ?, ?) WHERE b = ?", "UPDATE t", "UPDATE", "t"),
        ("DELETE FROM t WHERE a IN (SELECT b FROM u)", "DELETE t SELECT u", "DELETE", None),
        (
            "SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (y)",
            "SELECT a b c",
            "SELECT",
            None,
        ),
        ("SELECT a FROM (SELECT b FROM t) AS x, u", "SELECT SELECT t u", "SELECT", None),
        ("WITH x AS (SELECT a FROM t) SELECT a FROM x JOIN u", "SELECT t SELECT u", "SELECT", None),
        (
            "WITH x (a) AS (SELECT ?) INSERT INTO t SELECT a FROM x",
            "SELECT INSERT t SELECT",
            "INSERT",
            "t",
        ),
        ("(SELECT a FROM t) UNION (SELECT b FROM u)", "SELECT t SELECT u", "SELECT", None),
        (
            "SELECT EXTRACT(YEAR FROM d) FROM t WHERE a IS DISTINCT FROM b",
            "SELECT t",
            "SELECT",
            "t",
        ),
        ("SELECT * FROM generate_series(?, ?)", "SELECT", "SELECT", None),
        ('SELECT * FROM "Order Items"', "SELECT Order Items", "SELECT", "Order Items"),
        ("CREATE TABLE IF NOT EXISTS t (a INT)", "CREATE TABLE t", "CREATE", "t"),
        ("DROP TABLE t", "DROP TABLE t", "DROP", "t"),
        ("TRUNCATE t", "TRUNCATE t", "TRUNCATE", "t"),
        ("CALL refresh_totals(?)", "CALL refresh_totals", "CALL", None),
        ("BEGIN", "BEGIN", "BEGIN", None),
        ("COMMIT", "COMMIT", "COMMIT", None),
        ("PRAGMA user_version", "PRAGMA", "PRAGMA", None),
        ("EXPLAIN SELECT * FROM t", "EXPLAIN", "EXPLAIN", None),
        (
            "INSERT INTO t VALUES (?); INSERT INTO u VALUES (?)",
            "INSERT t INSERT u",
            "BATCH INSERT",
            None,
        ),
        ("CREATE TABLE t (a); INSERT INTO t VALUES (?)", "CREATE TABLE t INSERT t", "BATCH", "t"),
        ("hello there", None, None, None),
        ("", None, None, None),
    ],
)
def test_a_statement_is_summarized(
    statement: str, summary: str | None, operation: str | None, collection: str | None
) -> None:
    found = describe(statement)
    assert (found.summary, found.operation, found.collection) == (summary, operation, collection)


def test_a_long_summary_is_cut_between_two_names() -> None:
    names = ", ".join(f"table_number_{n}" for n in range(100))
    summary = describe(f"SELECT a FROM {names}").summary  # noqa: S608 - never executed
    assert summary is not None
    assert len(summary) <= MAX_SUMMARY
    assert summary.startswith("SELECT table_number_0 table_number_1 ")
    assert summary.split()[-1].startswith("table_number_")


@pytest.fixture
def without_sqlglot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    load_tokenizer.cache_clear()
    yield
    load_tokenizer.cache_clear()


@pytest.mark.usefixtures("without_sqlglot")
@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("select 1", "SELECT"),
        ("  (SELECT 1)", "SELECT"),
        ("frobnicate", None),
        ("", None),
        ("WITH a", None),
    ],
)
def test_without_sqlglot_the_first_keyword_is_the_operation(
    statement: str, operation: str | None
) -> None:
    found = describe(statement)
    assert (found.operation, found.summary, found.collection) == (operation, None, None)
