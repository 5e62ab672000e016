"""One thread a model: a layer keeps on itself what its backward pass needs, so a second thread would overwrite it."""

import contextlib
import functools
import os
import threading
import weakref

_guards = weakref.WeakSet()


class Guard:
    """A lock that is taken without waiting: `with guard:` raises RuntimeError while another thread is inside.

    The thread that holds it may take it again. `moment` is a second lock, which whoever computes holds for one step or
    one call, so that a copy that waits for it sees no half of one. A copy or a pickle of a guard is a new one, which
    nobody holds, and so is every guard in a forked process, where the thread that held it does not live on.
    """

    def __init__(self):
        self._renew()
        _guards.add(self)

    def _renew(self):
        self.lock = threading.RLock()
        self.moment = threading.RLock()

    def __enter__(self):
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(
                "this model is at work in another thread, and its layers keep what their backward pass needs: "
                "take copy.deepcopy(model) there, for instance to look at it while it is trained"
            )

    def __exit__(self, *_):
        self.lock.release()

    def __reduce__(self):
        return Guard, ()


def one_thread(method):
    """Run a method of a model under its `guard`, as one moment."""

    @functools.wraps(method)
    def guarded(self, *arguments, **settings):
        with self.guard, self.guard.moment:
            return method(self, *arguments, **settings)

    return guarded


def holds_model(function):
    """Run a function whose first argument is a model under its `guard`, from the first step to the last."""

    @functools.wraps(function)
    def guarded(*arguments, **settings):
        model = arguments[0] if arguments else settings.get("model")
        with getattr(model, "guard", contextlib.nullcontext()):  # what is no model is refused by the function itself
            return function(*arguments, **settings)

    return guarded


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [guard._renew() for guard in _guards])
