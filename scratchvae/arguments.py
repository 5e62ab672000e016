"""What many public entries ask of an argument."""

import numpy as np


def whole(name, value, least=1):
    """`value` as an int; ValueError, with the argument's name, unless it is a whole number ≥ `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number ≥ {least}")
    return int(value)
