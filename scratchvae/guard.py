"""Keeps a model to one thread at a time.

A layer keeps on itself what its backward pass needs, so a second thread would overwrite it.
"""

import contextlib
import copy
import functools
import os
import threading
import weakref

_guards = weakref.WeakSet()


class Guard:
    """A lock that does not wait: `with guard:` raises a RuntimeError while another thread is inside.

    The thread that holds it may take it again, and `depth` is how often it has. `moment` is a second lock, which is
    held for one step or one call. Whoever copies the model waits for it, so that a copy has all of a step or nothing of
    it.

    A copy or a pickle of a guard is a new guard that nobody holds. In a forked process all guards are made anew, since
    the thread that held them does not live there.
    """

    def __init__(self):
        self._renew()
        _guards.add(self)

    def _renew(self):
        self.lock = threading.RLock()
        self.moment = threading.RLock()
        self.depth = 0

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(
                "this model is at work in another thread, and its layers keep what their backward pass needs: "
                "take copy.deepcopy(model) there, for instance to look at it while it is trained"
            )

        self.depth += 1

    def __exit__(self, *_):
        self.depth -= 1
        self.lock.release()

    @contextlib.contextmanager
    def looked_at(self):
        """Hold the model as inside a function that has looked at its rows, so that no call in it looks or warns again.

        Such a call finds itself two levels deep: that of the function, and its own.
        """
        with self, self:
            yield

    def __reduce__(self):
        return Guard, ()


def one_thread(method):
    """Return a method of a model that runs under the `guard` of the model and under its `moment`."""

    @functools.wraps(method)
    def guarded(self, *arguments, **settings):
        with self.guard, self.guard.moment:
            return method(self, *arguments, **settings)

    return guarded


def guard_of(model):
    """Return the `guard` of a model, so that `with guard_of(model):` keeps it to this thread from beginning to end.

    What has no guard is no VAE, and raises a ValueError.
    """
    guard = getattr(model, "guard", None)
    if not isinstance(guard, Guard):
        if hasattr(model, "model_"):
            raise ValueError(
                "model is an estimator of scikit-learn; expected its model_, whose rows are (X - mean_) / scale_"
            )
        raise ValueError(f"model is a {type(model).__name__}; expected a VAE or a FullVB")
    return guard


@contextlib.contextmanager
def one_of(model):
    """Give a model that this thread may use: `model`, or a copy of it where another thread is using it.

    It is held as by `Guard.looked_at`.
    """
    free = model.guard.lock.acquire(blocking=False)
    try:
        mine = model if free else copy.deepcopy(model)
        with mine.guard.looked_at():
            yield mine
    finally:
        if free:
            model.guard.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [guard._renew() for guard in _guards])
