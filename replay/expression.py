"""A small language for questions about JSON: is this so, of this state or this event?

::

    containers.web.status == running
    phase in [stopped, deleted] and not paused
    count(status == "failed") > 0
    type == container.exited && exit.code != 0

On the left of a comparison stands a path: names and indices, ``containers["a.b"].exit.code``. On
its right stands a value: a number, ``"text"``, ``true``, ``false``, ``null``, a list, or a bare
word that means itself. A path alone asks whether there is something there. ``count``, ``any`` and
``all`` look at each of ``containers`` with the question in their brackets; ``len(path)`` counts. A
path that leads nowhere is ``null``: it equals nothing but ``null`` and is neither more nor less.
If nothing is answered with yes, paths that led nowhere in all that was looked at are told.
``=~`` asks whether a text has a match of a regular expression. ``and or not`` or ``&& || !``.

For programs: evaluation only looks; it is bounded by the text's length (EXPRESSION_CHARS_MAX) and
its depth.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

from typing_extensions import override

Subject: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Subject], Any]
Token: TypeAlias = tuple[str, str, int]
"""Its kind, its text, and where it begins."""

EXPRESSION_CHARS_MAX: Final = 2000
NESTING_MAX: Final = 50
ITEMS: Final = "containers"
NAMES_SHOWN_MAX: Final = 12
TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.-]))"
    r"|(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<sign>==|!=|<=|>=|=~|&&|\|\||[<>!()\[\],])"
    r"|(?P<word>[\w./:@~+-]+))"
)
COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CONSTANTS: Final = {"true": True, "false": False, "null": None}
SAME: Final = {"&&": "and", "||": "or", "!": "not"}


class ExpressionError(ValueError):
    """A text is no question; the message says where it goes wrong."""


def parse_expression(text: str) -> "Question":
    """Make a question out of its text.

    Returns:
        What answers it for an object of JSON.

    Raises:
        ExpressionError: It is none.
    """
    if len(text) > EXPRESSION_CHARS_MAX:
        raise ExpressionError(f"an expression has at most {EXPRESSION_CHARS_MAX} characters")
    parser = _Parser(_tokens(text), text)
    check = parser.either(0)
    parser.end()
    return Question(check, parser.paths)


class Question:
    """What answers for an object of JSON whether something is so of it.

    It remembers which of its paths never led anywhere: who misspells a name gets the same answer as
    one of whom nothing was ever so, and has to be told the difference.
    """

    def __init__(self, check: Check, paths: Sequence["_Path"]) -> None:
        self._check = check
        self._paths = paths

    def __call__(self, subject: Subject) -> bool:
        """The answer."""
        return bool(self._check(subject))

    def doubts(self) -> list[str]:
        """A line for each path that was followed and led nowhere in all that was looked at."""
        return [path.doubt() for path in self._paths if path.is_doubtful]


class _Path:
    """A path, and whether it has led anywhere yet."""

    def __init__(self, text: str, steps: list[str]) -> None:
        self._text = text
        self._steps = steps
        self._leads = False
        self._missed: Any = None

    def __call__(self, subject: Any) -> Any:
        found = _follow(subject, self._steps)
        if found is NOWHERE:
            self._missed = subject
            return None
        self._leads = True
        return found

    @property
    def is_doubtful(self) -> bool:
        return not self._leads and self._missed is not None

    def doubt(self) -> str:
        """What is wrong with it, and what there would have been."""
        at = self._missed
        for step in self._steps:
            if not isinstance(at, Mapping) or not isinstance(inner := at.get(step), Mapping):
                break
            at = inner
        names = list(at) if isinstance(at, Mapping) else []
        if len(names) > NAMES_SHOWN_MAX:
            names[NAMES_SHOWN_MAX:] = ["\N{HORIZONTAL ELLIPSIS}"]
        there = f"; there are {', '.join(map(str, names))}" if names else ""
        return f"{self._text!r} led nowhere in anything that was looked at{there}"


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            rest = text[at:].lstrip()
            raise ExpressionError(
                f"{rest[:20]!r} at {len(text) - len(rest) + 1} is not understood: put it in quotes?"
            )
        kind, shown = found.lastgroup, found[found.lastgroup]
        if kind == "sign":
            kind = shown = SAME.get(shown, shown)
        elif kind == "word" and shown in {"and", "or", "not", "in"}:
            kind = shown
        tokens.append((kind, shown, found.start(found.lastgroup)))
        at = found.end()
    return [*tokens, ("end", "the end", end)]


class _Parser:
    """Recursive descent, one method a level of binding."""

    def __init__(self, tokens: list[Token], text: str) -> None:
        self._tokens = tokens
        self._text = text
        self._next = 0
        self.paths: list[_Path] = []

    def either(self, depth: int) -> Check:
        parts = [self._both(depth)]
        while self._take("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda on: any(part(on) for part in parts)

    def _both(self, depth: int) -> Check:
        parts = [self._one(depth)]
        while self._take("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else lambda on: all(part(on) for part in parts)

    def _one(self, depth: int) -> Check:
        if depth > NESTING_MAX:
            raise ExpressionError(
                f"more than {NESTING_MAX} brackets or negations within each other"
            )
        if self._take("not"):
            inner = self._one(depth + 1)
            return lambda on: not inner(on)
        if self._take("("):
            inner = self.either(depth + 1)
            self._want(")")
            return inner
        return self._comparison(depth)

    def _comparison(self, depth: int) -> Check:
        left = self._operand(depth)
        kind, sign, _ = self._tokens[self._next]
        if kind not in {"==", "!=", "in", "=~", *COMPARISONS}:
            return left
        self._next += 1
        right = self._value()
        match sign:
            case "==":
                return lambda on: _equal(left(on), right)
            case "!=":
                return lambda on: not _equal(left(on), right)
            case "in":
                members = right if isinstance(right, list) else [right]
                return lambda on: any(_equal(left(on), each) for each in members)
            case "=~":
                pattern = self._pattern(right)
                return lambda on: isinstance(found := left(on), str) and pattern.search(found)
        return _ordered(left, COMPARISONS[sign], right)

    def _operand(self, depth: int) -> Check:
        kind, shown, at = self._tokens[self._next]
        if kind == "word" and self._tokens[self._next + 1][0] == "(":
            return self._call(shown, at, depth)
        if kind != "word":
            raise self._wrong("a path")
        return self._path()

    def _call(self, name: str, at: int, depth: int) -> Check:
        self._next += 2
        if name == "len":
            path = self._path()
            self._want(")")
            return lambda on: _length(path(on))
        if name not in {"count", "any", "all"}:
            raise ExpressionError(f"{name!r} at {at + 1}: want count, any, all or len")
        counter = _Counter(self.either(depth + 1))
        self._want(")")
        match name:
            case "count":
                return counter.count
            case "any":
                return lambda on: counter.count(on) > 0
        return lambda on: counter.count(on) == sum(map(len, _groups(on)))

    def _path(self) -> Check:
        kind, shown, begin = self._tokens[self._next]
        if kind != "word":
            raise self._wrong("a path")
        self._next += 1
        steps = [step for step in shown.split(".") if step]
        while self._take("["):
            kind, member, _ = self._tokens[self._next]
            if kind not in {"text", "number", "word"}:
                raise self._wrong("a name or an index")
            self._next += 1
            self._want("]")
            steps.append(_unquoted(member) if kind == "text" else member)
            kind, more, _ = self._tokens[self._next]
            if kind == "word" and more.startswith("."):
                self._next += 1
                steps += [step for step in more.split(".") if step]
        text = self._text[begin : self._tokens[self._next][2]].rstrip()
        self.paths.append(_Path(text, steps))
        return self.paths[-1]

    def _value(self) -> Any:
        kind, shown, _ = self._tokens[self._next]
        self._next += 1
        match kind:
            case "number":
                return float(shown) if "." in shown else int(shown)
            case "text":
                return _unquoted(shown)
            case "word":
                return CONSTANTS.get(shown, shown)
            case "[":
                return self._list()
        self._next -= 1
        raise self._wrong("a value")

    def _list(self) -> list[Any]:
        members: list[Any] = []
        while not self._take("]"):
            if members:
                self._want(",")
            if self._tokens[self._next][0] == "[":
                raise self._wrong("a value that is no list")
            members.append(self._value())
        return members

    def _pattern(self, right: Any) -> "re.Pattern[str]":
        try:
            return re.compile(str(right))
        except (re.error, RecursionError, OverflowError) as error:
            raise ExpressionError(f"{right!r} is no regular expression: {error}") from error

    def end(self) -> None:
        if self._tokens[self._next][0] != "end":
            raise self._wrong("and, or, a comparison or the end")

    def _take(self, kind: str) -> bool:
        if self._tokens[self._next][0] != kind:
            return False
        self._next += 1
        return True

    def _want(self, kind: str) -> None:
        if not self._take(kind):
            raise self._wrong(repr(kind))

    def _wrong(self, wanted: str) -> ExpressionError:
        _, shown, at = self._tokens[self._next]
        return ExpressionError(f"at {at + 1} want {wanted}, but there is {shown!r}")


def _unquoted(shown: str) -> str:
    return re.sub(r"\\(.)", r"\1", shown[1:-1], flags=re.DOTALL)


NOWHERE: Final = object()


def _follow(subject: Any, steps: list[str]) -> Any:
    """Where a path leads, or NOWHERE; a name with dots in it may be written as several steps."""
    for number, step in enumerate(steps):
        if isinstance(subject, list | Grouped) and step.isascii() and step.isdigit():
            if int(step) >= len(subject):
                return NOWHERE
            subject = subject[int(step)]
        elif isinstance(subject, Mapping):
            if step not in subject:
                return _dotted(subject, steps[number:])
            subject = subject[step]
        else:
            return NOWHERE
    return subject


def _dotted(subject: Mapping[str, Any], steps: list[str]) -> Any:
    for end in range(2, len(steps) + 1):
        if (name := ".".join(steps[:end])) in subject:
            return _follow(subject[name], steps[end:])
    return NOWHERE


class Grouped(Sequence[Any]):
    """Items in groups. As long as a group is the same list, nothing in it has changed."""

    def __init__(self, groups: Sequence[list[Any]]) -> None:
        self.groups = groups

    @override
    def __getitem__(self, at: Any) -> Any:
        return list(chain.from_iterable(self.groups))[at]

    @override
    def __len__(self) -> int:
        return sum(map(len, self.groups))


class _Counter:
    """Counts items of which something is so, and looks again only at groups that have changed."""

    def __init__(self, inner: Check) -> None:
        self._inner = inner
        self._known: dict[int, tuple[list[Any], int]] = {}

    def count(self, subject: Subject) -> int:
        known: dict[int, tuple[list[Any], int]] = {}
        for group in _groups(subject):
            before = self._known.get(id(group))
            if before is None or before[0] is not group:
                before = (group, sum(map(bool, map(self._inner, group))))
            known[id(group)] = before
        self._known = known
        return sum(count for _, count in known.values())


def _groups(subject: Subject) -> Sequence[list[Any]]:
    found = subject.get(ITEMS)
    if isinstance(found, Grouped):
        return found.groups
    if isinstance(found, Mapping):
        return [list(found.values())]
    return [found] if isinstance(found, list) else []


def _length(found: Any) -> int:
    return len(found) if isinstance(found, str | Sequence | Mapping) else 0


def _equal(found: Any, value: Any) -> bool:
    """Equal, and of one kind: ``true`` is not 1."""
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    return bool(found == value)


def _ordered(left: Check, compare: Callable[[Any, Any], Any], right: Any) -> Check:
    def check(on: Subject) -> bool:
        found = left(on)
        numbers = all(
            isinstance(each, int | float) and not isinstance(each, bool) for each in (found, right)
        )
        texts = isinstance(found, str) and isinstance(right, str)
        return bool(compare(found, right)) if numbers or texts else False

    return check
