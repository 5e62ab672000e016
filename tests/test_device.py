"""benchmarks/device.py: every part runs, here on the stand-in; what breaks off is kept, and the command goes on."""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_fused import LAUNCHES

from scratchvae import bench

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


def test_a_page_of_a_device_takes_the_place_of_the_caveat(tiny, tmp_path, monkeypatch):
    report = loaded("run", monkeypatch)
    assert "No GPU was at hand" in report.of_device(tmp_path)
    (tmp_path / "device.md").write_bytes((tiny[0] / "device.md").read_bytes())
    page = report.of_device(tmp_path)
    assert "No GPU" not in page and "](results/device_steps.png)" in page
    assert "\n### A step over sizes\n" in page and not page.startswith("#")


def test_the_same_command_measures_nothing_again(tiny):
    folder, words, _ = tiny
    before = (folder / "device.json").read_bytes()
    begun = time.perf_counter()
    code, out, _ = run(*words)
    assert code == 0 and out.count("there already") == 4 and time.perf_counter() - begun < 20
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
    code, out, err = here("--quick", "--out", tmp_path / "new")
    assert code == 2 and "missing: cupy, for everything on the device" in out
    assert err.splitlines()[-1].endswith("or bring wheels in a folder with --carried")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--parts", "machine,coffee"], "--parts has coffee; expected some of machine, launches"),
        (["--quick", "--scale", "full"], "--quick is --scale quick, and --scale is full"),
        (["--carried", "nowhere"], "--carried nowhere is no folder"),
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words, expected, tmp_path, here):
    code, _, err = here("--stand-in", *words, "--out", tmp_path)
    assert code == 2 and expected in err.splitlines()[-1]


def test_a_folder_brings_wheels_packages_and_data(tmp_path, monkeypatch):
    device = loaded("device", monkeypatch)
    with pytest.raises(ValueError, match=r"has no wheels, no packages/ and no data/"):
        device.carry(tmp_path)
    (tmp_path / "one-1.0-py3-none-any.whl").touch()
    for name in ("packages", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setenv("SCRATCHVAE_DATA", "before")
    monkeypatch.setattr(sys, "path", list(sys.path))
    device.carry(tmp_path)
    brought = [str(tmp_path / "one-1.0-py3-none-any.whl"), str(tmp_path / "packages")]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [*brought, "before"] and sys.path[1:3] == brought
    assert os.environ["SCRATCHVAE_DATA"] == str(tmp_path / "data")


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


def log(folder):
    """What device.log holds."""
    return (folder / "device.log").read_text(encoding="utf-8")


END = 'say({"end": True, "peak_memory_mib": 1.0})'


def test_rows_come_one_by_one_and_a_limit_keeps_those_that_came(part, tmp_path):
    begun = time.perf_counter()
    state, found = part('say({"key": "a"})\nsay({"key": "b"})\ntime.sleep(60)', limit=5.0)
    assert state == "cut off" and [row["key"] for row in found["rows"]] == ["a", "b"]
    assert time.perf_counter() - begun < 20 and found["why"] == "its limit is 5.0 s"
    assert json.loads((tmp_path / "device.json").read_text(encoding="utf-8"))["parts"]["steps"]["rows"] == found["rows"]
    state, found = part(f'say({{"key": "c"}})\n{END}')
    assert state == "done" and [row["key"] for row in found["rows"]] == ["a", "b", "c"] and found["why"] == ""


def test_a_part_that_fails_says_why_and_keeps_its_rows_and_its_log(part, tmp_path):
    state, found = part('say({"key": "a"})\nraise RuntimeError("no such thing")')
    assert (state, found["why"]) == ("failed", "RuntimeError: no such thing")
    assert [row["key"] for row in found["rows"]] == ["a"] and "== steps: failed\nTraceback" in log(tmp_path)
    state, found = part("sys.exit(0)")
    assert (state, found["why"]) == ("failed", "it broke off and said nothing")
    before = log(tmp_path)
    assert part(END)[0] == "done" and log(tmp_path) == before


def test_what_a_part_has_started_ends_with_it(part, tmp_path):
    child = f"import time, pathlib; time.sleep(6); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    part(f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)", limit=3.0)
    time.sleep(5)
    assert not (tmp_path / "alive").exists()


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
    parts.steps(parts.Setting("tiny", done=frozenset({"64-20-3 M=100 float32", "64-20-3 M=20 float32"})), said.append)
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


def test_a_bound_that_is_not_numpys_is_seen(waits, monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    first = parts.first_bound
    monkeypatch.setattr(parts, "first_bound", lambda work: first(work) * (1.001 if work.backend == "cupy" else 1))
    row = parts.measured(parts.sizes(parts.Setting("tiny"))[0], ("NumPy", "CuPy"), 1)["variants"]["CuPy"]
    assert not row["same"] and row["first_bound_apart"] == pytest.approx(1e-3, rel=1e-3)


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
    assert "tests: 1 passed, 1 failed, 1 skipped\n  failed: test_b" in told
    assert "gradient check: 1 of 2 passed (failed: A | flow)" in told
    assert "ANOTHER BOUND, at most 0.7 nats from NumPy's" in told
    assert "profile: cut off (its limit is 9 s)" in told


def test_a_size_without_memory_is_a_cell_of_the_table_and_no_point_of_the_picture(monkeypatch, tmp_path):
    page = loaded("device_page", monkeypatch)
    rows = [steps({"NumPy": 1, "CuPy": 2}), steps({"NumPy": 10, "CuPy": None}, batch_size=20_000)]
    assert "| 784-500-20 | 20,000 | float32 | 10 | out of memory: none |" in page.page(content(rows))
    assert page.write(content(rows), tmp_path) == ["device.json", "device.md", "device_steps.png"]


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


def test_the_queue_of_lines_ends_with_the_process(monkeypatch, tmp_path):
    device = loaded("device", monkeypatch)
    with (
        open(tmp_path / "log", "w", encoding="utf-8") as log,
        device.reading([sys.executable, "-c", "print(1)"], dict(os.environ), log) as lines,
    ):
        assert lines.get(timeout=20) == "1\n" and lines.get(timeout=20) is None
        with pytest.raises(queue.Empty), contextlib.suppress(TypeError):
            lines.get(timeout=0.01)


def test_what_is_told_of_a_machine_never_stops_it(monkeypatch):
    parts = loaded("device_parts", monkeypatch)
    assert parts.asked(lambda: 3) == 3
    assert parts.asked(lambda: 1 / 0) == "not told (ZeroDivisionError: division by zero)"


def test_numpy_numbers_of_rows_are_plain(tiny):
    rows = json.loads((tiny[0] / "device.json").read_text(encoding="utf-8"))["parts"]["steps"]["rows"]
    assert all(isinstance(row["variants"]["NumPy"]["ms"], float) for row in rows) and np.isfinite(
        rows[0]["variants"]["NumPy"]["ms"]
    )
