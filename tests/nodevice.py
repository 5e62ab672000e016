"""A device that computes nothing: CuPy itself at work, above a driver whose kernels are empty.

`install` puts Python functions where CuPy's modules fetch those of CUDA's runtime and driver, and lets memory of the
host stand for that of the device. Whatever CuPy does before a kernel starts is then done as on a device: it looks up
names and keywords, chooses dtypes, makes arrays, traces what is fused and writes the kernels' source. A kernel itself
does nothing, so that a result is zeros; isfinite, all and & of bools alone say yes. Copies and memory sets are made.
`install` has to be called before CuPy is imported, since CuPy fetches these functions once, and therefore in a process
of its own.

`Queue.notes` lists what has been put in the device's queue: kernels, copies, memory sets, reductions by CUB, products
by cuBLAS. A function of CUDA that is needed and is not written here ends the process and says so.
"""

import ctypes
import os
import re
import sys

import standin

TYPES = {
    "PyObject *": ctypes.py_object,
    "float": ctypes.c_float,
    "int": ctypes.c_int,
    "intptr_t": ctypes.c_ssize_t,
    "size_t": ctypes.c_size_t,
    "unsigned int": ctypes.c_uint,
}
LAST = "int __pyx_skip_dispatch"  # Cython's own last argument of most functions
PROPERTIES = {"name": b"nothing", "multiProcessorCount": 1, "totalGlobalMem": 1 << 40, "l2CacheSize": 3 << 13}
COMPUTE_CAPABILITY = {75: 9, 76: 0}  # by the numbers of the attributes: 9.0
HOST, DEVICE = 1, 2  # the kinds of copies: to the device, and from it
COPIES = {HOST: "copy to the device", DEVICE: "copy from the device", 3: "copy", 4: "copy"}

python = ctypes.pythonapi
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
python.PyCapsule_GetName.restype = ctypes.c_char_p
python.PyCapsule_GetName.argtypes = [ctypes.py_object]
clib = ctypes.CDLL(None)
clib.calloc.restype = ctypes.c_void_p
clib.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
clib.free.argtypes = [ctypes.c_void_p]


class Queue:
    """What is in the device's queue: `notes` lists (name, place) of each thing, the place as `standin.place` has it."""

    notes = []  # noqa: RUF012
    sources = []  # noqa: RUF012  the source of each kernel
    functions = []  # noqa: RUF012  the names of the kernels, by their numbers

    @classmethod
    def note(cls, name):
        """Note one thing more."""
        cls.notes.append((name, standin.place()))


def copy(to, source, n_bytes, kind, stream=0):
    """cudaMemcpyAsync, which is made at once."""
    Queue.note(COPIES[kind])
    ctypes.memmove(to, source, n_bytes)


def fill(to, value, n_bytes, stream=0):
    """cudaMemsetAsync, likewise."""
    Queue.note("memory set")
    ctypes.memset(to, value, n_bytes)


def function_of(module, name):
    """cuModuleGetFunction: the number of a kernel."""
    Queue.functions.append(name)
    return len(Queue.functions)


def launch(function, *rest):
    """cuLaunchKernel; rest[8] points to pointers to the kernel's own arguments: an array is address and size."""
    name = Queue.functions[function - 1]
    Queue.note(name)
    if result := YES.get(name.partition("__float")[0]):
        arrays = ctypes.cast(rest[8], ctypes.POINTER(ctypes.POINTER(ctypes.c_size_t)))
        memory, size = arrays[result][:2]
        ctypes.memset(memory, 1, size)  # bools


def new_memory(n_bytes, flags=0):
    """cudaMalloc and cudaHostAlloc: zeros."""
    return clib.calloc(1, max(n_bytes, 1))


