"""Selectors: the SQL-92 conditions with which a subscription says which messages it wants.

The grammar is that of JMS message selectors without arithmetic::

    condition  = term {OR term}             term  = factor {AND factor}
    factor     = [NOT] (test | '(' condition ')')
    test       = operand [comparison operand
                 | [NOT] LIKE 'pattern' [ESCAPE 'c'] | [NOT] IN ('a', ...)
                 | [NOT] BETWEEN operand AND operand | IS [NOT] NULL]
    operand    = name | 'text' | number | TRUE | FALSE

Names are those of headers and of JMS fields. A header that is missing makes a test unknown, neither true
nor false, as in SQL. Headers are text: compared with a number they are read as one, where they can be.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 50

Value = str | int | float | bool | None


class HasProperties(Protocol):
    """What a selector is asked about."""

    def property(self, name: str) -> Value: ...


class SelectorError(ValueError):
    """A selector that cannot be read: says what is wrong and at which character."""


Node = Callable[[HasProperties], Value]
Logic = Callable[[HasProperties], bool | None]

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<text>'(?:[^']|'')*')
      | (?P<name>[A-Za-z_$][\w$.]*)
      | (?P<sign><>|<=|>=|[=<>(),])
    )""",
    re.VERBOSE,
)
_WORDS: Final = frozenset(
    ["AND", "OR", "NOT", "LIKE", "ESCAPE", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"]
)
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_END: Final = ("end", "", 0)
_Token = tuple[str, str, int]


class Selector:
    """A condition on messages.

    Args:
        text: the condition.

    Raises:
        SelectorError: it cannot be read, is longer than 4096 characters or nested deeper than 50.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._test = _Reader(text).read()

    def matches(self, message: HasProperties) -> bool:
        """True where the condition is true, False where it is false or unknown."""
        return self._test(message) is True


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"the selector is longer than {MAX_LENGTH} characters")
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise SelectorError(
                f"selector: unexpected {text[position:].strip()[:1]!r} at character {position}"
            )
        kind = str(match.lastgroup)
        word, start = match.group(kind), match.start(kind)
        if kind == "name" and word.upper() in _WORDS:
            kind, word = "word", word.upper()
        tokens.append((kind, word, start))
        position = match.end()
    return tokens


class _Reader:
    """Turns the tokens of one selector into functions, by recursive descent."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._length = len(text)
        self._next = 0
        self._depth = 0

    def read(self) -> Logic:
        result = self._condition()
        if self._peek() is not _END:
            self._fail("the end")
        return result

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else _END

    def _take(self, *words: str) -> str | None:
        """Step over one of these words or signs, if it comes next."""
        kind, word, _ = self._peek()
        if kind in {"word", "sign"} and word in words:
            self._next += 1
            return word
        return None

    def _need(self, word: str) -> None:
        if not self._take(word):
            self._fail(repr(word))

    def _fail(self, expected: str) -> NoReturn:
        kind, word, position = self._peek()
        found = "the end" if kind == "end" else repr(word)
        place = self._length if kind == "end" else position
        raise SelectorError(f"selector: {expected} expected at character {place}, found {found}")

    def _condition(self) -> Logic:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SelectorError(f"the selector is nested deeper than {MAX_DEPTH}")
        terms = [self._term()]
        while self._take("OR"):
            terms.append(self._term())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else lambda message: _any([term(message) for term in terms])

    def _term(self) -> Logic:
        factors = [self._factor()]
        while self._take("AND"):
            factors.append(self._factor())
        return factors[0] if len(factors) == 1 else lambda message: _all([test(message) for test in factors])

    def _factor(self) -> Logic:
        negations = 0
        while self._take("NOT"):
            negations += 1
        if self._take("("):
            inner = self._condition()
            self._need(")")
        else:
            inner = self._test()
        return _negated(inner) if negations % 2 else inner

    def _test(self) -> Logic:
        left = self._operand()
        if sign := self._take(*_COMPARE):
            right = self._operand()
            return lambda message: _compare(sign, left(message), right(message))
        if self._take("IS"):
            wanted = self._take("NOT") is None
            self._need("NULL")
            return lambda message: (left(message) is None) is wanted
        negated = self._take("NOT") is not None
        if self._take("LIKE"):
            test = self._like(left)
        elif self._take("IN"):
            test = self._in(left)
        elif self._take("BETWEEN"):
            test = self._between(left)
        elif negated:
            self._fail("LIKE, IN or BETWEEN")
        else:
            return lambda message: _truth(left(message))
        return _negated(test) if negated else test

    def _operand(self) -> Node:
        kind, word, _ = self._peek()
        if kind == "word" and word in {"TRUE", "FALSE"}:
            self._next += 1
            return lambda _message: word == "TRUE"
        if kind not in {"name", "text", "number"}:
            self._fail("a name, text or number")
        self._next += 1
        if kind == "name":
            return lambda message: message.property(word)
        value: Value = word[1:-1].replace("''", "'") if kind == "text" else _number(word)
        return lambda _message: value

    def _text(self) -> str:
        kind, word, _ = self._peek()
        if kind != "text":
            self._fail("text in single quotes")
        self._next += 1
        return word[1:-1].replace("''", "'")

    def _like(self, left: Node) -> Logic:
        pattern = self._text()
        escape = self._text() if self._take("ESCAPE") else ""
        parts = _like_parts(pattern, escape)

        def test(message: HasProperties) -> bool | None:
            value = left(message)
            return None if value is None else _like(str(value), parts)

        return test

    def _in(self, left: Node) -> Logic:
        self._need("(")
        values = {self._text()}
        while self._take(","):
            values.add(self._text())
        self._need(")")

        def test(message: HasProperties) -> bool | None:
            value = left(message)
            return None if value is None else str(value) in values

        return test

    def _between(self, left: Node) -> Logic:
        low = self._operand()
        self._need("AND")
        high = self._operand()

        def test(message: HasProperties) -> bool | None:
            value = left(message)
            return _all([_compare(">=", value, low(message)), _compare("<=", value, high(message))])

        return test


def _negated(test: Logic) -> Logic:
    def result(message: HasProperties) -> bool | None:
        value = test(message)
        return None if value is None else not value

    return result


def _any(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def _all(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _truth(value: Value) -> bool | None:
    """A name alone is a condition where it holds a boolean."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _number(value: Value) -> float | None:
    """As a number, or None. Whole numbers stay whole: ids and times in ns are beyond a float's digits."""
    if not isinstance(value, str):
        return None if isinstance(value, bool) else value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return None


def _compare(sign: str, left: Value, right: Value) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, bool) or isinstance(right, bool):
        a, b = _truth(left), _truth(right)
    elif isinstance(left, str) and isinstance(right, str):
        # Text has no order in JMS; only equality can be asked.
        return (left == right) is (sign == "=") if sign in {"=", "<>"} else None
    else:
        a, b = _number(left), _number(right)
    return None if a is None or b is None else _COMPARE[sign](a, b)


_MANY: Final = "%"
_ONE: Final = "_"
_Part = tuple[str, bool]  # a character, and whether it is a wildcard


def _like_parts(pattern: str, escape: str) -> list[_Part]:
    parts: list[_Part] = []
    escaped = False
    for char in pattern:
        if not escaped and char == escape:
            escaped = True
            continue
        parts.append((char, not escaped and char in {_MANY, _ONE}))
        escaped = False
    return parts


def _like(text: str, parts: list[_Part]) -> bool:
    """Greedy matching that goes back to the last `%` only: time is at most len(text) x len(parts)."""
    at, part, many, resume = 0, 0, -1, 0
    while at < len(text):
        char, wild = parts[part] if part < len(parts) else ("", False)
        if wild and char == _MANY:
            many, resume = part, at
            part += 1
        elif char and ((wild and char == _ONE) or (not wild and char == text[at])):
            at, part = at + 1, part + 1
        elif many >= 0:
            resume += 1
            at, part = resume, many + 1
        else:
            return False
    return all(wild and char == _MANY for char, wild in parts[part:])
