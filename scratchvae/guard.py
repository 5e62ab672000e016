"""One thread a model: a layer keeps on itself what its backward pass needs, so a second thread would overwrite it."""

import contextlib
import functools
import threading


class Guard:
    """A lock that is taken without waiting: `with guard:` raises RuntimeError while another thread is inside.

    The thread that holds it may take it again. A copy or a pickle of it is a new one, which nobody holds.
    """

    def __init__(self):
        self.lock = threading.RLock()

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


def one_thread(function):
    """Run a method of a model, or a function whose first argument is one, under the `guard` of the model."""

    @functools.wraps(function)
    def guarded(*arguments, **settings):
        model = arguments[0] if arguments else settings.get("model")
        with getattr(model, "guard", contextlib.nullcontext()):  # what is no model is refused by the function itself
            return function(*arguments, **settings)

    return guarded
