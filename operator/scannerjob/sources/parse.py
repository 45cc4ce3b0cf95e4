"""What can be told of a query from its text: that it only reads, and whether it limits its rows.

The parser knows less SQL than a database does. What it cannot read, the database decides on, in a
transaction that cannot write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scannerjob.ports import SourceError

if TYPE_CHECKING:
    from sqlglot import Token
    from sqlglot.expressions import Expr


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT. `text` is what its author wrote, `body` the same without a final semicolon.

    `limited` says that rows may match and still not be in its result, for a LIMIT of its own;
    `filtered` that it has a condition. `tables` has the tables' quoted names, by their aliases and
    as they may stand in a plan.
    """

    text: str
    body: str
    limited: bool
    filtered: bool = False
    tables: Mapping[str, str] = field(default_factory=dict)

    def wrapped(self, rest: str) -> str:
        """`SELECT * FROM (the query) s` and `rest`; the line break ends a comment of the query."""
        return f"SELECT * FROM ({self.body}\n) s {rest}"


def parse(text: str, dialect: str) -> Statement:
    """The one SELECT that this text is; raises SourceError, QueryRefused, if it is not one.

    `dialect` is sqlglot's name of it.
    """
    # A fifth of a second, which a process that never queries need not wait for.
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tokens = sqlglot.tokenize(text, dialect=dialect)
    except SqlglotError:
        return Statement(text, text.rstrip().rstrip(";"), limited=True)
    body = text[: _end(tokens, len(text))]
    _check_words(tokens)
    try:
        tree = sqlglot.parse_one(body, dialect=dialect)
    except (SqlglotError, RecursionError):
        filtered = _mentions(tokens, "WHERE")
        limited = _mentions(tokens, "LIMIT", "OFFSET", "FETCH")
        return Statement(text, body, limited, filtered)
    _check_tree(tree)
    return Statement(
        text,
        body,
        limited=_is_limited(tree, {}),
        filtered=_mentions(tokens, "WHERE"),
        tables=_tables(tree, dialect),
    )


def _end(tokens: list[Token], length: int) -> int:
    """Where the statement's final semicolon stands, or else its end."""
    from sqlglot import TokenType

    end = length
    for token in reversed(tokens):
        if token.token_type is not TokenType.SEMICOLON:
            break
        end = token.start
    return end


def _check_words(tokens: list[Token]) -> None:
    from sqlglot import TokenType

    kinds = [token.token_type for token in tokens]
    while kinds and kinds[-1] is TokenType.SEMICOLON:
        kinds.pop()
    if TokenType.SEMICOLON in kinds:
        raise _refused("must be one statement, and a semicolon stands between two")
    if not kinds or kinds[0] not in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
        raise _refused("must be a SELECT, or WITH ... SELECT")
    if TokenType.INTO in kinds:
        raise _refused("must only read, and SELECT ... INTO writes")
    if any(comment.startswith(("!", "M!")) for token in tokens for comment in token.comments):
        raise _refused(
            "must have no comment that begins with /*! or /*M!: MySQL runs what is in it"
        )


def _check_tree(tree: Expr) -> None:
    from sqlglot import expressions as sql

    if tree.find(sql.DML) or not isinstance(tree, sql.Query):
        raise _refused("must only read: no INSERT, UPDATE, DELETE or MERGE anywhere in it")
    if tree.find(sql.Lock):
        raise _refused("must not lock rows: no FOR UPDATE, FOR SHARE or LOCK IN SHARE MODE")


def _refused(what: str) -> SourceError:
    return SourceError("QueryRefused", f"spec.query {what}")


def _mentions(tokens: list[Token], *words: str) -> bool:
    from sqlglot import TokenType

    sought = {TokenType[word] for word in words}
    return any(token.token_type in sought for token in tokens)


def _tables(tree: Expr, dialect: str) -> dict[str, str]:
    from sqlglot import expressions as sql

    tables: dict[str, str] = {}
    for table in tree.find_all(sql.Table):
        name = sql.table_name(table, dialect=dialect, identify=True)
        tables |= {table.alias_or_name: name, sql.table_name(table): name}
    return tables


def _is_limited(tree: Expr | None, known: dict[str, bool]) -> bool:
    """Whether the query's rows are a part of those that match: by itself, or by what it reads from.

    `known` tells it of common table expressions, by name. A LIMIT in a join or a condition does not
    count: there it is most often one that picks a single row.
    """
    from sqlglot import expressions as sql

    if not isinstance(tree, sql.Query):
        return isinstance(tree, sql.Table) and known.get(tree.name.lower(), False)
    known = dict(known)
    for common in tree.ctes:
        known[common.alias.lower()] = _is_limited(common.this, known)
    if tree.args.get("limit") or tree.args.get("offset"):
        return True
    if isinstance(tree, sql.SetOperation):
        return _is_limited(tree.left, known) or _is_limited(tree.right, known)
    source = tree.this if isinstance(tree, sql.Subquery) else tree.args.get("from_")
    return _is_limited(source.this if isinstance(source, sql.From) else source, known)
