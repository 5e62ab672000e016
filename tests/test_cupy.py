"""CuPy itself, as far as it goes without a device: the package works on it, and the stand-in is like it.

CuPy can be installed where there is no device. `nodevice` then lets it do all but compute, and `on_nodevice` does on it
what the package does on a device. What CuPy puts into the device's queue meanwhile is compared with what the stand-in
says, line by line. Hence each name, keyword and number of arguments is one that CuPy takes, each function that is
`fused` is one kernel, and dtypes and numbers of launches are those of the stand-in, which other tests count.
"""

import copy
import inspect
import json
import os
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import standin
from on_nodevice import WORK, dtypes
from test_fused import BROKEN, LAUNCHES, names_of_fused

from scratchvae.backend import array_module, fusing

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install cupy-cuda13x, which needs no device here")

_fusion_thread_local = pytest.importorskip("cupy._core._fusion_thread_local")
fusion = pytest.importorskip("cupy._core.fusion")
CUDARuntimeError = cupy.cuda.runtime.CUDARuntimeError

SUMS = ("cub reduce", "cub reduce of segments")
COPIES = ("cupy_copy", "copy")
JOINED = (*COPIES, "copy to the device", "cupy_concatenate", "cupy_concatenate_same_size")
KERNELS = {  # what the launches of a call may be in CuPy, where they are not cupy_ and NumPy's name
    "asarray": ("copy to the device",),
    "astype": COPIES,
    "concatenate": JOINED,
    "copy": COPIES,
    "copyto": (*COPIES, "cupy_fill", "memory set"),
    "divide": ("cupy_true_divide",),
    "full_like": COPIES,
    "get": ("copy from the device",),
    "matmul": ("cublas", "cupy_mat_ptrs", "cupy_multiply", *COPIES, *SUMS),
    "max": ("cupy_max", *SUMS),
    "mean": ("cupy_mean", "cupy_true_divide", *SUMS),
    "ones": COPIES,
    "ones_like": COPIES,
    "power": ("cupy_power", "cupy_square"),
    "ravel": COPIES,
    "reshape": COPIES,
    "stack": JOINED,
    "std": ("cupy_mean", "cupy_true_divide", "cupy_var_core", "cupy_sqrt", *COPIES, *SUMS),
    "sum": ("cupy_sum", "cupy_copy", *SUMS),
    "var": ("cupy_mean", "cupy_true_divide", "cupy_var_core", *COPIES, *SUMS),
    "zeros": ("memory set",),
    "zeros_like": ("memory set",),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What `on_nodevice` writes about CuPy."""
    path = tmp_path_factory.mktemp("cupy") / "found.json"
    script = Path(__file__).parent / "on_nodevice.py"
    done = subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


def called(name, on=False):
    """What one of `WORK` calls on the stand-in, which has to be installed."""
    array_module("cupy")  # which makes an array the first time
    with fusing(on), standin.logged() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WORK[name]()
    return log


def differences(ours, notes):
    """What the `Call`s of the stand-in and the notes of CuPy's queue say differently, as a list of texts."""
    found = []
    start = 0
    for call in ours:
        its = notes[start : start + call.launches]
        if len(its) < call.launches or any(tuple(place) != call.place for _, place, *_ in its):
            return [*found, f"{call.name} at {call.place} makes {call.launches} launches, and CuPy's are {its}"]
        found += [f"{call.name} at {call.place}: {text}" for text in differing(call, its)]
        start += call.launches
    return found + [f"CuPy has {note} besides" for note in notes[start:]]


def differing(call, notes):
    """What differs between a call of the stand-in and its launches in CuPy."""
    if call.name.startswith("fused"):
        name, _, given, made = notes[0]
        if [name, given, made] != json.loads(json.dumps([call.name, call.given, call.made])):
            yield f"{call.given} makes {call.made}; in CuPy {name} makes {made} of {given}"
        return
    for name, _ in notes:
        kernel, _, dtypes = name.partition("__")
        kernel = re.sub("^cupy_cub_", "cupy_", re.sub("(_pass[12]|_with_dtype|_core_float..)$", "", kernel))
        kernel = "cublas" if kernel.startswith("cublas") else kernel.replace("cupy_var", "cupy_var_core")
        if kernel not in KERNELS.get(call.name, (f"cupy_{call.name}",)):
            yield f"CuPy has {name}"
        dtypes = dtypes.split("_") if dtypes and len(notes) == 1 else []
        if dtypes and dtypes[-1] != call.made[0]:
            yield f"it makes {call.made[0]}, and CuPy {name}"
        if len(dtypes) == len(call.given) + 1:
            for dtype, given in zip(dtypes, call.given, strict=False):
                if isinstance(given, tuple) and isinstance(given[0], str) and given[0] != dtype:
                    yield f"it is given {call.given}, and in CuPy {name}"


# The package


@pytest.mark.parametrize("on", [False, True])
def test_the_package_puts_into_cupys_queue_line_by_line_what_the_stand_in_says(waits, theirs, on):
    n_launches = 0
    for name in WORK:
        notes = theirs["queues"][f"{name}{', fused' * on}"]
        assert not differences(called(name, on), notes), name
        n_launches += len(notes)
    assert n_launches > 20_000


def test_a_wrong_dtype_a_launch_too_many_and_another_kernel_are_seen(waits, theirs):
    notes = theirs["queues"]["beta"]
    calls = called("beta")
    assert not differences(calls, notes)
    for k in [k for k, call in enumerate(calls) if call.name in ("multiply", "exp", "astype", "sum")]:
        for change in ("dtype", "name", "launches"):
            changed = copy.copy(calls[k])
            changed.made = ("float64", *changed.made[1:]) if change == "dtype" else changed.made
            changed.name = "tanh" if change == "name" else changed.name
            changed.launches += change == "launches"
            seen = differences([*calls[:k], changed, *calls[k + 1 :]], notes)
            assert seen or (change == "dtype" and changed.name == "sum")  # the next line says what a sum has made
    given = next(k for k, call in enumerate(calls) if call.name == "subtract")
    changed = copy.copy(calls[given])
    changed.given = (("float64", 2, 8), *changed.given[1:])
    assert "it is given" in differences([*calls[:given], changed, *calls[given + 1 :]], notes)[0]
    assert differences(calls[:-1], notes) and differences(calls, notes[:-1])


def test_cupy_makes_the_dtypes_that_the_stand_in_makes_of_all_pairs_of_arguments(waits, theirs):
    ours = dtypes()
    assert len(ours) > 3000 and ours.keys() == theirs["dtypes"].keys()
    differ = {name: (ours[name], made) for name, made in theirs["dtypes"].items() if ours[name] != made}
    assert differ == {"sign bool": ("UFuncTypeError", "int8")}  # which NumPy refuses


# Functions that become one kernel


C_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "uint8": "unsigned char",
    "uint64": "unsigned long long",
}


