"""scikit-learn's own tests of factor analysis and of the Bayesian mixture, run against the estimators of this package.

    pip install -e ".[test]"
    python benchmarks/sklearn_suite.py        # a minute

The test files are those of the scikit-learn that is installed. They are read, their two classes are replaced by the
adapters below, and every statement of a test is watched: an assertion that fails is noted, and the test goes on. An
assertion is not applicable where it asks for what only the other library has, and so is all that depends on it. What
may fail is listed in `REASONS`.

Two tables of the log-likelihoods follow that both libraries reach on the same data. The exit code is 1 if another
assertion fails, if one is never reached, if an entry of `REASONS` has become useless, or if a likelihood is worse than
theirs.
"""

import argparse
import ast
import contextlib
import copy
import importlib.util
import inspect
import itertools
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sklearn
from output import prepare, write
from sklearn import datasets, decomposition, mixture
from threadpoolctl import threadpool_limits

from scratchvae import bench
from scratchvae import sklearn as ours
from scratchvae.cli.output import tolerant
from scratchvae.inference import mean_field

SEEDS = range(10)  # of their fixture global_random_seed
HELD = "held"
FAILED = "failed"
NOT_APPLICABLE = "not applicable"

REASONS = {  # (test, assertion): (what the failure says, why it may fail)
    (
        "test_bayesian_mixture_precisions_prior_initialisation",
        "with pytest.raises(ValueError, match=msg):",
    ): (
        "Actual message: 'degrees_of_freedom_prior is 1; expected more than D - 1 = 1'",
        "the same ValueError in other words",
    ),
}
FACTORS = (2, 5, 8)
COMPONENTS = (2, 3, 5)


# What is not applicable


class NotApplicable(BaseException):
    """Is raised where a test asks for what this package does not have, and says what that is.

    It is no Exception, so that nothing on its way, such as pytest.raises, takes it for an error that was expected.
    """


class NotMade:
    """Stands for a value that could not be made: whatever is done with it raises NotApplicable with the reason."""

    def __init__(self, reason):
        self.__dict__["reason"] = reason

    def _refuse(self, *arguments, **settings):
        raise NotApplicable(self.reason)

    __getattr__ = __setattr__ = __getitem__ = __setitem__ = __call__ = __iter__ = __len__ = __bool__ = _refuse
    __array__ = __float__ = __index__ = __neg__ = __abs__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __hash__ = object.__hash__


# The adapters: estimators of this package with the arguments of scikit-learn


class Adapter:
    """What the two share: `fit` looks at what is asked for, since attributes are set after construction too.

    After a fit that is not applicable, nothing that the estimator is asked for is, until another fit.
    """

    refusal = None  # why the last fit was not applicable

    def fit(self, X, y=None):
        """Fit the estimator of this package to rows X (N, D), or raise NotApplicable. y is ignored."""
        self.refusal = next(self._refusals(X), None)
        if self.refusal is None:
            return super().fit(X)
        for name in [name for name in vars(self) if name.endswith("_")]:  # of the fit before
            delattr(self, name)
        raise NotApplicable(self.refusal)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "model_")

    def __getattr__(self, name):
        """Raise NotApplicable for what a fit would have left, and for what is private to scikit-learn."""
        if name.endswith("_") and not name.startswith("_") and self.refusal is not None:
            raise NotApplicable(self.refusal)
        if name.startswith("_") and not name.endswith("_") and callable(getattr(self.theirs, name, None)):
            self.refusal = f"{name} is private to scikit-learn"  # and so is the state that it would have left
            raise NotApplicable(self.refusal)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")


