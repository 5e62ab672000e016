"""What a gradient check has found: a row for each array, which prints as a table."""

import math
from dataclasses import dataclass, field


class GradientError(AssertionError):
    """A gradient check has failed; the message is its report."""


@dataclass(frozen=True)
class Row:
    """What was found for the gradient of one array, or for a value.

    name          is the name of the array.
    passed        says whether nothing speaks against the gradient.
    size          is how many numbers the array holds.
    checked       is how many of them were moved one by one, 0 for a value.
    norm          is ‖ours‖, the norm of the gradient, or the size of the value.
    oracle        is ‖ours - theirs‖ / ‖theirs‖ against the oracle, None where there was none.
    differences   is the same against differences, at the entries that were moved; None for a value, which has none.
    sees          is the smallest error of a single entry that the differences would have seen, None for a value.
    notes         is a tuple of sentences that say what is wrong, or what could not be seen.
    """

    name: str
    passed: bool
    size: int = 1
    checked: int = 0
    norm: float = math.nan
    oracle: float | None = None
    differences: float | None = None
    sees: float | None = None
    notes: tuple = ()


@dataclass(frozen=True)
class Report:
    """The rows of a gradient check. It is true if all of them have passed, and prints as a table.

    rows    is a list of `Row`.
    facts   is a list of sentences about the check as a whole: tolerances, points, witnesses.
    """

    rows: list = field(default_factory=list)
    facts: list = field(default_factory=list)

    @property
    def passed(self):
        """Say whether all rows have passed. A report without rows has shown nothing, and has not."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    def __bool__(self):
        return self.passed

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, name):
        """Return the row of this name, or at this place; a slice is a list of rows."""
        if isinstance(name, str):
            names = [row.name for row in self.rows]
            if name not in names:
                raise KeyError(f"{name!r} is no row of this report; it has {', '.join(names)}")
            return self.rows[names.index(name)]
        return self.rows[name]

    def __add__(self, other):
        facts = self.facts + [fact for fact in other.facts if fact not in self.facts]
        return Report(self.rows + other.rows, facts)

    def __str__(self):
        return table(self.rows, self.facts)

    def raise_if_failed(self):
        """Raise a `GradientError`, whose message is this report, unless all rows have passed."""
        if not self.passed:
            raise GradientError(f"the gradient check has failed\n{self}")

    def as_dict(self):
        """Return the report as dicts and lists, for JSON."""
        rows = [{name: _plain(value) for name, value in vars(row).items()} for row in self.rows]
        return {"passed": self.passed, "rows": rows, "facts": list(self.facts)}


def _plain(value):
    """Return a value of a row as JSON knows it: a number that is not finite becomes None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value


def table(rows, facts=()):
    """Return rows as text: a line for each, its notes below it, and then the facts."""
    width = max([len(row.name) for row in rows], default=0)
    counts = [_count(row) for row in rows]
    wide = max([len(count) for count in counts] + [7])
    lines = [f"{'':<{width}}  {'checked':>{wide}}       norm   oracle  differences     sees"]
    for row, count in zip(rows, counts, strict=True):
        oracle, differences, sees = ("-" if e is None else f"{e:.1e}" for e in (row.oracle, row.differences, row.sees))
        norm = "-" if row.norm is None or math.isnan(row.norm) else f"{row.norm:.3e}"
        errors = f"{norm:>9}  {oracle:>7}  {differences:>11}  {sees:>7}"
        lines.append(f"{row.name:<{width}}  {count:>{wide}}  {errors}  {'pass' if row.passed else 'FAIL'}")
        lines += [f"    {note}" for note in row.notes]
    return "\n".join([*lines, *facts])


def _count(row):
    if not row.checked:
        return "" if row.size == 1 else f"{row.size:,}"
    return f"{row.size:,}" if row.checked == row.size else f"{row.checked:,} of {row.size:,}"
