"""guard.py: a model serves one thread, for as long as a call takes; another thread is refused and takes a copy."""

import contextlib
import copy
import os
import pickle
import signal
import threading
import warnings

import numpy as np
import pytest
from conftest import rows
from numpy.testing import assert_array_equal

from scratchvae import SGD, VAE, Adagrad, FullVB, evaluate, fit, fit_mcem, gradcheck, load_model
from scratchvae.gradcheck import check_model
from scratchvae.guard import Guard
from scratchvae.inference import marginal
from scratchvae.inference.marginal import annealed, appendix_d, importance, quadrature, sandwich
from scratchvae.inference.objectives.sgvb import sgvb_b
from scratchvae.models.factor_analysis import PPCA
from scratchvae.training import loop, optim
from scratchvae.training.loop import evaluate_theta
from scratchvae.training.optim import started

pytestmark = [  # of few draws and of few points, and nobody reads the numbers
    pytest.mark.filterwarnings("ignore:k_hat is above"),
    pytest.mark.filterwarnings("ignore:.*integrals are not settled"),
]

X = rows(12)
Z = np.zeros((3, 2))
SECONDS = 60  # after which a thread that waits has been forgotten: a test that hangs fails


class Gate:
    """A place where one thread waits, once: `passed` is called there, `inside` says that it has come."""

    def __init__(self):
        self.inside = threading.Event()
        self.open = threading.Event()
        self.thread = None

    def passed(self):
        if threading.current_thread() is self.thread and not self.inside.is_set():
            self.inside.set()
            assert self.open.wait(SECONDS)


@pytest.fixture
def gate():
    return Gate()


class Job:
    """`ask(model)` in another thread, up to the gate: `with` holds it there, and lets it go at the end."""

    def __init__(self, gate, ask, *arguments, **settings):
        self.gate = gate
        self.result = None
        self.error = None

        def work():
            try:
                self.result = ask(*arguments, **settings)
            except BaseException as error:
                self.error = error
            finally:
                gate.inside.set()  # it has not come by: then there is an error to be seen

        self.thread = gate.thread = threading.Thread(target=work, daemon=True)

    def __enter__(self):
        self.thread.start()
        assert self.gate.inside.wait(SECONDS)
        assert self.error is None and self.thread.is_alive()
        return self

    def __exit__(self, *_):
        self.gate.open.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


def waiting_objective(gate):
    """L^B, which waits at the gate inside a step, between its forward and its backward passes."""

    def objective(q, p, x, eps, scale, gradient=True):
        z, _ = q.draw(x, eps)
        log_px = p.log_prob(x, z, gradient)
        gate.passed()
        if gradient:
            dz = p.backward(scale / len(eps))
            q.backward(dz, dneg_kl=scale if q.neg_kl() is not None else 0.0)
        return scale * (q.neg_kl() + log_px.mean(axis=0)).sum()

    return objective


class WaitingSGD(SGD):
    """Plain ascent, which waits at the gate in the middle of an update, half of it being made."""

    def __init__(self, gate):
        super().__init__(1e-4)
        self.gate = gate

    def update(self, step, value, g, s):
        half = len(value) // 2
        super().update(step, value[:half], g[:half], s[:half])
        self.gate.passed()
        super().update(step, value[half:], g[half:], s[half:])


def waiting_at(monkeypatch, gate, owner, name):
    """Let a function wait at the gate where it is called, and then do what it does."""
    function = getattr(owner, name)

    def waiting(*arguments, **settings):
        gate.passed()
        return function(*arguments, **settings)

    monkeypatch.setattr(owner, name, waiting)


def model_of(kind=VAE, **settings):
    return kind(6, 5, 2, **{"init": 0.5, "init_biases": True, "dtype": "float64"} | settings)


EPS = np.zeros((1, 12, 2))
LOOKS = {
    "encode": lambda m: m.encode(X),
    "encode_mean": lambda m: m.encode_mean(X),
    "encode_samples": lambda m: m.encode_samples(X),
    "latents": lambda m: m.latents(X, EPS),
    "decode": lambda m: m.decode(Z),
    "draw": lambda m: m.draw(Z),
    "reconstruct": lambda m: m.reconstruct(X),
    "reconstruct_samples": lambda m: m.reconstruct_samples(X, 2),
    "sample": lambda m: m.sample(2),
    "bound": lambda m: m.bound(X, m.noise(np.random.default_rng(0), 12), 12, gradient=True),
    "terms": lambda m: m.terms(X, EPS),
    "to": lambda m: m.to("numpy"),
    "evaluate": lambda m: evaluate(m, X),
    "fit": lambda m: fit(m, X, samples=24, batch_size=6),
    "fit by its names": lambda m: fit(train=X, model=m, samples=24, batch_size=6),
    "importance": lambda m: importance(m, X, 20),
    "appendix_d": lambda m: appendix_d(m, X, 40, burn_in=5),
    "quadrature": lambda m: quadrature(m, X, 21),
    "annealed": lambda m: annealed(m, X, 2, 3),
    "sandwich": lambda m: sandwich(m, 3, 2, 3),
}
OF_THETA = {
    "theta_sample": lambda m: m.theta_sample(),
    "theta_kl": lambda m: m.theta_kl(),
    "evaluate_theta": lambda m: evaluate_theta(m, X, 2),
    "warm_start": lambda m: m.warm_start(VAE(6, 5, 2, dtype="float64")),
    "warm_start by its name": lambda m: m.warm_start(model=VAE(6, 5, 2, dtype="float64")),
}


