"""A filter of rows as a text: ``day = "2026-01-02" and score > 0.5``. It is parsed, never
evaluated.

    filter    = and-part { "or" and-part }
    and-part  = test { "and" test }
    test      = "not" test | "(" filter ")" | column comparison
    comparison = ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") value
               | ["not"] "in" "(" value { "," value } ")"  |  "is" ["not"] "null"
    value     = "text" | 'text' | number | true | false
    column    = a name, or `any text` between backticks

A value is compared as the type of its column: a text with a date column is a date.
"""

from __future__ import annotations

import operator
import re
from typing import Any

from dask_embstab.errors import InputError
from dask_embstab.extras import require_extra
from dask_embstab.repairs import option

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)|`(?P<quoted>[^`]+)`|(?P<word>[^\W\d][\w.]*))"""
)
_COMPARE = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MOST_DEPTH = 50


def row_filter(given: Any, schema: Any) -> Any:
    """The pyarrow expression of a filter: a text is parsed, an expression handed on; None for None.

    Raises `InputError` where the text is no filter, or names no column of the ``schema``.
    """
    if given is None:
        return None
    compute = require_extra("pyarrow.compute", "parquet", what="a filter of rows")
    if isinstance(given, compute.Expression):
        return given
    if not isinstance(given, str):
        raise InputError(
            f"{option('where')} is a text such as 'day = \"2026-01-02\"', or an expression of"
            f" pyarrow; a {type(given).__name__} came"
        )
    return _Parser(given, schema).parse()


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, schema: Any) -> None:
        self._text, self._schema = text, schema
        self._compute = require_extra("pyarrow.compute", "parquet", what="a filter of rows")
        self._tokens = self._split(text)
        self._at = self._depth = 0

    def parse(self) -> Any:
        expression = self._either()
        if self._at < len(self._tokens):
            raise self._wrong(f"{self._tokens[self._at][1]!r} is not expected there")
        return expression

    def _split(self, text: str) -> list[tuple[str, str]]:
        tokens, at, end = [], 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._wrong(f"{text[at:].strip()[:20]!r} cannot be read")
            kind = str(match.lastgroup)
            tokens.append((kind, match[kind]))
            at = match.end()
        return tokens

    def _wrong(self, why: str) -> InputError:
        return InputError(
            f'{option("where")} is a filter such as day = "2026-01-02" and score > 0.5;'
            f" in {self._text!r} {why}"
        )

    def _word(self, *words: str) -> bool:
        """Whether the next token is one of these words or signs, which is taken then."""
        kind, token = self._next_token()
        if kind in ("word", "sign") and token.lower() in words:
            self._at += 1
            return True
        return False

    def _next_token(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _require(self, *words: str) -> None:
        if not self._word(*words):
            raise self._wrong(f"{' or '.join(words)!r} must follow, not {self._next_token()[1]!r}")

    def _either(self) -> Any:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise self._wrong("brackets are nested too deeply")
        expression = self._all()
        while self._word("or"):
            expression = expression | self._all()
        self._depth -= 1
        return expression

    def _all(self) -> Any:
        expression = self._test()
        while self._word("and"):
            expression = expression & self._test()
        return expression

    def _test(self) -> Any:
        negated = False
        while self._word("not"):
            negated = not negated
        if self._word("("):
            expression = self._either()
            self._require(")")
        else:
            expression = self._comparison()
        return ~expression if negated else expression

    def _comparison(self) -> Any:
        kind, name = self._next_token()
        if kind not in ("word", "quoted"):
            raise self._wrong(f"a column must stand where {name!r} does")
        self._at += 1
        if name not in self._schema.names:
            raise self._wrong(
                f"{name!r} is no column; there are {', '.join(self._schema.names[:20])}"
            )
        field, type_ = self._compute.field(name), self._schema.field(name).type
        if self._word("is"):
            negated = self._word("not")
            self._require("null")
            return field.is_valid() if negated else field.is_null()
        negated = self._word("not")
        if self._word("in"):
            self._require("(")
            values = [self._value(type_)]
            while self._word(","):
                values.append(self._value(type_))
            self._require(")")
            pa = require_extra("pyarrow", "parquet", what="a filter of rows")
            expression = field.isin(pa.array([value.as_py() for value in values], values[0].type))
            return ~expression if negated else expression
        kind, sign = self._next_token()
        if negated or sign not in _COMPARE:
            raise self._wrong(
                f"a comparison (=, !=, <, <=, >, >=, in, is null) must follow {name!r}"
            )
        self._at += 1
        return _COMPARE[sign](field, self._compute.scalar(self._value(type_)))

    def _value(self, type_: Any) -> Any:
        """A value as a scalar of the column's type."""
        pa = require_extra("pyarrow", "parquet", what="a filter of rows")
        kind, token = self._next_token()
        value: Any
        if kind == "text":
            value = re.sub(r"\\(.)", r"\1", token[1:-1])
        elif kind == "number":
            value = int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
        elif kind == "word" and token.lower() in ("true", "false"):
            value = token.lower() == "true"
        else:
            raise self._wrong(
                f"a value (a text in quotes, a number, true, false) must stand where {token!r} does"
            )
        self._at += 1
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        is_fraction = isinstance(value, float) and pa.types.is_integer(type_)
        try:
            return pa.scalar(value) if is_fraction else pa.scalar(value).cast(type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise self._wrong(f"{token} is no value of a column of {type_} ({error})") from error
