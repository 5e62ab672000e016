"""benchmarks/device.py: every part runs, here on the stand-in; what breaks off is kept, and the command goes on."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_fused import LAUNCHES

from scratchvae import bench
from scratchvae.backend import Fusing
from scratchvae.gradcheck import matrix
from scratchvae.nets.layers import Tanh

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = BENCHMARKS / "device.py"


def loaded(name, monkeypatch):
    """A module of benchmarks/, whose imports find each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def run(*words, **environment):
    """The command, which gives its exit code and its output."""
    words = [sys.executable, str(SCRIPT), *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(monkeypatch, capsys):
    """The command in this process, which gives its exit code and its output; it measures nothing."""
    device = loaded("device", monkeypatch)
    monkeypatch.setenv("SCRATCHVAE_STAND_IN", "")
    monkeypatch.setenv("SCRATCHVAE_DATA", os.environ.get("SCRATCHVAE_DATA", ""))

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["device.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            device.main()
        return (ended.value.code, *capsys.readouterr())

    return called


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with some parts at the tiny scale, and what the command said."""
    folder = tmp_path_factory.mktemp("device")
    words = ["--scale", "tiny", "--stand-in", "--parts", "machine,launches,steps,tf32", "--out", folder]
    return folder, words, run(*words)


def test_parts_run_on_the_stand_in_and_say_that_it_is_one(tiny):
    folder, _, (code, out, err) = tiny
    assert code == 0, out + err
    assert out.count("ON THE STAND-IN") == 1 and "its times are none of a device" in out
    assert not (folder / "claim.json").exists()
    content = json.loads((folder / "device.json").read_text(encoding="utf-8"))
    assert {name: part["state"] for name, part in content["parts"].items()} == dict.fromkeys(
        ("machine", "launches", "steps", "tf32"), "done"
    )
    row = content["parts"]["steps"]["rows"][0]
    assert set(row["variants"]) == {"NumPy", "CuPy", "CuPy, fused"}
    assert all(found["ms"] > 0 for found in row["variants"].values())
    assert row["variants"]["CuPy"]["same"] and row["variants"]["CuPy"]["launch_ms"] > 0
    page = (folder / "device.md").read_text(encoding="utf-8")
    assert "ON THE STAND-IN" in page and "| 64-20-3 | 100 | float32 |" in page
    assert (folder / "device_steps.png").stat().st_size > 10_000


def test_the_launches_are_those_that_the_tests_hold(tiny):
    content = json.loads((tiny[0] / "device.json").read_text(encoding="utf-8"))
    found = {row["key"]: row for row in content["parts"]["launches"]["rows"]}
    counted = {name: (row["CuPy"]["launches"], row["CuPy, fused"]["launches"]) for name, row in found.items()}
    assert counted == {name: (plain, fewer) for name, (plain, fewer) in LAUNCHES.items()}
    assert all(row["CuPy, fused"]["bytes"] < row["CuPy"]["bytes"] for row in found.values())


def test_the_page_on_benchmarks_has_the_launches_that_were_counted(tiny):
    content = json.loads((tiny[0] / "device.json").read_text(encoding="utf-8"))
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    for row in content["parts"]["launches"]["rows"]:
        plain, fewer = row["CuPy"], row["CuPy, fused"]
        cells = [
            row["key"],
            plain["launches"],
            fewer["launches"],
            *(f"{one['bytes'] / 1e6:.0f}" for one in (plain, fewer)),
        ]
        assert f"| {' | '.join(map(str, cells))} |" in page


def test_a_page_of_a_device_takes_the_place_of_the_caveat_and_one_of_the_stand_in_does_not(tiny, tmp_path, monkeypatch):
    report = loaded("run", monkeypatch)
    assert "No GPU was at hand" in report.of_device(tmp_path)
    for name in ("device.md", "device.json"):
        (tmp_path / name).write_bytes((tiny[0] / name).read_bytes())
    with pytest.raises(ValueError, match="has no times of a device: measure on one, or remove it"):
        report.of_device(tmp_path)
    (tmp_path / "device.json").write_text('{"stand_in": false, "scale": "full"}', encoding="utf-8")
    page = report.of_device(tmp_path)
    assert "No GPU" not in page and "](results/device_steps.png)" in page
    assert "\n### A step over sizes\n" in page and not page.startswith("#")


def test_the_page_is_written_again_without_a_device(tiny, tmp_path):
    (tmp_path / "device.json").write_bytes((tiny[0] / "device.json").read_bytes())
    code, out, _ = run("--page-only", "--out", tmp_path)
    assert code == 0 and "ON THE STAND-IN" in out
    assert (tmp_path / "device.md").read_bytes() == (tiny[0] / "device.md").read_bytes()


def test_the_same_command_measures_nothing_again(tiny):
    folder, words, _ = tiny
    before = (folder / "device.json").read_bytes()
    code, out, _ = run(*words)
    assert code == 0 and out.count("there already") == 4
    assert (folder / "device.json").read_bytes() == before


def test_other_facts_and_other_files_are_refused_in_one_line(tiny, tmp_path, here):
    folder, words, _ = tiny
    code, _, err = here("--quick", "--stand-in", "--parts", "machine", "--out", folder)
    assert code == 2 and "scale 'tiny', now 'quick'" in err and "choose another folder with --out" in err
    for text, expected in [
        ('{"format": 0, "parts": {}}', "has format 0 and this benchmark reads 1"),
        ("no json", "is no device.json of this benchmark (JSONDecodeError"),
        ("[]", "is no device.json of this benchmark (TypeError"),
        ('{"format": 1}', "it has no parts"),
    ]:
        (tmp_path / "device.json").write_text(text, encoding="utf-8")
        code, _, err = here(*words[:-1], tmp_path)
        assert code == 2 and expected in err.splitlines()[-1], err
        assert (tmp_path / "device.json").read_text(encoding="utf-8") == text  # nothing is lost
        code, _, err = here(*words, "--compare", tmp_path / "device.json")
        assert code == 2 and expected in err.splitlines()[-1]


def test_without_cupy_it_says_what_is_missing(tmp_path, here):
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed")
    code, _, err = here("--quick", "--out", tmp_path / "new")
    assert code == 2 and "is missing the package (No module named 'cupy'): pip install" in err
    assert err.splitlines()[-1].endswith("; --scale tiny --stand-in makes all parts without it")
    assert not (tmp_path / "new").exists()


def test_modules_that_are_missing_are_told_and_those_of_the_package_end_it(monkeypatch, capsys):
    needs = loaded("device_needs", monkeypatch)
    monkeypatch.setattr(needs, "found", lambda name: name not in ("jax", "autograd"))
    needs.require_modules()
    assert capsys.readouterr().out.splitlines() == [
        "missing: autograd, for the oracle of the tests and of the gradient check; the rest goes on without it",
        'missing: jax, for JAX beside us (pip install "jax[cuda13]"); the rest goes on without it',
    ]
    monkeypatch.setattr(needs, "found", lambda name: name not in ("tqdm", "matplotlib"))
    with pytest.raises(ValueError, match="matplotlib and tqdm cannot be imported: install the package"):
        needs.require_modules()


def test_failed_tests_are_made_again_by_the_same_command(monkeypatch, tmp_path):
    module = loaded("device_result", monkeypatch)
    result = module.Result(tmp_path / "device.json", {"scale": "tiny"})
    rows = [{"key": "a", "outcome": "passed"}, {"key": "b", "outcome": "failed"}]
    result.part("tests").update(rows=rows, state="done")
    result.forget_failed_tests()
    assert result.part("tests")["rows"] == rows[:1] and result.part("tests")["state"] == "new"
    result.part("tests")["state"] = "done"
    result.forget_failed_tests()
    assert result.part("tests")["state"] == "done"


@pytest.mark.parametrize("change", [{"rows": 3}, {"rows": ["x"]}, {"rows": [{}]}, {"state": 1}, {"why": None}, 5])
def test_a_file_that_was_changed_by_hand_is_refused(monkeypatch, tmp_path, change):
    module = loaded("device_result", monkeypatch)
    part = {"state": "done", "why": "", "seconds": 1.0, "rows": []}
    part = part | change if isinstance(change, dict) else change
    (tmp_path / "device.json").write_text(json.dumps({"format": 1, "parts": {"steps": part}}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"device.json is no device.json of this benchmark \(its part 'steps' is not"):
        module.older(tmp_path)


def test_rows_of_another_kind_are_one_line(monkeypatch):
    page = loaded("device_page", monkeypatch)
    with pytest.raises(ValueError, match=r"has rows that this benchmark did not write \(KeyError: 'variants'\)"):
        page.page(content([{"key": "a", "dtype": "float32", "n_hidden": 500, "batch_size": 100}]))
    with pytest.raises(ValueError, match=r"the older device\.json has other rows"):
        page.comparison(content([]), content([{"key": "a"}]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--parts", "machine,coffee"], "--parts has 'coffee'; expected some of machine, launches"),
        (["--parts", ""], "--parts has ''; expected some of machine"),
        (["--commit", "abc"], "--commit is abc, and git says that this is "),
        (["--quick", "--scale", "full"], "--quick is --scale quick, and --scale is full"),
        (["--carried", "nowhere"], "--carried nowhere is no folder"),
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words, expected, tmp_path, here):
    code, _, err = here("--stand-in", *words, "--out", tmp_path)
    assert code == 2 and expected in err.splitlines()[-1]


def test_a_folder_brings_wheels_packages_and_data(tmp_path, monkeypatch):
    needs = loaded("device_needs", monkeypatch)
    with pytest.raises(ValueError, match=r"has no wheels, no packages/ and no data/"):
        needs.carry(tmp_path)
    wheel = tmp_path / "one-1.0-py3-none-any.whl"
    wheel.touch()
    with pytest.raises(ValueError, match=r"one-1.0-py3-none-any.whl is no wheel, or a damaged one"):
        needs.carry(tmp_path)
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("one.py", "")
    for name in ("packages", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setenv("SCRATCHVAE_DATA", "before")
    monkeypatch.setattr(sys, "path", list(sys.path))
    needs.carry(tmp_path)
    brought = [str(wheel), str(tmp_path / "packages")]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [*brought, "before"] and sys.path[1:3] == brought
    assert os.environ["SCRATCHVAE_DATA"] == str(tmp_path / "data")
    (tmp_path / "packages" / "numpy").mkdir()
    with pytest.raises(ValueError, match=r"packages has a numpy of its own, .*: pip install --no-deps"):
        needs.carry(tmp_path)
    (tmp_path / "two-1.0-cp311-cp311-linux_x86_64.whl").touch()
    with pytest.raises(
        ValueError, match=r"linux_x86_64.whl has compiled code; expected wheels of pure Python: unpack it"
    ):
        needs.carry(tmp_path)


# A part in a process of its own


class Settings:
    scale = "tiny"
    stand_in = True

    def __init__(self, out):
        self.out = out


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A function that makes a part whose process runs the given lines, and the result that it goes into."""
    device = loaded("device", monkeypatch)
    result = device.Result(tmp_path / "device.json", {"scale": "tiny"})

    def make(text, limit=20.0):
        (tmp_path / "part.py").write_text(
            f"import json, sys, time\nsay = lambda row: print(json.dumps(row), flush=True)\n{text}", encoding="utf-8"
        )
        monkeypatch.setattr(device, "__file__", str(tmp_path / "part.py"))
        return device.make("steps", result, Settings(tmp_path), limit), result.part("steps")

    return make


END = 'say({"end": True, "peak_memory_mib": 1.0})'


def test_rows_come_one_by_one_and_a_limit_keeps_those_that_came(part, tmp_path, monkeypatch):
    device = loaded("device", monkeypatch)

    class Slow(device.Child):
        """A process whose third line does not come in its time."""

        def line(self, seconds):
            assert seconds <= 60
            if len(json.loads((tmp_path / "device.json").read_text(encoding="utf-8"))["parts"]["steps"]["rows"]) == 2:
                raise TimeoutError
            return super().line(seconds)

    monkeypatch.setattr(device, "Child", Slow)
    (tmp_path / "device.json").write_text('{"parts": {"steps": {"rows": []}}}', encoding="utf-8")
    state, found = part('say({"key": "a"})\nsay({"key": "b"})\ntime.sleep(600)', limit=60.0)
    assert state == "cut off" and [row["key"] for row in found["rows"]] == ["a", "b"]
    assert found["why"] == "its limit is 60.0 s"


def test_a_part_that_was_cut_off_goes_on_behind_its_rows(part):
    state, found = part('say({"key": "a"})')
    assert state == "failed"
    state, found = part(f'say({{"key": "b"}})\n{END}')
    assert state == "done" and [row["key"] for row in found["rows"]] == ["a", "b"] and found["why"] == ""


def test_a_part_that_fails_says_why_and_keeps_its_rows_and_the_end_of_what_it_printed(part):
    state, found = part('say({"key": "a"})\nraise RuntimeError("no such thing")')
    assert (state, found["why"]) == ("failed", "RuntimeError: no such thing")
    assert [row["key"] for row in found["rows"]] == ["a"] and found["log"].startswith("Traceback")
    state, found = part("sys.exit(0)")
    assert (state, found["why"]) == ("failed", "it broke off and said nothing")
    state, found = part(END)
    assert (state, found["why"], found["log"]) == ("done", "", "")


def test_a_row_that_was_cut_as_its_process_was_killed_ends_the_part_and_nothing_else(part):
    state, found = part(
        """say({"key": "a"})\nsys.stdout.write('{"key": "b')\nsys.stdout.flush()\nimport os\nos._exit(9)"""
    )
    assert state == "failed" and [row["key"] for row in found["rows"]] == ["a"]


def test_what_a_part_has_started_ends_with_it(part, tmp_path):
    beats = tmp_path / "beats"
    child = (
        f"import time\nwhile True:\n    open({str(beats)!r}, 'a', encoding='utf-8').write('.')\n    time.sleep(0.05)"
    )
    waiting = f"import os\nwhile not os.path.exists({str(beats)!r}):\n    time.sleep(0.05)"
    part(f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])\n{waiting}\n{END}", limit=60.0)
    before = beats.stat().st_size
    time.sleep(0.5)
    assert before > 0 and beats.stat().st_size == before


def test_a_process_that_a_part_starts_as_a_child_ends_with_it_too(part, tmp_path):
    beats = tmp_path / "beats"
    child = (
        f"import time\nwhile True:\n    open({str(beats)!r}, 'a', encoding='utf-8').write('.')\n    time.sleep(0.05)"
    )
    waiting = f"import os\nwhile not os.path.exists({str(beats)!r}):\n    time.sleep(0.05)"
    start = f"sys.path.insert(0, {str(BENCHMARKS)!r})\nimport os\nfrom child import Child"
    part(f"{start}\none = Child([sys.executable, '-c', {child!r}], dict(os.environ))\n{waiting}\n{END}", limit=60.0)
    before = beats.stat().st_size
    time.sleep(0.5)
    assert before > 0 and beats.stat().st_size == before


def test_a_process_that_is_killed_says_by_which_signal(part):
    state, found = part("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert state == "failed" and found["why"].endswith("(ended by signal 9, as where memory is out)")


def test_ctrl_c_keeps_what_came_and_the_same_command_goes_on(tmp_path):
    words = ["--scale", "tiny", "--stand-in", "--parts", "machine,steps", "--out", str(tmp_path)]
    with subprocess.Popen([sys.executable, str(SCRIPT), *words], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("2/2"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130 and "interrupted" in rest and "the same command goes on" in rest
    content = json.loads((tmp_path / "device.json").read_text(encoding="utf-8"))
    assert content["parts"]["machine"]["state"] == "done" and content["parts"]["steps"]["state"] == "interrupted"
    code, out, _ = run(*words)
    assert code == 0 and "there already" in out
    keys = [
        row["key"]
        for row in json.loads((tmp_path / "device.json").read_text(encoding="utf-8"))["parts"]["steps"]["rows"]
    ]
    assert len(keys) == len(set(keys)) == 4


def test_rows_that_are_there_are_not_measured_again(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    said = []
    parts.steps(
        parts.Setting("tiny", done=dict.fromkeys(["64-20-3 M=100 float32", "64-20-3 M=20 float32"])), said.append
    )
    assert [row["key"] for row in said] == ["64-50-3 M=100 float32", "64-20-3 M=100 float64"]


def test_a_size_for_which_there_is_no_memory_says_so_and_the_rest_goes_on(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    prepare = bench.prepare

    def some(work):
        if work.backend == "cupy" and work.batch_size == 100:
            raise MemoryError("a step needs about 9 MiB\nand 8 MiB are free")
        return prepare(work)

    monkeypatch.setattr(parts.bench, "prepare", some)
    said = []
    parts.steps(parts.Setting("tiny"), said.append)
    failed = {"failed": "out of memory: a step needs about 9 MiB and 8 MiB are free"}
    assert len(said) == 4
    for row in said:
        variants = row["variants"]
        assert variants["NumPy"]["ms"] > 0
        assert (variants["CuPy"] == failed) == (row["batch_size"] == 100)


@pytest.mark.parametrize(("bound", "slope", "same"), [(1, 1, True), (1 + 1e-5, 1, False), (1, 1 + 1e-4, False)])
def test_a_first_step_that_is_not_numpys_is_seen_by_its_bound_and_by_its_gradient(
    waits, monkeypatch, bound, slope, same
):
    parts = loaded("device_parts", monkeypatch)
    first = parts.first_step

    def spoiled(work):
        value, gradient = first(work)
        return (value * bound, gradient * np.float32(slope)) if work.backend == "cupy" else (value, gradient)

    monkeypatch.setattr(parts, "first_step", spoiled)
    row = parts.measured(parts.sizes(parts.Setting("tiny"))[0], ("NumPy", "CuPy"), 1)["variants"]["CuPy"]
    assert row["same"] == same
    assert row["first_bound_apart"] == pytest.approx(bound - 1, abs=1e-9)
    assert row["gradient_apart"] == pytest.approx(slope - 1, rel=0.01, abs=1e-9)


def test_a_row_that_fails_is_told_at_the_end_and_the_others_are_made(monkeypatch, capfd):
    parts = loaded("device_parts", monkeypatch)
    said = []
    rows = parts.Rows(parts.Setting("tiny", done={"there": {}}), said.append)
    rows.make("there", lambda: 1 / 0)
    rows.make("a", lambda: {"ms": 1})
    rows.make("b", lambda: 1 / 0)
    rows.make("c", lambda: {"ms": 3})
    assert [row["key"] for row in said] == ["a", "c"]
    with pytest.raises(RuntimeError, match=r"^b failed: see above"):
        rows.end()
    assert "ZeroDivisionError" in capfd.readouterr().err


# The page


def steps(times, dtype="float32", **more):
    """A row of the sweep with the milliseconds of some variants."""
    work = bench.Workload(dtype=dtype, **more).as_row()
    key = f"M={work['batch_size']} H={work['n_hidden']} {dtype}"
    return {
        "key": key,
        **work,
        "variants": {name: {"ms": ms} if ms else {"failed": "out of memory: none"} for name, ms in times.items()},
    }


def content(rows, **parts):
    """What device.json would hold with these rows of the sweep."""
    made = {"steps": rows, **parts}
    parts = {name: {"state": "done", "seconds": 1.0, "rows": found} for name, found in made.items()}
    return {"format": 1, "scale": "full", "stand_in": False, "commit": "abc", "data": "mnist", "parts": parts}


def test_the_crossover_is_the_minibatch_from_which_the_device_stays_ahead(monkeypatch):
    page = loaded("device_page", monkeypatch)
    ahead = {20: (1, 2), 50: (3, 2), 100: (3, 4), 200: (5, 4), 500: (9, 4)}  # NumPy's and CuPy's milliseconds
    rows = [steps({"NumPy": a, "CuPy": b, "CuPy, fused": b / 2}, batch_size=m) for m, (a, b) in ahead.items()]
    rows.append(steps({"NumPy": 1, "CuPy": 9}, batch_size=1000, n_hidden=100))  # of another width
    assert page.crossover(content(rows)) == (200, [20, 50, 100, 200, 500])
    assert page.crossover(content(rows), "float64") == (None, [])
    told = page.answer(content(rows))
    assert "CuPy is faster than NumPy from M = 200" in told
    assert "fused kernels take 0.50 of CuPy's time at the paper's size: fusing pays here" in told
    slow = [steps({"NumPy": 1, "CuPy": 2, "CuPy, fused": 1.99}, batch_size=m) for m in (100, 200)]
    assert "at none of M = 100 to 200" in page.answer(content(slow)) and "does not pay" in page.answer(content(slow))


def test_the_answer_names_every_test_and_gradient_that_failed_and_every_bound_that_is_another(monkeypatch):
    page = loaded("device_page", monkeypatch)
    tests = [
        {"key": "test_a", "outcome": "passed"},
        {"key": "test_b", "outcome": "failed"},
        {"key": "c", "outcome": "skipped"},
    ]
    checked = [{"key": "layers", "passed": True}, {"key": "A | flow", "passed": False}]
    job = [{"key": "CuPy", "apart_nats": 0.7, "same": False}]
    made = content([], tests=tests, gradcheck=checked, job=job)
    made["parts"]["profile"] = {"state": "cut off", "seconds": 9.0, "rows": [], "why": "its limit is 9 s"}
    told = page.answer(made)
    assert "tests: 1 passed, 1 failed, 1 skipped\ngradient check: 1 of 2 passed\n" in told
    assert "FAILED: test_b failed: no reason given\nFAILED: a gradient failed: A | flow\n" in told
    assert "FAILED: training, CuPy: another bound, by 0.7 nats" in told
    row = steps({"NumPy": 1, "CuPy": 2})
    row["variants"]["CuPy"] |= {"same": False, "first_bound_apart": 0.2, "gradient_apart": 0.5}
    differs = "its bound differs by 2e-01 and its gradient by 5e-01, relative"
    assert page.failures(content([row])) == [f"the first step of {row['key']}, CuPy, is not NumPy's: {differs}"]
    assert "by at most 2e-01 in the bound and 5e-01 in the gradient, relative, in 1 cases" in page.answer(
        content([row])
    )
    tests = [{"key": key, "outcome": "failed", "why": f"x\nE   no {why}\nsome.py:3"} for key, why in ("aa", "ba", "cc")]
    assert page.failures(content([], tests=tests)) == ["a and 1 other failed: no a", "c failed: no c"]
    assert "profile: cut off (its limit is 9 s)" in told


def test_a_size_without_memory_is_a_cell_of_the_table_and_no_point_of_the_picture(monkeypatch, tmp_path):
    page = loaded("device_page", monkeypatch)
    rows = [steps({"NumPy": 1, "CuPy": 2}), steps({"NumPy": 10, "CuPy": None}, batch_size=20_000)]
    assert "| 784-500-20 | 20,000 | float32 | 10 | out of memory: none |" in page.page(content(rows))
    assert page.draw(content(rows), tmp_path) == ["device_steps.png"]


def test_a_comparison_across_machines_says_that_it_means_little(monkeypatch):
    page = loaded("device_page", monkeypatch)
    old, new = ({"key": "machine", "cpu": "a", "gpu": gpu} for gpu in ("H100", "H200"))
    rows = [[steps({"NumPy": 4, "CuPy": ms})] for ms in (2, 1)]
    told = page.comparison(content(rows[1], machine=[new]), content(rows[0], machine=[old]))
    assert "The machines differ, so that the ratios below mean little:\n  gpu: H200, was H100" in told
    assert "CuPy" in told and "0.50" in told and "a ratio near 1 says nothing" in told
    assert "machines differ" not in page.comparison(content(rows[1], machine=[new]), content(rows[0], machine=[new]))
    other = content([steps({"NumPy": 1}, batch_size=7)], machine=[new])
    assert "there is no size that both have measured" in page.comparison(other, content(rows[0], machine=[new]))


def test_the_limits_of_a_quick_run_are_together_below_nine_minutes(monkeypatch):
    device = loaded("device", monkeypatch)
    parts = loaded("device_parts", monkeypatch)
    assert sum(device.LIMITS["quick"].values()) < 530
    assert list(device.TITLES) == list(device.LIMITS["quick"]) and set(device.TITLES) == set(parts.PARTS)


def test_what_is_told_of_a_machine_never_stops_it(monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    assert parts.asked(lambda: 3) == 3
    assert parts.asked(lambda: 1 / 0) == "not told (ZeroDivisionError: division by zero)"


def test_numpy_numbers_of_rows_are_plain(tiny):
    rows = json.loads((tiny[0] / "device.json").read_text(encoding="utf-8"))["parts"]["steps"]["rows"]
    assert all(isinstance(row["variants"]["NumPy"]["ms"], float) for row in rows) and np.isfinite(
        rows[0]["variants"]["NumPy"]["ms"]
    )


# Each part with a fault planted into what it measures


def rows_of(parts, name, **done):
    """The rows of a part at the tiny scale, on the stand-in, which has to be installed."""
    said = []
    parts.PARTS[name](parts.Setting("tiny", "digits", done=done), said.append)
    return said


def test_the_gradient_check_is_of_the_device_and_a_gradient_that_is_wrong_fails(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    plain = rows_of(parts, "gradcheck")
    assert all(row["passed"] for row in plain) and sum("fused | " in row["key"] for row in plain) == len(plain) / 2
    backward = Tanh.backward
    on_device = []

    def wrong(self, dy):
        on_device.append(type(dy).__module__ == "cupy")
        return 2 * backward(self, dy)

    monkeypatch.setattr(Tanh, "backward", wrong)
    failed = [row["key"] for row in rows_of(parts, "gradcheck") if not row["passed"]]
    assert any("layers" in key for key in failed) and any("fused | " in key for key in failed)
    assert on_device and all(on_device)


def test_gradients_that_are_there_are_not_checked_again(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    keys = [row["key"] for row in rows_of(parts, "gradcheck")]
    left = next(key for key in keys if key.startswith("fused | A |"))
    checked = []
    check_cell = matrix.check_cell
    monkeypatch.setattr(matrix, "check_cell", lambda *given: checked.append(given) or check_cell(*given))
    again = rows_of(parts, "gradcheck", **{key: {} for key in set(keys) - {left}})
    assert [row["key"] for row in again] == [left] and len(checked) == 1


def test_the_commit_that_is_given_where_git_tells_none_arrives(tmp_path):
    words = ["--scale", "tiny", "--stand-in", "--parts", "machine", "--commit", "abc123", "--out", tmp_path]
    code, out, err = run(*words, PATH=str(tmp_path))
    content = json.loads((tmp_path / "device.json").read_text(encoding="utf-8"))
    assert code == 0, out + err
    assert content["commit"] == content["parts"]["machine"]["rows"][0]["commit"] == "abc123"


def test_a_training_with_another_bound_is_seen_and_rows_that_are_there_are_compared_with(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    rows = rows_of(parts, "job")
    assert [row["key"] for row in rows] == list(parts.VARIANTS)
    assert rows[1]["same"] and rows[1]["apart_nats"] == 0 and "same" not in rows[0]
    numpy = {**rows[0], "bounds": {str(n): bound + 1 for n, bound in rows[0]["bounds"].items()}}  # as JSON has them
    again = rows_of(parts, "job", NumPy=numpy)
    assert [row["key"] for row in again] == ["CuPy", "CuPy, fused"]
    assert not again[0]["same"] and again[0]["apart_nats"] == pytest.approx(1)


def test_each_variant_is_timed_as_it_is_called(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    seen = []

    def prepare(work):
        def round():
            seen.append((work.backend, Fusing.on))
            return {"ms": 1.0, "products_ms": 1.0}

        return round, 3

    monkeypatch.setattr(parts.bench, "prepare", prepare)
    row = parts.measured(parts.sizes(parts.Setting("tiny"))[0], tuple(parts.VARIANTS), 2)
    turns = [("numpy", False), ("cupy", False), ("cupy", True)]
    assert seen == turns + turns[::-1]  # every other round goes backwards
    assert all(found["ms"] == 1.0 for found in row["variants"].values())


def test_memory_that_ends_in_a_round_fails_its_variant_alone_and_other_errors_stop(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    for error in (
        MemoryError("none"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("cudaErrorMemoryAllocation"),
    ):

        def prepare(work, error=error):
            def round():
                if work.backend == "cupy" and not Fusing.on:
                    raise error
                return {"ms": 1.0, "products_ms": 1.0}

            return round, 3

        monkeypatch.setattr(parts.bench, "prepare", prepare)
        row = parts.measured(parts.sizes(parts.Setting("tiny"))[0], tuple(parts.VARIANTS), 3)["variants"]
        assert (
            row["CuPy"] == {"failed": f"out of memory: {error}"} and row["NumPy"]["ms"] == row["CuPy, fused"]["ms"] == 1
        )
    with pytest.raises(RuntimeError, match="an illegal address"):
        parts.without_memory("CuPy", lambda: (_ for _ in ()).throw(RuntimeError("an illegal address")))


def test_the_second_call_is_timed_with_its_wait(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    clock = iter(range(100))
    calls = []
    monkeypatch.setattr(parts.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(parts.peaks, "waiting", lambda backend: lambda: [next(clock) for _ in range(5)])

    def function(model):
        calls.append(model)
        for _ in range(20 if len(calls) == 1 else 2):
            next(clock)

    assert parts.seconds_of(function, "model", "cupy") == 1 + 2 + 5 and calls == ["model"] * 2


@pytest.mark.parametrize(
    ("outcomes", "code", "expected"), [(["passed"], 0, None), (["failed"], 1, None), ([], 3, RuntimeError)]
)
def test_the_tests_part_says_what_pytest_says(monkeypatch, outcomes, code, expected):
    parts = loaded("device_parts", monkeypatch)

    def main(words, plugins):
        for outcome in outcomes:
            report = {"when": "call", "outcome": outcome, "nodeid": "a", "duration": 1.0, "longrepr": "E  why"}
            plugins[0].pytest_runtest_logreport(types.SimpleNamespace(**report))
        return code

    monkeypatch.setattr(pytest, "main", main)
    said = []
    with contextlib.nullcontext() if expected is None else pytest.raises(expected, match="pytest ended with 3"):
        parts.tests(parts.Setting("tiny"), said.append)
    assert [row["outcome"] for row in said] == outcomes


def test_bounds_may_differ_by_rounding_alone(monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    assert parts.FIRST == {"float32": 1e-6, "float64": 1e-10} and parts.NATS == 0.5
    assert parts.SLOPE == {"float32": 1e-5, "float64": 1e-10}
