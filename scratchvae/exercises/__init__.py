"""Exercises: gradients, densities and steps to be derived by hand, and checked with `scratchvae exercise`.

An exercise is one function. Somebody gets what it takes, what it returns and what it is for, and writes its lines. What
they write is called with arguments that are drawn, and compared three times: gradients with differences of a forward
pass that is written out plainly in the exercise; everything with the library's own lines; and a case that is known
without any program. Where something is wrong, the gradient checker says what (`gradcheck.faults`), and the exercise
knows the usual mistakes by name.

To add one, write an `Exercise` into the file of its topic, and name it below. It needs

- a blank: the function with its docstring, which gives the shape of each argument, and `raise NotImplementedError`;
- `naive`, which imports nothing of the library's mathematics, and `library`, which is nothing else: one must not be
  derived from the other, since a test compares them;
- arguments whose shapes tell the axes apart, with a square matrix where a transpose is to be found by its numbers;
- an exact case, which a wrong answer fails, and two or more usual mistakes;
- a row of the reading where the derivation stands, which is the solution. An exercise has no solution of its own.

exercise.py says what an exercise is made of, checking.py compares, and progress.py keeps the record. layers.py,
densities.py, posterior.py, bound.py, steps.py, theta.py, marginal.py, estimators.py and flows.py hold the exercises.
"""

from scratchvae.exercises.bound import BOUND_A, BOUND_B, MAP
from scratchvae.exercises.densities import BERNOULLI, GAUSSIAN, KL, PRIOR
from scratchvae.exercises.estimators import DREG, SCORE, STL, VARIATE, WEIGHTED
from scratchvae.exercises.flows import PLANAR, PLANAR_BACKWARD
from scratchvae.exercises.layers import AFFINE, HEADS, SIGMOID, SOFTPLUS, TANH
from scratchvae.exercises.marginal import APPENDIX_D, PPCA_POSTERIOR
from scratchvae.exercises.posterior import DRAW, DRAW_BACKWARD, FULL, LOG_Q
from scratchvae.exercises.steps import ACCEPTANCE, ADAGRAD, LEAPFROG
from scratchvae.exercises.theta import FULL_VB, LOCAL, THETA, THETA_KL

EXERCISES = (  # from easy to hard; the first one is number 1
    *(TANH, SIGMOID, SOFTPLUS, AFFINE, HEADS),
    *(BERNOULLI, GAUSSIAN, PRIOR, KL),
    *(DRAW, DRAW_BACKWARD, BOUND_B, LOG_Q, BOUND_A, MAP),
    *(ADAGRAD, LEAPFROG, ACCEPTANCE),
    *(THETA, THETA_KL, FULL_VB),
    *(SCORE, VARIATE, WEIGHTED, APPENDIX_D, STL, DREG),
    *(FULL, PPCA_POSTERIOR, LOCAL, PLANAR, PLANAR_BACKWARD),
)


def exercise_of(number):
    """Return the exercise of this number, counted from 1; any other number raises a ValueError."""
    if not 1 <= number <= len(EXERCISES):
        raise ValueError(
            f"there is no exercise {number}; expected 1 to {len(EXERCISES)}, as `scratchvae exercise` lists them"
        )
    return EXERCISES[number - 1]