RUNTIME = {
    "_ensure_context": lambda: None,
    "deviceGetAttribute": lambda attribute, device: COMPUTE_CAPABILITY.get(attribute, 1024),
    "deviceSynchronize": lambda: None,
    "driverGetVersion": lambda: 13000,
    "eventCreateWithFlags": lambda flags: 1,
    "eventDestroy": lambda event: None,
    "eventElapsedTime": lambda start, stop: 1.0,
    "eventQuery": lambda event: None,
    "eventRecord": lambda event, stream: None,
    "eventSynchronize": lambda event: None,
    "free": lambda pointer: clib.free(pointer),
    "freeHost": lambda pointer: clib.free(pointer),
    "getDevice": lambda: 0,
    "getDeviceCount": lambda: 1,
    "getDeviceProperties": lambda device: PROPERTIES,
    "hostAlloc": new_memory,
    "malloc": new_memory,
    "memGetInfo": lambda: (1 << 40, 1 << 40),
    "memcpy": copy,
    "memcpyAsync": copy,
    "memset": fill,
    "memsetAsync": fill,
    "pointerGetMemoryType": lambda pointer: 0,  # of a host array that CUDA does not know
    "runtimeGetVersion": lambda: 13000,
    "setDevice": lambda device: None,
    "streamIsCapturing": lambda stream: 0,
    "streamSynchronize": lambda stream: None,
}
DRIVER = {
    "launchKernel": launch,
    "moduleGetFunction": function_of,
    "moduleUnload": lambda module: None,
}
ALIVE = []  # what C has pointers to
YES = {"cupy_isfinite": 1, "cupy_all": 1, "cupy_bitwise_and__bool_bool_bool": 2}  # the number of the result
CUBLAS = ("gemmEx", "sgemmEx", "dgemm", "sgemm", "gemmStridedBatchedEx", "sgemmBatched", "dgemmBatched")


def instead(module, functions):
    """Put `functions` in the place of those that Cython's modules fetch from `module`; the others end the process.

    Cython hands a function from one module to another as a capsule, which has the function's type in C for a name.
    """
    for name, capsule in list(module.__pyx_capi__.items()):
        signature = python.PyCapsule_GetName(capsule)
        found = re.fullmatch(r"(.*?) ?\((.*)\)", signature.decode())
        arguments = [one for one in found[2].split(", ") if one not in ("void", LAST)] if found else ["a constant"]
        if not {*arguments, found[1] if found else ""} <= TYPES.keys():
            if name in functions:
                raise NotImplementedError(f"CuPy's {name} has become {signature.decode()}")
            continue
        skip = LAST in found[2]
        types_of = [TYPES[found[1]], *(TYPES[one] for one in arguments), *([ctypes.c_int] if skip else [])]
        pointer = ctypes.PYFUNCTYPE(*types_of)(guarded(name, functions.get(name), skip))
        ALIVE.append((pointer, signature))
        address = ctypes.cast(pointer, ctypes.c_void_p)
        module.__pyx_capi__[name] = python.PyCapsule_New(address, signature, None)
        if name in functions:
            setattr(module, name, functions[name])  # for Python
    if missing := functions.keys() - module.__pyx_capi__.keys():
        raise NotImplementedError(f"CuPy has no {', '.join(sorted(missing))} any more")


def guarded(name, function, skip):
    """The function as C calls it: an error in it ends the process, since C cannot see it."""

    def called(*arguments):
        try:
            if function is None:
                raise NotImplementedError(f"the device that computes nothing has no {name}")
            return function(*(arguments[:-1] if skip else arguments))
        except BaseException as error:
            print(f"{name}: {error!r}, at {standin.place()}", file=sys.stderr, flush=True)
            os._exit(1)

    return called


class Cublas:
    """cuBLAS, whose products leave zeros; its constants are all 0."""

    def __getattr__(self, name):
        if name.startswith("CUBLAS_"):
            return 0
        if name not in CUBLAS:
            raise AttributeError(f"the device that computes nothing has no cublas.{name}")
        return lambda *arguments: Queue.note(f"cublas {name}")

    def create(self):
        return 1

    def destroy(self, handle):
        pass

    def setStream(self, handle, stream):  # noqa: N802  cuBLAS's name
        pass


