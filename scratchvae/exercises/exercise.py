"""What an exercise is, and how it is written into a file."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

WIDTH = 100  # of the lines of a statement


@dataclass(frozen=True)
class Exercise:
    """One function that somebody writes, with all that it takes to check it and to help.

    blank        is the function without its lines: arguments, a docstring with their shapes, and NotImplementedError.
    title        says in a few words what it is about.
    statement    says in plain words what is to be done.
    results      are the names of what the function returns, in order. A name that is "d" and an argument, such as dmu
                 for mu, is the gradient of `naive` with respect to that argument; any other is a value.
    arguments    is a function (generator) that returns a dict of arguments with which the function is called.
    naive        is what is differentiated: a function of the arguments, written out plainly, without a line of the
                 library's. It returns an array whose sum is the loss, or, where only values are asked for, a tuple of
                 them. If it has an argument `held`, it gets there the dict of the arguments that are not moved.
    library      is a function of the arguments that returns the right results by the library's own lines, as a tuple.
    exact_case   says in words a case that is known without any program.
    exact        is a function that gets the answer, calls it, and returns what came and what should.
    hint         says how to begin, and no more.
    reading      is where the derivation stands in the reading: the page and the name of the row.
    mistakes     is a dict from words to a function of the arguments, which returns the results that this mistake gives,
                 with None for those that it leaves right.
    sizes        is a dict of numbers with a meaning, such as {"M": 5}, so that a wrong factor gets its name.
    within       is the relative error that passes in the exact case.
    """

    blank: Callable
    title: str
    statement: str
    results: tuple
    arguments: Callable
    naive: Callable
    library: Callable
    exact_case: str
    exact: Callable
    hint: str
    reading: str
    mistakes: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=dict)
    within: float = 1e-9

    @property
    def name(self):
        """The name of the function, under which it is looked for in a file and in the record of what is solved."""
        return self.blank.__name__

    @property
    def values(self):
        """The names of those results that are values."""
        return [name for name in self.results if not self.is_gradient(name)]

    def is_gradient(self, result):
        """Say whether a result is a gradient: its name is "d" and an argument."""
        return result[:1] == "d" and result[1:] in inspect.signature(self.blank).parameters

    def text(self):
        """Return the statement in lines of text; lines that are indented, as formulas are, stay as they are."""
        paragraphs = inspect.cleandoc(self.statement).split("\n\n")
        return "\n\n".join(p if p.startswith(" ") else textwrap.fill(p, WIDTH) for p in paragraphs)

    def source(self):
        """Return the lines of the blank."""
        return inspect.getsource(self.blank)

    def file(self, number, path):
        """Return the text of a file with the statement and the blank, which is checked under this number and path."""
        return (
            f'"""Exercise {number}: {self.title}.\n\n{self.text()}\n\n'
            f"    scratchvae exercise {number} {path}    checks this file\n"
            f'    scratchvae exercise {number} --hint    gives a hint\n"""\n\n'
            f"import numpy as np\n\n\n{self.source()}"
        )


def gaussians(**shapes):
    """Return a function of a generator that draws a dict of arrays of these shapes from N(0, 1)."""
    return lambda generator: {name: generator.standard_normal(shape) for name, shape in shapes.items()}