class FactorAnalysis(Adapter, ours.FactorAnalysis):
    """`scratchvae.sklearn.FactorAnalysis`, where what a test does not name is as in this package.

    svd_method and iterated_power are ignored, since they only say how the same decomposition is found, and so is copy,
    since X is never overwritten. A noise_variance_init of ones is taken, since scikit-learn starts there anyway.
    """

    theirs = decomposition.FactorAnalysis

    def __init__(
        self,
        n_components=None,
        *,
        tol=1e-9,
        copy=True,
        max_iter=10_000,
        noise_variance_init=None,
        svd_method="randomized",
        iterated_power=3,
        rotation=None,
        random_state=0,
    ):
        super().__init__(n_components, tol=tol, max_iter=max_iter, random_state=random_state)
        self.copy = copy
        self.noise_variance_init = noise_variance_init
        self.svd_method = svd_method
        self.iterated_power = iterated_power
        self.rotation = rotation

    def _refusals(self, X):
        if self.rotation is not None:
            yield f"rotation={self.rotation!r}: ours has no rotation of the factors"
        start = self.noise_variance_init
        if start is not None and not np.array_equal(start, np.ones(X.shape[1])):
            yield "noise_variance_init: ours chooses its starts itself"


class BayesianGaussianMixture(Adapter, ours.MixtureOfGaussians):
    """`scratchvae.sklearn.MixtureOfGaussians`, where what a test does not name is as in this package.

    So the prior of the weights is a Dirichlet distribution unless a test asks for the process. reg_covar is ignored,
    since nothing is added to the covariances, and so are verbose and verbose_interval.
    """

    theirs = mixture.BayesianGaussianMixture

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-6,
        reg_covar=0.0,
        max_iter=10_000,
        n_init=1,
        init_params="k-means++",
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=None,
        mean_precision_prior=None,
        mean_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
    ):
        super().__init__(
            n_components,
            weight_concentration_prior=weight_concentration_prior,
            mean_prior=mean_prior,
            mean_precision_prior=mean_precision_prior,
            degrees_of_freedom_prior=degrees_of_freedom_prior,
            covariance_prior=covariance_prior,
            tol=tol,
            max_iter=max_iter,
            n_init=n_init,
            warm_start=warm_start,
            random_state=random_state,
        )
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def _refusals(self, X):
        if self.weight_concentration_prior_type != "dirichlet_distribution":
            yield "weight_concentration_prior_type='dirichlet_process': ours has a Dirichlet distribution"
        if self.covariance_type != "full":
            yield f"covariance_type={self.covariance_type!r}: ours has full covariances"
        if self.init_params != "k-means++":
            yield f"init_params={self.init_params!r}: ours starts by k-means++"


FILES = {  # the test files, and by what their classes are replaced
    "sklearn.decomposition.tests.test_factor_analysis": FactorAnalysis,
    "sklearn.mixture.tests.test_bayesian_mixture": BayesianGaussianMixture,
}


# Watching a test


class Recorder:
    """Counts what became of the assertions of one test."""

    def __init__(self):
        self.found = Counter()  # (line, outcome, reason): how often
        self.case = ""  # the parameters of the test at hand

    @contextlib.contextmanager
    def watching(self, line, assertions, asserts):
        """Run a statement, note what becomes of the assertions in it, and go on.

        line is where it begins, assertions are the lines of the assertions in it, and asserts says whether it is one
        itself. What is given is a list: it stays empty, or has a NotMade for the names that the statement was to bind.
        """
        lost = []
        try:
            yield lost
        except NotApplicable as reason:
            self.found.update((inner, NOT_APPLICABLE, str(reason)) for inner in assertions)
            lost.append(NotMade(str(reason)))
        except (Exception, pytest.fail.Exception) as error:
            said = f"{self.case}{type(error).__name__}: {' '.join(str(error).split())}"
            self.found[line, FAILED, said] += 1
            lost.append(NotMade("an earlier line of the test failed"))
            if not asserts:
                self.found.update((inner, NOT_APPLICABLE, lost[0].reason) for inner in assertions)
        else:
            if asserts:
                self.found[line, HELD, ""] += 1