BETWEEN = {"before the first step": "stream", "between two steps": "due"}  # what `fit` calls there, in training.loop


def refused(model, looks):
    """Every look at the model is refused with the line that says what to do, and changes nothing."""
    before = model.params.value.copy(), model.params.grad.copy()
    for name, look in looks.items():
        with pytest.raises(RuntimeError, match=r"^this model is at work in another thread.*copy\.deepcopy\(model\)"):
            look(model)
            raise AssertionError(f"{name} was not refused")
    for now, then in zip((model.params.value, model.params.grad), before, strict=True):
        assert_array_equal(now, then)


@pytest.mark.parametrize("where", ["before the first step", "inside a step", "inside an update", "between two steps"])
@pytest.mark.parametrize("kind", [VAE, FullVB])
def test_while_fit_trains_a_model_another_thread_is_refused_and_the_training_ends_with_the_same_bits(
    gate, monkeypatch, kind, where
):
    estimator = waiting_objective(gate) if where == "inside a step" else "B"
    optimizer = WaitingSGD(gate) if where == "inside an update" else SGD(1e-4)
    model = model_of(kind, estimator=estimator)
    settings = {"samples": 60, "batch_size": 6}
    undisturbed = copy.deepcopy(model)
    fit(undisturbed, X, X, optimizer=SGD(1e-4), **settings)
    if where in BETWEEN:
        waiting_at(monkeypatch, gate, loop, BETWEEN[where])
    with Job(gate, fit, model, X, X, optimizer=optimizer, **settings) as job:
        refused(model, LOOKS | {"fit_mcem": lambda m: fit_mcem(m, X)} | (OF_THETA if kind is FullVB else {}))
    assert job.error is None
    assert_array_equal(model.params.value, undisturbed.params.value)
    assert evaluate(model, X) == evaluate(undisturbed, X)  # and now this thread may look


def test_the_refused_thread_leaves_no_run_folder_behind(gate, tmp_path):
    model = model_of()
    settings = {"samples": 24, "batch_size": 6, "out": tmp_path / "run"}
    with Job(gate, fit, model, X, samples=24, batch_size=6, optimizer=WaitingSGD(gate)) as job:
        refused(
            model,
            {
                "by place": lambda m: fit(m, X, **settings),
                "by name": lambda m: fit(train=X, model=m, **settings),
                "Monte Carlo EM": lambda m: fit_mcem(m, X, **settings),
            },
        )
    assert job.error is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", BETWEEN)
@pytest.mark.parametrize("kind", [VAE, FullVB])
def test_a_copy_that_is_taken_meanwhile_in_the_other_thread_works_there_and_disturbs_nothing(
    gate, monkeypatch, kind, where
):
    model = model_of(kind)
    undisturbed = copy.deepcopy(model)
    settings = {"samples": 60, "batch_size": 6}
    fit(undisturbed, X, optimizer=SGD(1e-4), **settings)
    waiting_at(monkeypatch, gate, loop, BETWEEN[where])
    with Job(gate, fit, model, X, optimizer=SGD(1e-4), **settings) as job:
        other = copy.deepcopy(model)
        assert other.guard is not model.guard
        assert_array_equal(other.params.value, model.params.value)
        assert_array_equal(pickle.loads(pickle.dumps(model)).sample(2), other.sample(2))
        for look in (LOOKS | (OF_THETA if kind is FullVB else {})).values():
            look(copy.deepcopy(other))
        fit(other, X, optimizer=SGD(1e-4), **settings)
    assert job.error is None
    assert_array_equal(model.params.value, undisturbed.params.value)
    if where == "before the first step":
        assert_array_equal(other.params.value, undisturbed.params.value)  # it started where the other did


