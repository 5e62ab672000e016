"""One thread a model: a layer keeps on itself what its backward pass needs, so a second thread would overwrite it."""

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


def one_thread(method):
    """The method of a model, under the model's `guard`."""

    @functools.wraps(method)
    def guarded(self, *arguments, **settings):
        with self.guard:
            return method(self, *arguments, **settings)

    return guarded