def name_called(node):
    """Return the last part of the name that an expression calls, or "" where it is no call."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", "") or getattr(function, "id", "")


def is_assertion(node):
    """Say whether a statement is an assertion as a whole."""
    if isinstance(node, ast.With):
        return any(name_called(item.context_expr) in ("raises", "warns", "deprecated_call") for item in node.items)
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and name_called(node.value).startswith("assert"))


def blocks(node):
    """Return the lists of statements within a statement; a function within a test is a whole, and has none."""
    if isinstance(node, ast.FunctionDef):
        return []
    handlers = [handler.body for handler in getattr(node, "handlers", [])]
    return [block for name in ("body", "orelse", "finalbody") if (block := getattr(node, name, []))] + handlers


def assertions_in(node):
    """Yield the assertions in a statement, in the order of their lines."""
    if is_assertion(node):
        yield node
        return
    for block in blocks(node):
        for inner in block:
            yield from assertions_in(inner)


def targets(node):
    """Yield what a statement binds: names, and elements, for which a longer statement yields what they belong to."""
    short = not blocks(node)
    own = {id(name) for part in ast.walk(node) if isinstance(part, ast.comprehension) for name in ast.walk(part.target)}
    for target in ast.walk(node):
        if not isinstance(getattr(target, "ctx", None), ast.Store) or id(target) in own:
            continue
        while isinstance(target, ast.Subscript | ast.Attribute) and not short:
            target = target.value
        if isinstance(target, ast.Name | ast.Subscript | ast.Attribute):
            target = copy.deepcopy(target)
            target.ctx = ast.Store()
            yield target


def watched(node):
    """Return the statements that run a statement of a test under the recorder."""
    if isinstance(node, ast.FunctionDef | ast.Break | ast.Continue | ast.Return):
        return [node]
    asserts = is_assertion(node)
    lines = tuple(inner.lineno for inner in assertions_in(node))
    lost = f"_lost_{node.lineno}_{node.col_offset}"
    found = list(targets(node))
    leaves = isinstance(node, ast.If) and any(isinstance(inner, ast.Break) for inner in ast.walk(node))
    for block in [] if asserts else blocks(node):
        block[:] = [new for inner in block for new in watched(inner)]
    text = f"with _recorder.watching({node.lineno}, {lines}, {asserts}) as {lost}: pass\n"
    text += f"if {lost}:\n with _recorder.watching({node.lineno}, (), False): pass\n"
    text += " break" if leaves else ""  # a loop ends where nobody knows whether it does, rather than never
    around, after = ast.parse(text).body
    around.body = [node]
    after.body[0].body += [ast.Assign([target], ast.parse(f"{lost}[0]").body[0].value) for target in found]
    return [around, after]


def cases(function):
    """Yield the arguments of each run of a test, by name."""
    marks = [mark.args for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    parameters = []
    for names, values in marks:
        names = [name.strip() for name in names.split(",")]
        rows = [value if len(names) > 1 else (value,) for value in values]
        parameters.append([dict(zip(names, row, strict=True)) for row in rows])
    known = {name for rows in parameters for name in rows[0]}
    for name in inspect.signature(function).parameters.keys() - known:
        if name != "global_random_seed":
            raise ValueError(f"{function.__name__} takes {name}; expected global_random_seed or a parameter of a mark")
        parameters.append([{name: seed} for seed in SEEDS])
    for rows in itertools.product(*parameters):
        yield {name: value for row in rows for name, value in row.items()}


def run(text, path, replaced):
    """Run the tests of a file, and return for each its name, its assertions {line: source} and what became of them.

    text is the file's, and path what it is called. replaced are the classes that stand in the place of those of their
    names. Functions that are private to scikit-learn are not applicable.
    """
    tree = ast.parse(text, path)
    names = {"__name__": Path(path).stem}
    tests = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name.startswith("_") and node.module.startswith("sklearn."):
                    names[alias.asname or alias.name] = NotMade(f"{alias.name} is private to scikit-learn")
                if alias.name in replaced:
                    names[alias.asname or alias.name] = replaced[alias.name]
            node.names = [alias for alias in node.names if (alias.asname or alias.name) not in names]
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            tests[node.name] = {
                inner.lineno: ast.unparse(inner).splitlines()[0]
                for statement in node.body
                for inner in assertions_in(statement)
            }
            node.body = [new for statement in node.body for new in watched(statement)]
    if absent := replaced.keys() - names.keys():
        raise ValueError(f"{path} does not import {', '.join(absent)}: these tests are of something else")
    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom) or node.names]
    exec(compile(ast.fix_missing_locations(tree), path, "exec"), names)
    return [(name, assertions, outcomes(names, name)) for name, assertions in tests.items()]


def outcomes(names, test):
    """Run a test in the namespace of its file with all its parameters, and return what became of its assertions."""
    recorder = Recorder()
    names["_recorder"] = recorder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for arguments in cases(names[test]):
            recorder.case = "".join(f"{name}={value!r} " for name, value in arguments.items())
            names[test](**arguments)
    return recorder.found


def problems(tests, reasons):
    """Yield a line for each assertion that failed without a reason or was never reached, and for each useless reason.

    tests are those of `run`, of all files.
    """
    used = set()
    for test, assertions, found in tests:
        for line in assertions.keys() - {line for line, *_ in found}:
            yield f"{test}, line {line} was never reached: {assertions[line]}"
        for line, outcome, said in found:
            if outcome != FAILED:
                continue
            key = (test, assertions.get(line, ""))
            if key in reasons and reasons[key][0] in said:
                used.add(key)
            else:
                yield f"{test}, line {line} failed: {key[1] or 'it is no assertion'}\n    {said[:300]}"
    for test, source in reasons.keys() - used:
        yield f"REASONS has an entry for {test} that is of no use: {source}"


def installed_tests():
    """Return what `run` returns, for the test files of the scikit-learn that is installed."""
    found = []
    for name, replaced in FILES.items():
        path = importlib.util.find_spec(name).origin
        found += run(Path(path).read_text(encoding="utf-8"), path, {replaced.__name__: replaced})
    return found


# The log-likelihoods


def rows_of(name):
    """Return the rows (N, D) of a data set of scikit-learn, without the columns that never vary."""
    X = getattr(datasets, f"load_{name}")().data
    return X[:, X.std(axis=0) > 0]


def factor_analyses(names=("digits", "wine", "diabetes"), max_iter=20_000):
    """Yield the mean log-likelihoods of both factor analyses, in nats per row, for each of `FACTORS`.

    They stand at the same optimum if theirs has converged, within max_iter iterations, and no two entries of their
    covariances, in units of the standard deviations, are more than 1e-3 apart.
    """
    for name, J in itertools.product(names, FACTORS):
        X = rows_of(name)
        mine = ours.FactorAnalysis(J).fit(X)
        theirs = decomposition.FactorAnalysis(J, svd_method="lapack", tol=1e-10, max_iter=max_iter).fit(X)
        apart = (mine.get_covariance() - theirs.get_covariance()) / np.outer(X.std(axis=0), X.std(axis=0))
        yield {
            "data": name,
            "factors": J,
            "ours": mine.score(X),
            "theirs": float(theirs.score(X)),
            "difference": mine.score(X) - float(theirs.score(X)),
            "their iterations": int(theirs.n_iter_),
            "converged": bool(theirs.n_iter_ < max_iter),
            "same optimum": bool(theirs.n_iter_ < max_iter and np.abs(apart).max() < 1e-3),
        }


def mixtures(names=("iris", "wine", "diabetes"), n_init=10):
    """Yield the mean scores of both mixtures at their optimum, in nats per row, for each of `COMPONENTS`.

    The bound has many maxima, so ours begins at their responsibilities. The last number is how much higher our bound is
    after n_init starts of its own, as many as theirs has had, in nats for all rows together.
    """
    settings = {"n_init": n_init, "tol": 1e-10, "max_iter": 10_000, "random_state": 0}
    prior = {"weight_concentration_prior_type": "dirichlet_distribution", "reg_covar": 0}
    for name, K in itertools.product(names, COMPONENTS):
        X = rows_of(name)
        theirs = mixture.BayesianGaussianMixture(n_components=K, **prior, **settings).fit(X)
        mine = mean_field.MixtureOfGaussians(K, scatter=np.cov(X.T), tol=1e-10).fit(X, start=theirs.predict_proba(X))
        own = ours.MixtureOfGaussians(K, **settings).fit(X)
        yield {
            "data": name,
            "components": K,
            "ours": mine.score(X),
            "theirs": float(theirs.score(X)),
            "difference": mine.score(X) - float(theirs.score(X)),
            "own starts higher by": own.lower_bound_ - float(mine.bound_[-1]),
        }


def misses(factors, mixed):
    """Yield a line for each row of `factor_analyses` and `mixtures` that is not as it should be.

    Ours may be lower by 1e-8 nats per row, and another by 1e-6 at the same optimum.
    """
    for row in factors:
        if row["difference"] < -1e-8 or (row["same optimum"] and abs(row["difference"]) > 1e-6):
            yield f"{row['factors']} factors of {row['data']}: {row['difference']:.2g} nats from theirs"
    for row in mixed:
        if abs(row["difference"]) > 1e-6:
            yield f"{row['components']} components of {row['data']}: {row['difference']:.2g} nats from theirs"


# What is printed


def counts(tests):
    """Return a row for each of the tests: how many assertions it has, how many apply, and how often these have held.

    An assertion in a loop or in a test with parameters is met more than once. It applies if it has held or failed once.
    """
    rows = []
    for test, assertions, found in tests:
        row = {"test": test, "assertions": len(assertions)}
        row["applicable"] = len(assertions.keys() & {line for line, outcome, _ in found if outcome != NOT_APPLICABLE})
        for outcome in (HELD, FAILED, NOT_APPLICABLE):
            row[outcome] = sum(times for (_, met, _), times in found.items() if met == outcome)
        rows.append(row)
    return rows


def why_not(tests):
    """Return the reasons why assertions were not applicable, the most frequent first, with their counts."""
    reasons = Counter()
    for _, _, found in tests:
        for (_, outcome, reason), times in found.items():
            reasons[reason] += times * (outcome == NOT_APPLICABLE)
    return {reason: times for reason, times in reasons.most_common() if times}


def show(rows):
    """Print rows as a table with their names at its head, and numbers on the right."""
    cells = [list(rows[0])]
    for row in rows:
        cells.append([f"{value:.10g}" if isinstance(value, float) else str(value) for value in row.values()])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *numbers]))
    print()


def main(arguments=None):
    """Run the tests and compare the likelihoods, print the tables, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    given = parser.parse_args(arguments)
    if given.out:
        prepare(parser, given.out.parent)
    tests = installed_tests()
    result = {"machine": bench.machine(), "scikit-learn": sklearn.__version__, "tests": counts(tests)}
    result["total"] = {name: sum(row[name] for row in result["tests"]) for name in list(result["tests"][0])[1:]}
    result["not applicable"] = why_not(tests)
    result["may fail"] = [f"{test}: {source} {why}" for (test, source), (_, why) in REASONS.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result["factor analysis"] = list(factor_analyses())
        result["mixtures"] = list(mixtures())
    wrong = [*problems(tests, REASONS), *misses(result["factor analysis"], result["mixtures"])]
    print(f"scikit-learn {sklearn.__version__}\n")
    show(result["tests"])
    print("\n".join(["not applicable:", *(f"{times:6}  {why}" for why, times in result["not applicable"].items()), ""]))
    print("\n".join(["may fail:", *result["may fail"], ""]))
    show(result["factor analysis"])
    show(result["mixtures"])
    for line in wrong:
        print(line)
    total = ", ".join(f"{times:,} {name}" for name, times in result["total"].items())
    print(f"in all {total}; {len(wrong)} lines to look into")
    if given.out:
        write(given.out, result)
    return 1 if wrong else 0


if __name__ == "__main__":
    with tolerant(), threadpool_limits(1):  # the matrices are small: a second thread would mostly be waited for
        sys.exit(main())
