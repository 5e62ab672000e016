"""benchmarks/sklearn_suite.py: scikit-learn's own tests hold, and what does not hold in a test is seen and said."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import sklearn_suite as suite

HEAD = """
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture._bayesian_mixture import _log_dirichlet_norm
X = np.random.RandomState(0).rand(9, 2)
"""
QUIET = pytest.mark.filterwarnings(
    "ignore:FactorAnalysis did not converge", "ignore:the noise of columns? .* has the least variance allowed"
)


@pytest.fixture(autouse=True)
def one_thread():
    """The matrices are small: on a machine that is busy a second thread is mostly waited for."""
    with threadpool_limits(1):
        yield


def outcomes(body):
    """What became of each assertion of a test with this body, by its source: {outcome: how often}, and the reasons."""
    text = HEAD + "\n".join(body.strip("\n").splitlines())
    ((_, assertions, found),) = suite.run(
        text, "test_fake.py", {"BayesianGaussianMixture": suite.BayesianGaussianMixture}
    )
    counted = {source: {} for source in assertions.values()}
    for (line, outcome, _), times in found.items():
        row = counted.setdefault(assertions.get(line, f"line {line}"), {})
        row[outcome] = row.get(outcome, 0) + times
    return counted, {said for _, _, said in found if said}


def test_every_assertion_of_scikit_learns_tests_that_applies_holds(monkeypatch):
    monkeypatch.setattr(suite, "SEEDS", range(2))
    tests = suite.installed_tests()
    assert list(suite.problems(tests, suite.REASONS)) == []
    rows = {row["test"]: row for row in suite.counts(tests)}
    assert rows["test_factor_analysis"]["applicable"] >= 8 and rows["test_factor_analysis"]["held"] >= 34
    assert rows["test_monotonic_likelihood"]["held"] >= 10
    assert sum(row["applicable"] for row in rows.values()) >= 33
    assert any("rotation='varimax'" in reason for reason in suite.why_not(tests))


def test_a_wrong_assertion_is_noted_and_the_test_goes_on():
    found, said = outcomes("""
def test_it():
    bgmm = BayesianGaussianMixture(random_state=0).fit(X)
    assert bgmm.weights_.sum() == 2
    assert_allclose(bgmm.weights_, [1.0])
    with pytest.raises(ValueError):
        bgmm.predict(X)
    with pytest.raises(ValueError):
        bgmm.predict(X[:, :1])
    np.testing.assert_allclose(bgmm.means_, 7)
""")
    assert [list(row.items()) for row in found.values()] == [
        [("failed", 1)],
        [("held", 1)],
        [("failed", 1), ("held", 1)],  # two with the same source
        [("failed", 1)],
    ]
    assert any(text.startswith("Failed: DID NOT RAISE") for text in said)


def test_what_is_not_applicable_in_a_loop_leaves_the_other_rounds_as_they_are():
    found, said = outcomes("""
def test_it():
    bgmm = BayesianGaussianMixture(random_state=0)
    weights = {}
    for kind in ["full", "tied", "full"]:
        bgmm.covariance_type = kind
        bgmm.fit(X)
        assert bgmm.weights_.shape == (1,)
        weights[kind] = bgmm.weights_
        assert weights[kind] == 1
        bgmm.predict(X)
        assert kind in ("full", "tied")
    assert weights["full"] == 1
    assert weights["tied"] == 1
""")
    assert found == {
        "assert bgmm.weights_.shape == (1,)": {"held": 2, "not applicable": 1},
        "assert weights[kind] == 1": {"held": 2, "not applicable": 1},
        "assert kind in ('full', 'tied')": {"held": 3},
        "assert weights['full'] == 1": {"held": 1},
        "assert weights['tied'] == 1": {"not applicable": 1},
    }
    assert said == {"covariance_type='tied': ours has full covariances"}


def test_what_depends_on_a_name_that_was_not_made_is_not_applicable():
    found, said = outcomes("""