def types_in(source):
    """The types of C in which a fused kernel computes: those of each of its operations, and of its sum."""
    found = re.findall(r"(\w[\w ]*) &(?:in|out)\d", source)
    found += re.findall(r"typedef ([\w ]+) type_(?:in|out)0_raw", source)
    found += re.findall(r"__device__ ([\w ]+) _pre_map", source)
    return set(found)


def test_every_fused_function_is_one_kernel_in_cupy_that_computes_in_the_types_of_its_arrays(theirs):
    assert {name for name, *_ in theirs["kernels"]} == names_of_fused()
    for name, given, kind, settings, sources in theirs["kernels"]:
        assert (kind, set(settings)) in [("ElementwiseKernel", set()), ("ReductionKernel", {"axis"})], name
        arrays = {C_TYPES[one[0]] for one in given if isinstance(one, list)}
        made = {"_of_white": {"float", "double", "short"}, "both_normals": {"float"}}.get(name, set())
        for source in sources:
            assert types_in(source), name
            assert types_in(source) <= arrays | made | {"bool"}, (name, given)


def fake(*shape):
    """An array of CuPy that has no memory."""
    memory = cupy.cuda.memory
    return cupy.ndarray(shape, np.float32, memory.MemoryPointer(memory.UnownedMemory(1 << 40, 1 << 20, None, 0), 0))


