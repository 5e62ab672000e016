"""scratchvae exercise: list the exercises, write the blank of one into a file, and check what was written."""

import argparse
from pathlib import Path

from scratchvae.arguments import positive
from scratchvae.cli.read import READING
from scratchvae.cli.shared import add_command, place, quoted
from scratchvae.files import told

EPILOG = """examples:
  scratchvae exercise                      a table of all exercises, and which of them are solved
  scratchvae exercise 7                    what number 7 asks for
  scratchvae exercise 7 --start            write that and a function without its lines into exercise_07.py
  scratchvae exercise 7 exercise_07.py     check what you have written: what is right, and what is wrong, in words
  scratchvae exercise 7 --hint             how to begin

The exit code of a check is 0 if the exercise is solved and 1 if not. What is started and solved is kept in
runs/exercises.json, in the current folder, and nowhere else."""


def exercise(number=None, file=None, start=False, hint=False, seconds=20.0):
    """List the exercises, or show, start or check the one of this number.

    Without `number` all are listed. With `start` the blank is written into `file`, or into exercise_07.py and the like;
    `start` may be the file itself. A file that is there is never overwritten. With `hint` the hint is printed.
    Otherwise `file` is checked, in a process of its own that may take so many `seconds`.
    """
    from scratchvae.exercises import exercise_of

    if start and start is not True and file is not None:
        raise ValueError(f"two files came, {file} and {start}; expected one, as in {number} --start {start}")
    if number is None:
        if start or hint:
            option = "--start" if start else "--hint"
            raise ValueError(f"{option} needs the number of an exercise, as in 7 {option}")
        return _list()
    one = exercise_of(number)
    if hint and (start or file is not None):
        raise ValueError(f"--hint goes with a number alone, as in {number} --hint")
    if hint:
        print(one.hint)
        print(f"The whole derivation: {_link(one)}")
        return 0
    if start:
        file = file if start is True else start
        return _start(number, one, Path(f"exercise_{number:02d}.py" if file is None else file))
    if file is not None:
        return _check(number, one, Path(file), positive("--seconds", seconds))
    return _show(number, one)


def _list():
    """Print a line for each exercise, with its state, and how to go on."""
    from scratchvae.exercises import EXERCISES, progress

    states = progress.read()
    width = max(len(one.title) for one in EXERCISES)
    for number, one in enumerate(EXERCISES, start=1):
        print(f"{number:2d}  {one.title:<{width}}  {states.get(one.name, '-')}")
    solved = sum(states.get(one.name) == "solved" for one in EXERCISES)
    print(f"\n{solved} of {len(EXERCISES)} are solved")
    number = _next(states) or 1
    print("\n".join(_commands(number, f"exercise_{number:02d}.py")))
    return 0


def _next(states):
    """Return the number of the first exercise that is not solved, or None if all are."""
    from scratchvae.exercises import EXERCISES

    open_ones = [k for k, one in enumerate(EXERCISES, start=1) if states.get(one.name) != "solved"]
    return open_ones[0] if open_ones else None


def _commands(number, path):
    return [
        f"  scratchvae exercise {number} --start".ljust(44) + f"writes it into {path}",
        f"  scratchvae exercise {number} {path}".ljust(44) + "checks what you have written",
        f"  scratchvae exercise {number} --hint".ljust(44) + "says how to begin",
    ]


def _link(one):
    return f"{READING}/{one.reading} (scratchvae read writes it)"


def _show(number, one):
    """Print what an exercise asks for."""
    print(f"Exercise {number}: {one.title}\n\n{one.text()}\n\n{one.source()}")
    print("\n".join(_commands(number, f"exercise_{number:02d}.py")))
    return 0


def _start(number, one, path):
    """Write the blank of an exercise into a file that is not there yet."""
    from scratchvae.exercises import progress

    if path.suffix != ".py":
        raise ValueError(f"{path} does not end in .py; expected a name such as exercise_{number:02d}.py")
    progress.read()  # before anything is written
    begun = False
    try:
        with open(path, "x", encoding="utf-8") as file:
            begun = True
            file.write(one.file(number, quoted(path)))
    except FileExistsError:
        raise ValueError(f"{path} is there already, and is not overwritten: name another file, or check it") from None
    except OSError as error:
        if begun:  # half a file would stand in the way of the next try
            path.unlink(missing_ok=True)
        raise told(error, f"{path} cannot be written ({error.strerror})") from error
    progress.note(one.name, "started")
    print(f"{path} is written. Put lines in the place of NotImplementedError, and then")
    print(f"  scratchvae exercise {number} {quoted(path)}")
    return 0


def _check(number, one, path, seconds):
    """Check a file, print the verdict, note the progress, and return the exit code."""
    from scratchvae.exercises import progress
    from scratchvae.exercises.checking import CHECKS, MISSING
    from scratchvae.gradcheck.homework import mark, passed

    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"{path} is no file *.py; scratchvae exercise {number} --start writes one to begin with")
    progress.read()  # a record that is broken is told before the work
    marked = mark(path, seconds=seconds, checks=(CHECKS, str(number)))
    rows = [row for check in marked["checks"] for row in check["rows"]]
    if rows and rows[0]["name"] == MISSING:
        raise ValueError(f"{path} {rows[0]['notes'][0]}")
    if marked["printed"].strip():
        print(f"{path} prints:\n{marked['printed'].strip()}\n")
    print(_verdict(marked, rows))
    solved = passed(marked)
    progress.note(one.name, "solved" if solved else "started")
    if not solved:
        print(f"\nnot solved yet; scratchvae exercise {number} --hint says how to begin")
        return 1
    print(f"\nsolved; the derivation to compare with: {_link(one)}")
    following = _next(progress.read())
    print(f"next: scratchvae exercise {following} --start" if following else "all exercises are solved")
    return 0


def _verdict(marked, rows):
    """Return what is right and then what is wrong, a line for each."""
    width = max([len(row["name"]) for row in rows], default=0)
    lines = []
    for row in sorted(rows, key=lambda row: not row["passed"]):
        first, *others = row["notes"]
        lines.append(f"{'right' if row['passed'] else 'wrong'}  {row['name']:<{width}}  {first}")
        lines += [f"{'':<{width + 9}}{note}" for note in others]
    lines += [fact for check in marked["checks"] for fact in check["facts"]]
    lines += [f"wrong  {marked['reason']}"] * bool(marked["reason"])
    return "\n".join(lines)


def _number(text):
    """Read the number of an exercise."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected the number of an exercise, such as 7") from None


def add_to(commands):
    """Add the command and its options to the parser."""
    p = add_command(commands, exercise, "derive gradients yourself, and have them checked", "[N] [FILE]", epilog=EPILOG)
    number = {"metavar": "N", "type": _number, "help": "the number of an exercise; without: list them"}
    file = {"metavar": "FILE", "type": place, "help": "your file, which is checked, or which --start writes"}
    p.add_argument("number", nargs="?", default=None, **number)  # argparse would hand its own mark to the type
    p.add_argument("file", nargs="?", default=None, **file)
    p.add_argument(
        "--start",
        nargs="?",
        const=True,
        type=place,
        metavar="FILE",
        help="write the statement and the blank into a new file (exercise_07.py and the like)",
    )
    p.add_argument("--hint", action="store_true", help="print the hint")
    p.add_argument("--seconds", type=float, help="how long a check may take (20)")
