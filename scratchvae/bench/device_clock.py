"""Times calls on the device: what they take the device itself, and what it takes the host to put them in its queue.

The host puts work in the device's queue and goes on, and the device takes it from there in turn. A call of a few
microseconds on the device often takes the host longer to queue. A clock around a row of such calls therefore shows the
host's time, and two events around them do so too, since the device waits between the calls for the next one.

So the queue is kept full. A blocker goes first: matrix products that take the device longer than the host needs to
queue all of the calls. When the device comes to the first call the others stand behind it already, and the time between
the events is the device's alone. Whether the host was indeed ahead is asked afterwards, since the device must not have
come to the first event by then; if it has, the calls are timed again behind a longer blocker.
"""

import time

import numpy as np

from scratchvae.backend import array_module

WIDTH = 2048  # of the matrices whose product blocks the queue
LEAST_MS = 1.0  # that a blocker takes, so that no hiccup of the host uses it up
AHEAD = 2  # how many times as long as queueing the calls a blocker takes
ATTEMPTS = 5  # at a blocker that is long enough; each is twice as long as the one before, or more


class DeviceClock:
    """Times calls on CuPy's current device and stream.

    `product_ms` is what one product of the blocker takes the device, in milliseconds. It is measured when a clock is
    made. A CuPy that is not there raises a ValueError.
    """

    def __init__(self):
        cupy = array_module("cupy")
        self.cuda = cupy.cuda
        self.finish = cupy.cuda.Device().synchronize
        self.a = cupy.ones((WIDTH, WIDTH), np.float32)
        self.b = cupy.ones((WIDTH, WIDTH), np.float32)
        self.block_with(20)  # the first loads the library, and a device at rest takes some until it is at full speed
        self.finish()
        before = self.cuda.Event()
        after = self.cuda.Event()
        before.record()
        self.block_with(10)
        after.record()
        self.finish()
        self.product_ms = max(self.cuda.get_elapsed_time(before, after) / 10, 1e-3)

    def block(self, ms):
        """Put so many products in the queue that the device works on them for `ms` milliseconds or a little longer."""
        self.block_with(int(ms / self.product_ms) + 1)

    def block_with(self, products):
        """Put so many products in the queue."""
        for _ in range(products):
            np.matmul(self.a, self.a, out=self.b)

    def timed(self, function, count, queueing_ms=0.0):
        """Call function() `count` times behind a blocker and return (launch_ms, device_ms, ahead).

        launch_ms is what one call takes the host, and device_ms what it takes the device, both in milliseconds. ahead
        says whether the host was ahead of the device; where it is False, in spite of ever longer blockers, the device
        may have waited for the host, and device_ms may be too long. A call that reads a value from the device leads to
        that, since it waits for the blocker.

        count         is the number of calls, at least one. The queue of a device has room for about a thousand.
        queueing_ms   is about how long the host takes to queue all of them, 0 unless given; a better guess saves an
                      attempt.
        """
        blocker_ms = max(LEAST_MS, AHEAD * queueing_ms)
        for _ in range(ATTEMPTS):
            before = self.cuda.Event()
            after = self.cuda.Event()
            self.finish()
            self.block(blocker_ms)
            before.record()
            begun = time.perf_counter_ns()
            for _ in range(count):
                function()
            queued_ms = (time.perf_counter_ns() - begun) / 1e6
            after.record()
            ahead = not before.done
            self.finish()
            if ahead:
                break
            blocker_ms = max(2 * blocker_ms, AHEAD * queued_ms)
        return queued_ms / count, self.cuda.get_elapsed_time(before, after) / count, ahead
