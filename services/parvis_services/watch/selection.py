"""Which outputs the n-th of a number of images goes to."""

from __future__ import annotations

from collections.abc import Iterable


def outputs_for(number: int, total: int, outputs: Iterable[str]) -> list[str]:
    """Return those of `outputs` that image `number` (from 1) of `total` belongs to, in their order.

    `first`, `every`, `last`, `every-N` (each N-th from the first on), `select-N` (N images evenly spread, the
    first and the last among them) and a plain number are known; all other outputs are left out.
    """
    return [output for output in outputs if _belongs(number, total, output)]


def _belongs(number: int, total: int, output: str) -> bool:
    fixed = {"first": number == 1, "every": True, "last": number == total}
    if output in fixed:
        return fixed[output]
    kind, _, digits = output.rpartition("-")
    count = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0
    if count == 0:
        return False
    if kind == "every":
        return (number - 1) % count == 0
    if kind == "select":
        return is_selected(number, total, count)
    return output == digits and number == count


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