def test_it():
    both = BayesianGaussianMixture(weight_concentration_prior_type="dirichlet_process").fit(X), 1
    first, (second, *rest) = both
    third = [both for both in (second, first)]
    third /= np.sum(first.weights_)
    assert_allclose(first, 1)
    assert third[0] > 2
    for covariance in zip(second.covariances_, rest):
        assert covariance == 1
        if covariance:
            assert covariance != 1
    norm = -_log_dirichlet_norm(X)
    assert np.abs(norm) > 3
    assert X.shape == (9, 2)
    bgmm = BayesianGaussianMixture()
    bgmm._check_parameters(X)
    assert bgmm.means_ == 0
""")
    assert found.pop("assert X.shape == (9, 2)") == {"held": 1}
    assert list(found.values()) == [{"not applicable": 1}] * 6
    assert said == {
        "weight_concentration_prior_type='dirichlet_process': ours has a Dirichlet distribution",
        "_log_dirichlet_norm is private to scikit-learn",
        "_check_parameters is private to scikit-learn",
    }


def test_a_statement_that_fails_is_a_failure_and_what_depends_on_it_is_not_counted_as_held():
    found, said = outcomes("""
def test_it():
    weights = BayesianGaussianMixture().fit(X).wieghts_
    assert weights is not None and weights == 1
""")
    assert found == {
        "assert weights is not None and weights == 1": {"not applicable": 1},
        "line 9": {"failed": 1},
    }
    assert "AttributeError: BayesianGaussianMixture has no attribute wieghts_" in said


def test_a_loop_whose_end_is_not_known_ends():
    found, _ = outcomes("""
def test_it():
    bgmm = BayesianGaussianMixture(covariance_type="tied")
    for _ in range(600):
        with pytest.raises(Exception):
            bgmm.fit(X)
        if bgmm.converged_:
            assert bgmm.n_iter_
            break
    for k in range(600):
        if k == 3:
            break
        assert k < 3
""")
    assert list(found.values()) == [{"not applicable": 1}, {"not applicable": 1}, {"held": 3}]


def test_a_test_runs_for_each_of_its_parameters_and_for_ten_seeds():
    found, said = outcomes("""
@pytest.mark.parametrize("a, b", [(1, 2), (3, 4)])
@pytest.mark.parametrize("c", [5, 6, 7])
def test_it(a, b, c, global_random_seed):
    assert (a, b, c, global_random_seed) != (3, 4, 6, 9)