@pytest.mark.parametrize(
    ("where", "way"), [("inside a step", "deepcopy"), ("inside an update", "deepcopy"), ("inside an update", "pickle")]
)
def test_a_copy_that_is_asked_for_within_a_step_waits_for_its_end_and_has_all_of_it(gate, where, way):
    inside = where == "inside a step"
    take = copy.deepcopy if way == "deepcopy" else lambda model: pickle.loads(pickle.dumps(model))
    model = model_of(estimator=waiting_objective(gate) if inside else "B")
    after_one = copy.deepcopy(model)
    fit(after_one, X, samples=6, batch_size=6, optimizer=SGD(1e-4))
    taken = []
    copier = threading.Thread(target=lambda: taken.append(take(model)), daemon=True)
    with Job(gate, fit, model, X, samples=6, batch_size=6, optimizer=SGD(1e-4) if inside else WaitingSGD(gate)) as job:
        copier.start()
        copier.join(0.2)  # time enough for one that does not wait
        assert copier.is_alive()
    copier.join(SECONDS)
    assert job.error is None
    assert_array_equal(taken[0].params.value, after_one.params.value)


@pytest.mark.parametrize("name", ["encode", "latents", "terms", "bound"])
def test_a_copy_waits_for_the_end_of_a_single_call_too(gate, monkeypatch, name):
    model = model_of()
    before = model.params.value.copy()
    waiting_at(monkeypatch, gate, model, "pixels")
    taken = []
    copier = threading.Thread(target=lambda: taken.append(copy.deepcopy(model)), daemon=True)
    with Job(gate, LOOKS[name], model) as job:
        copier.start()
        copier.join(0.1)
        assert copier.is_alive()
    copier.join(SECONDS)
    assert job.error is None
    assert_array_equal(taken[0].params.value, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # of a process with threads, which is what this is about
def test_in_a_forked_process_the_model_is_free_although_a_thread_of_its_parent_holds_it(gate):
    model = model_of()
    with Job(gate, fit, model, X, samples=24, batch_size=6, optimizer=WaitingSGD(gate)) as job:
        refused(model, {"sample": LOOKS["sample"]})
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)  # should it wait for a thread that does not live there
            try:
                model.sample(2)
                copy.deepcopy(model)
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        refused(model, {"sample": LOOKS["sample"]})  # and here it is held as before
    assert job.error is None


JOBS = {  # what runs in the other thread, and where it waits, no method of the model being at work there
    "evaluate": (lambda m: evaluate(m, X), lambda m: (loop, "stream")),
    "importance": (lambda m: importance(m, X, 20).log_p, lambda m: (marginal, "log_p_xz")),
    "appendix_d": (lambda m: appendix_d(m, X, 40, burn_in=5).log_p, lambda m: (marginal, "log_p_xz")),
    "quadrature": (lambda m: quadrature(m, X, 201), lambda m: (marginal, "log_p_xz")),
    "fit": (lambda m: fit(m, X, samples=24, batch_size=6)["train_bound"], lambda m: (m, "noise")),
    "evaluate_theta": (lambda m: evaluate_theta(m, X, 2), lambda m: (loop, "stream")),
}


@pytest.mark.parametrize("name", JOBS)
def test_each_of_these_holds_the_model_for_as_long_as_it_takes(gate, monkeypatch, name):
    ask, place = JOBS[name]
    model = model_of(FullVB if name == "evaluate_theta" else VAE)
    expected = ask(copy.deepcopy(model))
    waiting_at(monkeypatch, gate, *place(model))
    with Job(gate, ask, model) as job:
        refused(model, {key: LOOKS[key] for key in ("encode", "decode", "bound", "evaluate", "fit")})
    assert job.error is None
    if isinstance(expected, np.ndarray):
        assert_array_equal(job.result, expected)
    else:
        assert job.result == expected
    LOOKS["encode"](model)  # afterwards it is free


def test_check_model_works_on_a_copy_and_leaves_the_model_to_everybody(gate, monkeypatch):
    model = model_of()
    expected = LOOKS["sample"](model)
    waiting_at(monkeypatch, gate, gradcheck.model, "_witness")
    with Job(gate, check_model, model, X, entries=1) as job:
        for other in (model, copy.deepcopy(model)):
            assert_array_equal(LOOKS["sample"](other), expected)
    assert job.error is None and job.result


