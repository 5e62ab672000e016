"""What the estimators share: how they take rows and a random_state, and say that their results keep a precision."""

import contextlib
import functools
import re

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from scratchvae.arguments import whole

FLOATS = (np.float64, np.float32)  # the precisions that are kept; others become the first


class Table(BaseEstimator):
    """An estimator whose X is a table of finite numbers, (N, D), with one datapoint per row."""

    def _of_fit(self, X):
        """Return the rows of `fit` as floats, two or more, and remember the number and the names of the columns."""
        return validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)

    def _of_use(self, X):
        """Return the rows of a fitted estimator as floats; other columns than those of `fit` raise a ValueError."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=FLOATS, reset=False)

    def _codes(self, X):
        """Return codes (N, J) as floats; another width than J raises a ValueError."""
        check_is_fitted(self)
        X = check_array(X, dtype=FLOATS, input_name="X")
        if X.shape[1] != self._n_features_out:
            raise ValueError(f"X has {X.shape[1]} columns; expected {self._n_features_out}, as transform returns them")
        return X

    def _components(self, least, most, in_words):
        """Return n_components, or `most` for None; a ValueError is raised outside least to most, called `in_words`."""
        J = most if self.n_components is None else self.n_components
        if not isinstance(J, int | np.integer) or isinstance(J, bool) or not least <= J <= most:
            raise ValueError(f"n_components is {J!r}; expected None or a whole number from {least} to {in_words}")
        return int(J)

    def _seed_of(self, n_samples, random_state):
        """Return the seed of `sample`; before `fit`, and for an n_samples below 1, an error is raised."""
        check_is_fitted(self)
        whole("n_samples", n_samples)
        return drawn(self.random_state if random_state is None else random_state)


class Scored:
    """An estimator with a score for each row."""

    def score(self, X, y=None):
        """Return the mean of `score_samples` over rows X (N, D), one number. y is ignored."""
        return float(self.score_samples(X).mean())


class Codes(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Table):
    """A table whose rows become codes, with a column for each number of the code."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def all_or_nothing(fit):
    """Let a `fit` that fails leave the estimator as it was; Ctrl-C leaves what `fit` has kept."""

    @functools.wraps(fit)
    def careful(self, X, y=None):
        before = dict(vars(self))
        try:
            return fit(self, X, y)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise

    return careful


@contextlib.contextmanager
def called(**names):
    """Let a ValueError use the names of the estimator: `names` by those of the model, and X for the rows."""
    try:
        yield
    except ValueError as error:
        told = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error))
        raise ValueError(re.sub(r"^(x|train|valid)\b", "X", told)) from None


def drawn(random_state):
    """Return a seed from a random_state of scikit-learn: an int, a `RandomState`, or None for another each time."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
