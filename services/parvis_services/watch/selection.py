"""Which outputs the n-th of a number of images goes to."""

from __future__ import annotations

from collections.abc import Iterable


def outputs_for(number: int, total: int, outputs: Iterable[str]) -> list[str]:
    """Return those of `outputs` that image `number` (from 1) of `total` belongs to, in their order.

    `first`, `every`, `last`, `every-N` (each N-th from the first on), `select-N` (N images evenly spread, the
    first and the last among them) and a plain number are known; all other outputs are left out.
    """
    return [output for output in outputs if _belongs(number, total, output)]


def how_many(total: int, output: str) -> int:
    """Return how many of `total` images go to an output: all of them to `every`."""
    kind, count = _kind(output)
    if kind == "every":
        return -(-total // count) if count else total
    return min(count, total) if kind == "select" else 1


def _belongs(number: int, total: int, output: str) -> bool:
    fixed = {"first": number == 1, "every": True, "last": number == total}
    if output in fixed:
        return fixed[output]
    kind, count = _kind(output)
    if count == 0:
        return False
    if kind == "every":
        return (number - 1) % count == 0
    if kind == "select":
        return is_selected(number, total, count)
    return output.isdecimal() and number == count


def _kind(output: str) -> tuple[str, int]:
    """Return the parts of `every-7`; without a number above zero behind it, the whole name and 0."""
    kind, _, digits = output.rpartition("-")
    count = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0
    return (kind, count) if count else (output, 0)


def is_selected(number: int, total: int, count: int) -> bool:
    """Whether image `number` (from 1) is among `count` images evenly spread over `total`.

    The k-th selected image, k = 0 ... count-2, is floor(k total / (count-1)) + 1, and the last is `total`.
    A single one is the first.
    """
    if total <= count or number == 1:
        return True
    if count == 1:
        return False
    if number == total:
        return True
    k = -(-(number - 1) * (count - 1) // total)
    return k <= count - 2 and k * total // (count - 1) == number - 1