def test_monte_carlo_em_holds_the_model_for_as_long_as_it_takes(gate):
    models = [model_of() for _ in range(2)]
    settings = {"samples": 400, "batch_size": 6, "acceptance": 0.7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the chains are too short to be tuned
        fit_mcem(models[0], X, optimizer=SGD(1e-4), **settings)
        with Job(gate, fit_mcem, models[1], X, optimizer=WaitingSGD(gate), **settings) as job:
            refused(models[1], LOOKS | {"fit_mcem": lambda m: fit_mcem(m, X)})
    assert job.error is None
    assert_array_equal(models[1].params.value, models[0].params.value)


class Looking(Adagrad):
    """An optimiser that looks at the model between the steps, in the thread that trains it."""

    def __init__(self, model):
        super().__init__(0.05)
        self.look = lambda: (model.sample(2), model.reconstruct(X), evaluate(model, X), copy.deepcopy(model))

    def ascend(self, params, step, part=slice(None)):
        super().ascend(params, step, part)
        self.look()


def test_the_thread_that_trains_may_look_in_between_and_the_bits_stay_the_same():
    models = [model_of(posterior="full", flow=1) for _ in range(2)]
    for model, optimizer in zip(models, (Adagrad(0.05), Looking(models[1])), strict=True):
        fit(model, X, samples=60, batch_size=6, optimizer=optimizer)
    assert_array_equal(models[1].params.value, models[0].params.value)


def test_after_an_error_the_model_is_free_for_every_thread(gate):
    def broken(q, p, x, eps, scale, gradient=True):
        value = sgvb_b(q, p, x, eps, scale, gradient)
        if threading.current_thread() is gate.thread:
            raise OSError("broken")
        return value

    model = model_of(estimator=broken)
    job = Job(gate, fit, model, X, samples=24, batch_size=6)
    job.thread.start()
    job.thread.join(SECONDS)
    assert str(job.error) == "broken"
    for look in LOOKS.values():
        look(model)
    with pytest.raises(ValueError, match="x has shape"):
        evaluate(model, X[:, :3])
    with Job(gate_of := Gate(), fit, model_of(), X, samples=24, batch_size=6, optimizer=WaitingSGD(gate_of)):
        LOOKS["encode"](model)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_and_pickles_of_a_model_that_is_held_have_guards_of_their_own_that_nobody_holds(way):
    model = model_of()
    with model.guard:
        other = way(model)
        assert other.guard is not model.guard and type(other.guard) is Guard
        found = []
        thread = threading.Thread(target=lambda: found.append(other.sample(2)), daemon=True)
        thread.start()
        thread.join(SECONDS)
    assert_array_equal(found[0], model.sample(2))


def test_a_model_that_is_loaded_has_a_guard(tmp_path, gate):
    fit(model_of(), X, samples=24, batch_size=6, out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    with Job(gate, fit, model, X, samples=24, batch_size=6, optimizer=WaitingSGD(gate)):
        refused(model, LOOKS)


def test_two_models_train_in_two_threads(gate):
    ours, theirs, alone = (model_of() for _ in range(3))
    settings = {"samples": 60, "batch_size": 6}
    with Job(gate, fit, theirs, X, optimizer=WaitingSGD(gate), **settings):
        fit(ours, X, optimizer=SGD(1e-4), **settings)
    fit(alone, X, optimizer=SGD(1e-4), **settings)
    assert_array_equal(ours.params.value, alone.params.value)
    assert_array_equal(theirs.params.value, alone.params.value)


@pytest.mark.parametrize("model", ["a model", PPCA(2), None, VAE])
def test_what_is_no_model_is_refused_by_every_function_that_holds_one(model):
    with pytest.raises(TypeError, match="missing"):
        fit()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        evaluate(model_of())
    for function in (fit, evaluate, evaluate_theta, fit_mcem, importance, appendix_d, quadrature, annealed):
        with pytest.raises(ValueError, match=f"model is a {type(model).__name__}; expected a VAE or a FullVB"):
            function(model, X)


def test_in_a_forked_process_an_optimiser_is_free_although_a_thread_of_its_parent_uses_it():
    rule = SGD(0.1)
    inside, done = threading.Event(), threading.Event()

    def hold():
        with started(rule, model_of().params), optim._lock:
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(ValueError):
            if optim._lock.acquire(timeout=1):
                optim._lock.release()
                with started(rule, model_of().params):
                    code = 0
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    assert status == 0


def test_warnings_point_at_the_line_of_the_caller(tmp_path):
    """A function that holds the guard is one call deeper than it looks."""
    model = VAE(6, 5, 5, init=0.5)
    asks = [
        lambda: fit(model, X, samples=12, batch_size=50, out=tmp_path / "run"),
        lambda: fit(model, X, samples=12, batch_size=12, out=tmp_path / "run", resume=True),
        lambda: fit_mcem(model, X, samples=400, batch_size=50, acceptance=0.01),
        lambda: fit_mcem(model, X, samples=400, batch_size=12, acceptance=0.01),
        lambda: appendix_d(model, X, 40, burn_in=5),
        lambda: quadrature(VAE(6, 5, 1, init=5.0), X, 5),
        lambda: importance(VAE(6, 5, 2, init=8.0), X, 200),
    ]
    for k, ask in enumerate(asks):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            ask()
        assert found, k
        ours = [w for w in found if "trajectories" not in str(w.message) and "transitions of" not in str(w.message)]
        assert ours and all(w.filename == __file__ for w in ours), [(str(w.message), w.filename) for w in found]