def install():
    """Import CuPy above the device that computes nothing, and return it.

    CUB's reductions of whole arrays and of rows, which are compiled into CuPy, are put aside likewise. For a whole
    array of more than `standin.TILE` bytes CUB makes two launches (dispatch_reduce.cuh and tuning_reduce.cuh, up to
    compute capability 9.0, in CuPy's folder include).
    """
    import cupy_backends.cuda.api.driver as driver
    import cupy_backends.cuda.api.runtime as runtime
    import cupy_backends.cuda.libs.nvrtc as nvrtc

    instead(runtime, RUNTIME)
    instead(driver, DRIVER)
    instead(nvrtc, {"getVersion": lambda: (13, 0)})
    import cupy
    import cupy_backends.cuda.libs as libraries
    from cupy.cuda import compiler, cub, function

    libraries.cublas = Cublas()

    def compiled(source, *_, **__):
        Queue.sources.append(source)
        return function.Module()

    compiler._compile_module_with_cache = compiled
    cupy.cuda.set_allocator(None)  # without a pool new memory is zeros

    def whole(x, op, reduce_axis, out_axis, out=None, keepdims=False):
        for _ in range(1 if x.nbytes <= standin.TILE else 2):
            Queue.note("cub reduce")
        return written(cupy.ndarray((1,) * x.ndim if keepdims else (), x.dtype), out)

    def segments(x, op, reduce_axis, out_axis, out=None, keepdims=False, contiguous_size=0):
        Queue.note("cub reduce of segments")
        kept = [1 if k in reduce_axis else n for k, n in enumerate(x.shape) if keepdims or k not in reduce_axis]
        return written(cupy.ndarray(tuple(kept), x.dtype), out)

    def written(result, out):
        if out is None:
            return result
        Queue.note("cupy_copy")
        return out

    cub.device_reduce = whole
    cub.device_segmented_reduce = segments
    return cupy


class Fused:
    """cupy.fuse: the function is traced by CuPy's first fusion, and an error there is an error.

    `made` lists, for each kernel that has come of it, what it was given, its sources, the class of the kernel and
    the keywords that it is called with. The second fusion, which CuPy would take in silence, is refused.
    """

    made = []  # noqa: RUF012

    def __init__(self, function, plain):
        self.fusion = plain()(function)
        self.kernels = {}

    def __call__(self, *arguments):
        if any(type(value).__module__ == "cupy._core.fusion" for value in arguments):
            return self.fusion(*arguments)  # inside of another one
        n_notes = len(Queue.notes)
        n_sources = len(Queue.sources)
        result = self.fusion(*arguments)
        if self.fusion.new_fusion is not None:
            raise NotImplementedError(f"CuPy cannot fuse {self.fusion.name} into one kernel")
        given = [told(value) for value in arguments]
        key = str([one[:2] if isinstance(one, tuple) else one for one in given])
        if key not in self.kernels:
            kernel, settings = list(self.fusion._memo.values())[-1]
            self.kernels[key] = kernel
            sources = Queue.sources[n_sources:]
            self.made.append((self.fusion.name, given, type(kernel).__name__, settings, sources))
        written = [
            told(value)
            for value, parameter in zip(arguments, self.kernels[key].in_params, strict=True)
            if not parameter.is_const
        ]
        results = result if isinstance(result, tuple) else () if result is None else (result,)
        (_, place), *others = Queue.notes[n_notes:]
        Queue.notes[n_notes:] = [(f"fused {self.fusion.name}", place, given, written + [told(one) for one in results])]
        Queue.notes += others
        return result


def told(value):
    """What is noted of an argument or a result, as `standin.told` has it."""
    if hasattr(value, "__cuda_array_interface__"):
        return value.dtype.name, value.ndim, value.nbytes
    return type(value).__name__