""")
    assert list(found.values()) == [{"held": 59, "failed": 1}]
    (failure,) = said
    assert all(word in failure for word in ("a=3 ", "b=4 ", "c=6 ", "global_random_seed=9 ", "AssertionError"))


def test_what_is_not_known_of_a_file_is_refused():
    with pytest.raises(ValueError, match="test_it takes tmp_path; expected global_random_seed or a parameter"):
        outcomes("def test_it(tmp_path): pass")
    with pytest.raises(ValueError, match=r"test_x\.py does not import Missing: these tests are of something else"):
        suite.run("import numpy", "test_x.py", {"Missing": suite.FactorAnalysis})


def test_a_failure_needs_a_reason_and_a_reason_a_failure():
    found = suite.Counter({(3, "held", ""): 2, (4, "failed", "ValueError: no"): 1, (9, "failed", "KeyError: k"): 1})
    tests = [("test_it", {3: "assert a", 4: "assert b", 5: "assert c"}, found)]
    reasons = {("test_it", "assert b"): ("ValueError: no", "it may")}
    never = "test_it, line 5 was never reached: assert c"
    statement = "test_it, line 9 failed: it is no assertion\n    KeyError: k"
    failed = "test_it, line 4 failed: assert b\n    ValueError: no"
    assert list(suite.problems(tests, reasons)) == [never, statement]
    assert list(suite.problems(tests, {})) == [never, failed, statement]
    other = {("test_it", "assert b"): ("TypeError", "it fails in another way")}
    of_no_use = "REASONS has an entry for test_it that is of no use: "
    assert list(suite.problems(tests, other)) == [never, failed, statement, of_no_use + "assert b"]
    stale = reasons | {("test_it", "assert a"): ("", "it holds")}
    assert list(suite.problems(tests, stale)) == [never, statement, of_no_use + "assert a"]


def test_an_adapter_forgets_a_fit_when_the_next_is_refused_and_can_be_copied():
    X = np.random.default_rng(0).standard_normal((20, 3))
    fa = suite.FactorAnalysis(1, svd_method="lapack", noise_variance_init=np.ones(3)).fit(X)
    assert fa.get_params()["svd_method"] == "lapack" and fa.components_.shape == (1, 3)
    other = copy.deepcopy(fa)
    fa.rotation = "varimax"
    for refused in (lambda: fa.fit(X), lambda: fa.components_, lambda: fa.transform(X), lambda: fa.get_covariance()):
        with pytest.raises(suite.NotApplicable, match="rotation='varimax'"):
            refused()
    assert other.transform(X).shape == (20, 1)
    fa.set_params(rotation=None).fit(X)
    np.testing.assert_array_equal(fa.components_, other.components_)
    with pytest.raises(suite.NotApplicable, match="noise_variance_init"):
        fa.set_params(noise_variance_init=[1, 2, 3]).fit(X)
    with pytest.raises(AttributeError, match="FactorAnalysis has no attribute n_inti"):
        _ = fa.n_inti


@QUIET
def test_no_log_likelihood_is_lower_than_scikit_learns_and_at_the_same_optimum_they_are_equal(monkeypatch):
    monkeypatch.setattr(suite, "COMPONENTS", (2, 3))
    factors = list(suite.factor_analyses(max_iter=300))
    mixed = list(suite.mixtures(["iris"], n_init=2))
    assert list(suite.misses(factors, mixed)) == []
    same = [(row["data"], row["factors"]) for row in factors if row["same optimum"]]
    assert same == [("digits", 2), ("digits", 5), ("diabetes", 8)]
    assert [row["components"] for row in mixed] == [2, 3]


def test_a_likelihood_that_is_lower_or_another_at_the_same_optimum_is_told():
    def factor(difference, same):
        return {"data": "wine", "factors": 2, "difference": difference, "same optimum": same}

    def mixed(difference):
        return {"data": "iris", "components": 3, "difference": difference}

    assert list(suite.misses([factor(-9e-9, True), factor(9e-7, True), factor(0.1, False)], [mixed(-9e-7)])) == []
    assert list(suite.misses([factor(-2e-8, False)], [])) == ["2 factors of wine: -2e-08 nats from theirs"]
    assert list(suite.misses([factor(2e-6, True)], [])) == ["2 factors of wine: 2e-06 nats from theirs"]
    assert list(suite.misses([], [mixed(-2e-6), mixed(2e-6)])) == [
        "3 components of iris: -2e-06 nats from theirs",
        "3 components of iris: 2e-06 nats from theirs",
    ]


@pytest.mark.parametrize("wrong", [False, True])
def test_the_script_writes_what_it_found_and_its_exit_code_says_whether_something_failed(
    wrong, monkeypatch, tmp_path, capsys
):
    found = suite.Counter({(3, "held", ""): 2, (4, "not applicable", "no such thing"): 5})
    if wrong:
        found[3, "failed", "AssertionError: 1 != 2"] = 1
    monkeypatch.setattr(suite, "installed_tests", lambda: [("test_it", {3: "assert a", 4: "assert b"}, found)])
    monkeypatch.setattr(suite, "REASONS", {})
    monkeypatch.setattr(suite, "factor_analyses", lambda: [{"data": "wine", "difference": 0.5, "same optimum": False}])
    monkeypatch.setattr(suite, "mixtures", lambda: [{"data": "iris", "difference": 0.0}])
    assert suite.main(["--out", str(tmp_path / "new" / "suite.json")]) == int(wrong)
    result = json.loads((tmp_path / "new" / "suite.json").read_text(encoding="utf-8"))
    row = {"assertions": 2, "applicable": 1, "held": 2, "failed": int(wrong), "not applicable": 5}
    assert result["tests"] == [{"test": "test_it"} | row] and result["total"] == row
    assert result["not applicable"] == {"no such thing": 5} and result["scikit-learn"] == suite.sklearn.__version__
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["test_it", "2", "1", "2", str(int(wrong)), "5"] for line in printed)
    assert "     5  no such thing" in printed
    assert ("test_it, line 3 failed: assert a" in printed) == wrong