def kernel(function, *arguments):
    """What CuPy's first fusion makes of a function, without the second one, which CuPy falls back to in silence."""
    text = types.FunctionType(function.__code__, {**function.__globals__, "np": cupy}, "traced")
    history = fusion._FusionHistory()
    _fusion_thread_local.thread_local.history = history
    _fusion_thread_local.thread_local.is_old_fusing = True
    try:
        return history.get_fusion(text, arguments, "traced")[0]
    finally:
        _fusion_thread_local.thread_local.history = None
        _fusion_thread_local.thread_local.is_old_fusing = False


@pytest.mark.parametrize("what", BROKEN)
def test_cupy_cannot_fuse_what_the_stand_in_refuses(what):
    try:
        kernel(BROKEN[what], fake(3, 3), fake(3, 3))
    except Exception as error:  # of many classes, Exception itself among them
        looks_for_the_device = what == "a function that is none of elements"
        assert looks_for_the_device or not isinstance(error, CUDARuntimeError)
    else:
        pytest.fail("CuPy has made a kernel of it")


def test_cupy_computes_numbers_among_themselves_in_half_precision_and_the_check_sees_that_and_double():
    def types_of(function, *arguments):
        return types_in(kernel(function, fake(3, 3), *arguments).preamble)

    assert types_of(lambda x, a, b: x * a * b * 2.5, 2.0, 3.0) == {"float"}
    assert types_of(lambda x, a, b: x * (a * b), 2.0, 3.0) == {"float", "float16"}  # which the stand-in refuses
    assert types_of(lambda x, a: x * a, np.float64(2)) == {"double"}
    assert types_of(lambda x, a: np.sum(x * a, axis=-1), np.float64(2)) == {"double"}


# Names


def test_the_stand_in_offers_only_what_cupy_has_with_the_keywords_that_it_takes():
    for name in (*standin.UFUNCS, *standin.FUNCTIONS):
        assert hasattr(cupy, name), name
    for name in ("asarray", "zeros", "ones", "empty", "arange", "eye", "get_default_memory_pool", "fuse", "cuda"):
        assert hasattr(cupy, name), name
    for name in vars(standin.ndarray):
        assert name.startswith("_") or hasattr(cupy.ndarray, name), name
    for name, keywords in standin.FUNCTIONS.items():
        assert keywords <= inspect.signature(getattr(cupy, name)).parameters.keys(), name
    for name, keywords in standin.METHODS.items():  # Cython says what they take in the first line of what they say
        first = getattr(cupy.ndarray, name).__doc__.splitlines()[0]
        assert first.startswith(f"_ndarray_base.{name}(self"), first
        assert keywords <= set(re.findall(r"(\w+)=", first)), first


def test_the_parts_of_the_comparison_run_on_cupy_itself(tmp_path):
    script = Path(__file__).parent / "device_on_nodevice.py"
    words = [sys.executable, str(script), str(tmp_path / "rows.json")]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"CUPY_TF32": "1"})
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert rows["machine"][0]["gpu"] == "nothing" and rows["machine"][0]["cupy"] == cupy.__version__
    assert all({"launch_ms", "device_ms"} <= row["variants"]["CuPy, fused"].keys() for row in rows["steps"])
    plain, fewer = (sum(map(calls, row["profile"]["operations"])) for row in rows["profile"][1:])
    assert (plain, fewer) == LAUNCHES["L^B, Bernoulli"]  # CuPy's own names and lines, as many as on the stand-in
    assert len(rows["others"]) == 9


def calls(operation):
    """How many calls an operation of a profile has."""
    return sum(operation["calls"].values())
