"""A factor as words: 1/M and √N in place of a number, where the caller has named sizes."""

import itertools
import math


def factor_words(k, sizes, tolerance=1e-5):
    """Return words for a factor, or "" if it is no product of up to three sizes, of their roots and of 2.

    Where several readings are equally simple, all are told.
    """
    if abs(k + 1) <= tolerance:
        return "the sign is wrong: it is -1 times the right one"
    readings = next(filter(None, (_readings(abs(k), sizes, count, tolerance) for count in (1, 2, 3))), [])
    if not readings:
        return ""
    sign = "-" if k < 0 else ""
    words = f"a factor: it is {sign}{f', or {sign}'.join(readings)} times the right one"
    if readings == ["2"]:
        words += " (a ½ is missing, or a term is counted twice)"
    elif len(simple := readings[0].split("/")) == 2 and simple[0] == "1" and simple[1] in sizes:
        words += f" (averaged over {simple[1]} where the loss is a sum)"
    elif readings[0] in sizes:
        words += f" (summed over {readings[0]} where the loss is an average)"
    return words


def _readings(k, sizes, count, tolerance):
    """Return k as texts, such as "2/M" and "√N M", each a product or a quotient of `count` factors."""
    found = []
    for names in itertools.combinations(["2", *sizes], count):
        numbers = [float(sizes.get(name, 2)) for name in names]
        for powers in itertools.product(*[(1, -1) if name == "2" else (1, -1, 0.5, -0.5) for name in names]):
            size = math.prod(n**p for n, p in zip(numbers, powers, strict=True))
            if abs(k / size - 1) <= tolerance and size != 1:
                above = " ".join(_power(name, p) for name, p in zip(names, powers, strict=True) if p > 0) or "1"
                below = [_power(name, -p) for name, p in zip(names, powers, strict=True) if p < 0]
                reading = (
                    f"{above}/{below[0]}" if len(below) == 1 else f"{above}/({' '.join(below)})" if below else above
                )
                found.append("½" if reading == "1/2" else reading)
    return found


def _power(name, p):
    return f"√{name}" if p == 0.5 else name


def number_words(k, sizes):
    """Return words for a factor beside another fault, such as ", and the sign is wrong", or "" for 1."""
    if abs(k - 1) <= 1e-4:
        return ""
    words = factor_words(k, sizes, 1e-4).partition(" (")[0]
    return f", and {words}" if words else f", and a factor: it is {k:.6g} times that"
