"""Ranks of MPI: the same training, faults on one rank, and the command line under mpiexec, in real processes."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import on_ranks
import pytest
import standin
from conftest import small

from scratchvae import fit, fit_mcem, output
from scratchvae.backend import array_module, between_devices, take_device
from scratchvae.cli import main
from scratchvae.cli.ranks import ranks_of_command
from scratchvae.ranks import Alone, RankError, Ranks, _chain, started
from scratchvae.training import parallel

HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
MISSING = "" if MPIEXEC and importlib.util.find_spec("mpi4py") else 'no mpiexec or no mpi4py: pip install -e ".[mpi]"'
real = pytest.mark.skipif(bool(MISSING), reason=MISSING)
ENVIRONMENT = {
    **os.environ,
    "OPENBLAS_NUM_THREADS": "1",
    "MPIR_CVAR_POLLS_BEFORE_YIELD": "0",  # where there are fewer cores than ranks, one that waits lets the others work
    "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]),
}
LIMIT = 100  # seconds after which a test takes the ranks to wait for each other


@contextlib.contextmanager
def begun(size, *command):
    """Start mpiexec with so many ranks, give its process, and end what is left of it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    words = [MPIEXEC, "-n", str(size), sys.executable, *map(str, command)]
    process = subprocess.Popen(words, env=ENVIRONMENT, start_new_session=True, **pipes)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ranks(size, *command):
    """Run a command on ranks; return the exit code, stdout and stderr."""
    with begun(size, *command) as process:
        out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def scratchvae(size, *words):
    """Run a command of the command line on ranks."""
    return ranks(size, "-m", "scratchvae", *words)


# The same training

FAULTS = {  # what the rank that speaks has raised, and which rank it is: the first, or "last"
    "one": ("last", "OSError: No space left on device"),
    "all": (0, "OSError: No space left on device"),
    "memory": ("last", "MemoryError: none left"),
    "folder": (0, "is a file: choose a folder"),
    "seed": (
        0,
        "ValueError: rank 1 has seed 1, and rank 0 0: start all ranks with the same options, data and versions",
    ),
    "data": (0, "has rows"),
    "model": (0, "ValueError: rank 1 has model"),
    "samples": (0, "ValueError: rank 1 has samples 501, and rank 0 500"),
    "patience": (0, "ValueError: rank 1 has patience 2, and rank 0 1"),
    "argument": ("last", "ValueError: batch_size is 0; expected a whole number ≥ 1"),
    "rows": (0, "ranks and 1 datapoints in a minibatch: start no more ranks than those (mpiexec -n)"),
    "coupled": (0, "ValueError: the rows of a minibatch act on each other in this model"),
    "diverged": (0, "FloatingPointError: the bound is nan at step 2 (10 samples); not finite is the gradient of"),
    "clipping": (0, "ValueError: the optimiser Clipping has an ascend of its own, and on ranks each updates a part"),
    "update": ("last", "OSError: the update has failed"),
    "sent": ("last", "OSError: the update has failed"),
    "trial": ("last", "OSError: no noise"),
    "look": (0, "has rows"),
    "memory of the machine": (0, "MemoryError: the ranks of this machine share 0 MiB, and /dev/shm has 0 MiB free"),
    "importance": ("last", "ValueError: n_samples is 0; expected a whole number ≥ 1"),
    "generator": (0, "ValueError: rank 1 has generator"),
    "no model": ("last", "ValueError: model is a NoneType; expected a VAE"),
    "busy": ("last", "RuntimeError: this model is at work in another thread"),
    "speechless": ("last", "SpeechlessError: (its text cannot be made)"),
    "again": ("last", "OSError: No space left on device"),
    "chains": (0, "ranks and 1 chains: start no more ranks than those"),
}


@real
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_give_the_numbers_of_one_process_and_an_error_on_one_ends_all_e31(size, tmp_path, monkeypatch):
    steps = 40
    code, _, err = ranks(size, HERE / "on_ranks.py", tmp_path, steps)
    assert code == 0, err
    monkeypatch.setattr(on_ranks, "STEPS", steps)
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = on_ranks.models(None) | on_ranks.looks(None) | on_ranks.on_devices(None)
    expected |= on_ranks.resumed(None, alone)
    found = dict(np.load(tmp_path / "found.npz"))
    assert found.pop("to the bit").all()
    held = {name: bool(found.pop(name)) for name in list(found) if name.startswith("holds: ")}
    assert len(held) == 10 and all(held.values()), held
    for name, (rank, text) in FAULTS.items():
        texts = found.pop(name).tolist()
        speaks = size - 1 if rank == "last" else rank
        assert text in texts[speaks] and not texts[speaks].startswith("RankError"), name
        told = f"RankError: rank {speaks} has failed: {texts[speaks]}"
        assert texts == [texts[speaks] if rank == speaks else told for rank in range(size)], name
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        assert np.linalg.norm(found[name] - theirs) <= 1e-10 * np.linalg.norm(theirs), name


# The command line


@pytest.fixture
def run(tmp_path):
    """The folder of a run of the command line that two ranks have trained."""
    code, out, err = scratchvae(2, "train", "--samples", 3000, "--dtype", "float64", "--out", tmp_path / "two")
    assert (code, err) == (0, "")
    assert out.count("nats per datapoint") == out.count("wrote ") == 1  # one rank speaks
    assert "on numpy, on 2 ranks with 1 BLAS thread each" in out
    return tmp_path / "two"


@pytest.mark.drawn
@real
def test_a_run_under_mpiexec_is_that_of_one_process_and_goes_on_in_either(run, tmp_path, capsys):
    alone = tmp_path / "one"
    assert main(["train", "--samples", "3000", "--dtype", "float64", "--out", str(alone), "--quiet"]) == 0
    theirs, ours = (dict(np.load(folder / "checkpoint.npz")) for folder in (alone, run))
    for name in [name for name in theirs if theirs[name].dtype.kind == "f"]:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-10 * np.abs(theirs[name]).max())
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}

    assert main(["train", "--resume", str(run), "--samples", "5000", "--quiet"]) == 0
    code, _, err = scratchvae(2, "train", "--resume", alone, "--samples", 5000, "--quiet")
    assert (code, err) == (0, "")
    capsys.readouterr()
    scores = ["--scores", str(tmp_path / "one.npz")]
    assert main(["evaluate", str(run), "--json", "--log-likelihood", "20", *scores]) == 0
    one = json.loads(capsys.readouterr().out)
    scores = ["--scores", str(tmp_path / "two.npz")]
    code, out, _ = scratchvae(2, "evaluate", alone, "--json", "--log-likelihood", 20, *scores)
    two = json.loads(out)
    assert code == 0 and one.keys() == two.keys()
    for name in ("bound", "kl", "reconstruction", "log_likelihood", "log_likelihood_error"):
        assert two[name] == pytest.approx(one[name], rel=1e-9), name
    ours, theirs = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert ours.keys() == theirs.keys() >= {"row", "bound", "rate", "distortion", "log_likelihood", "k_hat"}
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5)


@real
def test_a_study_of_many_runs_trains_each_of_them_on_all_ranks(tmp_path):
    words = ["--data", "digits", "--latent", "3", "--scale", "0.0003", "--seeds", "1", "--jobs", "1"]
    script = HERE.parent / "examples" / "figure2.py"
    code, out, err = ranks(2, script, *words, "--runs", tmp_path / "two", "--results", tmp_path / "results")
    assert code == 0, err
    assert out.count("wrote ") == 2  # the table and the picture, by one rank
    alone = [sys.executable, script, *words, "--runs", tmp_path / "one", "--results", tmp_path / "one"]
    subprocess.run(alone, env=ENVIRONMENT, check=True, capture_output=True)
    tables = [
        list(csv.DictReader(io.StringIO((tmp_path / name / "figure2.csv").read_text(encoding="utf-8"))))
        for name in ("results", "one")
    ]
    assert len(tables[0]) == len(tables[1]) == 2 * 6
    for two, one in zip(*tables, strict=True):
        for bound in ("train bound", "validation bound"):
            assert float(two[bound]) == pytest.approx(float(one[bound]), abs=0.01)  # in float32

    code, out, _ = ranks(2, script, "--help")
    assert code == 0 and out.count("usage: figure2.py") == 1
    code, out, err = ranks(2, script, "--seeds", "none")
    assert code == 2 and err.count("argument --seeds") == 1
    code, out, err = ranks(2, script.with_name("figure3.py"))
    assert (code, out) == (1, "")
    assert (
        err.splitlines()[0] == "error: mpiexec has started 2 processes, and figure3.py runs in one: leave mpiexec out"
    )


@real
def test_the_program_of_the_page_runs_on_ranks(tmp_path):
    page = (HERE.parent / "examples" / "README.md").read_text(encoding="utf-8")
    program = re.search(r"^    # program\.py\n((?:    .*\n|\n)+)", page, re.MULTILINE)[0]
    (tmp_path / "program.py").write_text(textwrap.dedent(program.replace("20_000", "2_000")), encoding="utf-8")
    code, out, _ = ranks(2, "-m", "mpi4py", tmp_path / "program.py")
    assert code == 0 and re.fullmatch(r"-\d\d\.\d\d nats per image\n", out)


def steps_of(folder):
    """The number of rows in metrics.csv, 0 before it is there."""
    path = folder / "metrics.csv"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def ended(folder, end):
    """Start a long run on two ranks, end it by end(process) once it has a few rows, and return code, stdout, stderr."""
    words = ("train", "--epochs", 10**6, "--batch-size", 20, "--log-every", 1000, "--out", folder, "--quiet")
    with begun(2, "-m", "scratchvae", *words) as process:
        limit = time.monotonic() + LIMIT
        while steps_of(folder) < 3 and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.02)
        end(process)
        out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@real
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_mpiexec_stops_all_ranks_at_one_step_and_saves(number, expected, tmp_path):
    folder = tmp_path / "run"
    code, _, err = ended(folder, lambda process: process.send_signal(number))
    assert code == expected, err
    assert err.count("stopped; go on with: mpiexec -n 2 scratchvae train --resume") == 1
    assert not (folder / "claim.json").exists()
    assert main(["train", "--resume", str(folder), "--samples", "1", "--quiet"]) == 0  # nothing is left to do


INTERRUPTED = """
import os, signal, sys
from scratchvae import VAE, evaluate
from scratchvae.cli import main, train

def signalled():
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))

if sys.argv[1] == "before":  # between the data and the training
    made = train.model_of
    train.model_of = lambda *arguments: [made(*arguments), signalled()][0]
if sys.argv[1] == "pictures":
    train._draw = lambda *arguments: signalled() or []
if sys.argv[1] == "call":
    import numpy as np
    from mpi4py import MPI
    model = VAE(6, 5, 2)
    terms = model.terms
    model.terms = lambda *arguments: [terms(*arguments), MPI.COMM_WORLD.rank == 1 and signalled()][0]
    evaluate(model, np.full((9, 6), 0.5), comm=MPI.COMM_WORLD)
sys.exit(main(["train", "--samples", "300", "--out", sys.argv[3], "--quiet"]))
"""


@real
@pytest.mark.parametrize(
    ("moment", "name", "expected", "said"),
    [
        ("before", "SIGINT", 130, "interrupted"),
        ("before", "SIGTERM", 143, ""),
        ("pictures", "SIGINT", 130, "interrupted"),
        ("call", "SIGINT", signal.SIGINT, "KeyboardInterrupt"),  # by which Python ends itself
    ],
)
def test_a_signal_at_any_moment_ends_all_ranks_together(moment, name, expected, said, tmp_path):
    code, _, err = ranks(2, "-c", INTERRUPTED, moment, name, tmp_path / "run")
    assert code == expected and said in err
    assert "RankError" not in err and "truncated" not in err


def children(pid):
    """The processes that a process has started, and those that these have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, parent = path.parent.name, int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            found += [int(name), *children(int(name))] if parent == pid else []
    return found


@real
def test_a_rank_that_is_killed_ends_the_job_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    folder = tmp_path / "run"

    def kill_one(process):
        os.kill(max(children(process.pid)), signal.SIGKILL)

    begun_at = time.monotonic()
    code, _, _ = ended(folder, kill_one)
    assert code not in (0, 2) and time.monotonic() - begun_at < LIMIT
    assert main(["train", "--resume", str(folder), "--samples", "1", "--quiet"]) == 0  # nothing is left to do


@real
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--samples", 100, "--batch-size", 1), "there are 2 ranks and 1 datapoints in a minibatch"),
        (("train", "--latent", 0), "n_latent is 0"),
        (("train", "--bogus"), "unrecognized arguments: --bogus"),
        (("plot", "nowhere"), "mpiexec has started 2 processes, and scratchvae plot runs in one: leave mpiexec out"),
        (("evaluate", "nowhere"), "nowhere is no run folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_of_one_rank_and_exit_code_2(words, message, tmp_path):
    code, out, err = scratchvae(2, *words, *(["--out", tmp_path / "run"] if words[0] == "train" else []))
    assert code == 2 and "samples" not in out, out
    assert err.count(message) == 1 and err.count("error: ") == 1
    assert not (tmp_path / "run").exists()


def test_what_mpiexec_leaves_in_the_environment_is_found(monkeypatch):
    for name in ("PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started() == (0, 1)
    with ranks_of_command("train", True) as found:
        assert isinstance(found, Alone)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    assert started() == (3, 8)
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert started() == (1, 2)


@pytest.mark.parametrize(("rank", "kind"), [(0, ValueError), (1, RankError)])
def test_processes_that_cannot_be_ranks_of_one_run_are_refused_by_one_of_them(rank, kind, monkeypatch):
    monkeypatch.setenv("PMI_RANK", str(rank))
    monkeypatch.setenv("PMI_SIZE", "8")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(
        kind, match=r'8 processes, and rank [01] cannot find the others .*pip install "scratchvae\[mpi\]"'
    ):
        ranks_of_command("train", True).__enter__()

    class MPI:
        class COMM_WORLD:  # noqa: N801
            Get_size = staticmethod(lambda: 1)

        Get_library_version = staticmethod(lambda: "Another MPI 1.0\nof somebody")

    monkeypatch.setitem(sys.modules, "mpi4py", type(sys)("mpi4py"))
    sys.modules["mpi4py"].MPI = MPI
    with pytest.raises(kind, match=r"8 processes, and mpi4py sees 1, since its MPI is another one \(Another MPI 1.0\)"):
        ranks_of_command("train", True).__enter__()


def test_each_rank_takes_a_device_of_its_own_and_fewer_devices_than_ranks_are_refused(waits):
    take_device(0, 1)
    assert standin.Device.used == [0]
    with pytest.raises(
        ValueError, match=r"2 ranks on this machine need a device each, and there is 1: start 1 \(mpiexec"
    ):
        take_device(1, 2)
    some = SimpleNamespace(size=2, rank=0, MPI=SimpleNamespace(COMM_WORLD=SimpleNamespace(Get_size=lambda: 3)))
    with pytest.raises(
        ValueError, match="comm has 2 of the ranks; on backend 'cupy' all of them have to train together"
    ):
        between_devices(some)
    some.size = 3
    del sys.modules["cupyx.distributed"].NCCLBackend
    with pytest.raises(ValueError, match=r"backend 'cupy' is missing NCCL .*pip install nvidia-nccl-cu13"):
        between_devices(some)


@pytest.mark.gpu
@real
def test_ranks_on_devices_train_like_one_on_its_device(tmp_path):
    if array_module("cupy").cuda.runtime.getDeviceCount() < 2:
        pytest.skip("two devices are needed")
    words = ("--samples", 3000, "--dtype", "float64", "--backend", "cupy", "--quiet")
    for size, name in ((1, "one"), (2, "two")):
        assert scratchvae(size, "train", *words, "--out", tmp_path / name)[0] == 0
    theirs, ours = (dict(np.load(tmp_path / name / "checkpoint.npz")) for name in ("one", "two"))
    for name in [name for name in theirs if theirs[name].dtype.kind == "f"]:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-10 * np.abs(theirs[name]).max())


def test_a_rank_has_its_share_of_the_cores_for_blas(monkeypatch):
    from scratchvae.cli import train

    monkeypatch.setattr(train, "cores", lambda: 8)
    monkeypatch.setattr(train, "blas_threads", lambda largest: 1 if largest < 600 else 8)
    two = SimpleNamespace(size=2, on_machine=2)
    model = small(n_visible=6, n_hidden=5)  # its largest matrix has 30 numbers

    def of_a_rank(threads, ranks, rows=40):
        return train._of_a_rank(threads, model, {"batch_size": rows, "n_samples": 1}, 1000, ranks)

    assert of_a_rank(None, Alone()) is None
    assert of_a_rank(64, Alone()) == 64
    assert of_a_rank(8, two) == 4  # as chosen for 20 rows too, and half of the cores
    assert of_a_rank(8, two, rows=30) == 1  # chosen for 30 rows, of which a rank has 15
    assert of_a_rank(3, two) == 3  # as the user wants it
    assert of_a_rank(6, two) == 4
    assert of_a_rank(1, two) == 1
    assert of_a_rank(1, SimpleNamespace(size=2, on_machine=1)) == 1
    assert of_a_rank(8, SimpleNamespace(size=2, on_machine=1)) == 8  # two machines


def test_progress_on_ranks_is_a_line_now_and_then_by_the_first_of_them(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with output.progress_bar(10_000, 1000, "lines") as bar:
        for _ in range(30):
            now[0] += 1
            bar.set_postfix_str("bound -3.0", refresh=False)
            bar.update(300)
    lines = sys.stderr.getvalue().splitlines()
    assert len(lines) == 3  # after 2, 12 and 22 seconds
    assert lines[0].startswith("16%") and "1.60k/10.0k [00:02<00:28, 300 samples/s, bound -3.0]" in lines[0], lines
    with output.progress_bar(10, 0, "lines") as bar:
        now[0] += 10_000
        bar.update()
        assert bar.due == now[0] + 200  # a fiftieth of the time so far
    assert Alone().shown(None) is None
    first, second = SimpleNamespace(first=True), SimpleNamespace(first=False)
    assert [Ranks.shown(first, progress) for progress in (None, True, False)] == ["lines", True, False]
    assert [Ranks.shown(second, progress) for progress in (None, True, False)] == [False] * 3


def test_a_training_that_each_process_makes_by_itself_under_mpiexec_is_told(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    x = np.random.default_rng(0).random((20, 6))
    for train in (fit, fit_mcem):
        with pytest.warns(UserWarning, match="mpiexec has started 2 processes, and each .* pass comm=MPI.COMM_WORLD"):
            train(small(), x, samples=20, batch_size=10)
    monkeypatch.setenv("PMI_RANK", "1")  # one of them is enough
    fit(small(), x, samples=20, batch_size=10)
    with pytest.raises(ValueError, match="comm is 2; expected a communicator of mpi4py"):
        fit(small(), x, samples=20, comm=2)


def test_ranks_that_have_more_threads_than_there_are_cores_are_told(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    model, four, threads = small(), SimpleNamespace(first=True, on_machine=4), [2]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [{"user_api": "blas", "num_threads": threads[0]}])
    with pytest.warns(UserWarning, match="4 ranks with 2 BLAS threads each share 2 cores.* OPENBLAS_NUM_THREADS=1"):
        parallel.warn_of_threads(four, model)
    parallel.warn_of_threads(SimpleNamespace(first=True, on_machine=1), model)
    parallel.warn_of_threads(SimpleNamespace(first=False, on_machine=4), model)
    threads[0] = 1
    parallel.warn_of_threads(four, model)


def test_alone_there_is_nobody_to_meet():
    alone = Alone()
    assert alone.meet(3.0, [15], True) == (3.0, 15, True)
    assert alone.meet() == (0.0, 0, False)
    assert len(alone.share(5)) == 5


@real
def test_ranks_that_were_started_with_other_words_are_refused(run):
    """What mpiexec can do with a colon, and nobody means to."""
    first = [sys.executable, "-m", "scratchvae", "evaluate", run]
    words = [*first, ":", "-n", "1", *first, "--log-likelihood", "20"]
    done = subprocess.run(
        [MPIEXEC, "-n", "1", *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "scratchvae: error: rank 1 has options log_likelihood 20, and rank 0 None: start all ranks with the same "
        "options, data and versions\n"
    )


def test_the_communicator_of_a_command_is_given_back_when_it_ends(monkeypatch):
    world = SimpleNamespace(Get_size=lambda: 2)
    monkeypatch.setitem(sys.modules, "mpi4py", type(sys)("mpi4py"))
    sys.modules["mpi4py"].MPI = SimpleNamespace(COMM_WORLD=world)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    made = []
    monkeypatch.setattr("scratchvae.cli.ranks.Ranks", lambda *arguments, **settings: made.append(settings) or Alone())
    with ranks_of_command("train", True):
        assert made == [{"for_one_call": True}]


def test_ranks_that_look_at_other_folders_differ():
    facts = {"options": {"run": Path("runs/a"), "model": object()}}
    said = []

    class Other:
        """A communicator whose other rank looks at another folder."""

        def allgather(self, mine):
            said.append(mine)
            return [mine, mine | {"options run": '"runs/b"'}]

    two = SimpleNamespace(comm=Other(), meet=lambda: None)
    with pytest.raises(ValueError, match=r'rank 1 has options run "runs/b", and rank 0 "runs/a"'):
        Ranks.agree(two, facts)
    assert said[0]["options model"] == '"object"'


def test_an_error_is_known_by_all_that_it_has_come_from():
    known, replaced, meanwhile = RankError("known"), OSError("replaced"), ValueError("meanwhile")
    replaced.__context__ = known
    replaced.__cause__ = meanwhile
    meanwhile.__context__ = replaced  # a circle, as a program may make one
    assert _chain(replaced) == [replaced, meanwhile, known]
    assert _chain(known) == [known]


# How it scales


@pytest.fixture
def scaling(monkeypatch):
    """The module benchmarks/ranks.py."""
    monkeypatch.syspath_prepend(str(HERE.parent / "benchmarks"))
    spec = importlib.util.spec_from_file_location("benchmarks_ranks", HERE.parent / "benchmarks" / "ranks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_of_the_cost_finds_the_numbers_that_have_made_the_times(scaling):
    numbers = np.array([2e-4, 3e-11, 5e-10, 2e-10, 1e-5])
    works = [scaling.work_of(size, m) for size in scaling.SIZES for m in scaling.MINIBATCHES]
    rows = [
        {
            "size": f"784-{work.n_hidden}-{work.n_latent}",
            "batch_size": work.batch_size,
            "ranks": ranks,
            "ms": 1e3 * float(np.dot(scaling.terms(work, ranks), numbers)),
        }
        for work in works
        for ranks in (1, 2, 3)
    ]
    found, errors = scaling.fitted(works, rows)
    np.testing.assert_allclose(found, numbers, rtol=1e-6)
    assert np.abs(errors).max() < 1e-9


def test_what_the_model_says_of_more_machines_is_its_formula(scaling):
    work = scaling.work_of((784, 500, 20), 1000)
    assert scaling.parameters((784, 500, 20)) == small(n_visible=784, n_hidden=500, n_latent=20).params.value.size
    numbers = (1e-4, 1e-11, 1e-10, 7.0, 7.0)  # the last two are of shared memory alone
    assert scaling.predicted(numbers, work, 1, 10) == (1e-4 + 1e-11 * work.flops() + 1e-10 * 815_824, 0.0)
    seconds, network = scaling.predicted(numbers, work, 8, 10)
    assert network == pytest.approx(2 * 4 * 815_824 * 7 / 8 / 1.25e9 + 20e-6 * (7 + 6))
    assert seconds == pytest.approx(1e-4 + (1e-11 * work.flops() + 1e-10 * 815_824) / 8 + network)


@real
def test_how_a_step_scales_is_measured_and_drawn(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parent / "benchmarks"))
    words = ["--rounds", "1", "--batch-size", "20", "--looks", "1", "--scale", "0.01", "--results", tmp_path]
    command = [sys.executable, HERE.parent / "benchmarks" / "ranks.py", *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=LIMIT, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    result = json.loads((tmp_path / "ranks.json").read_text(encoding="utf-8"))
    assert [(row["size"], row["ranks"]) for row in result["rows"]] == [
        ("784-500-20", 1),
        ("784-500-20", 2),
        ("784-2000-50", 1),
        ("784-2000-50", 2),
    ]
    assert all(row["ms"] > 0 and row["products_ms"] > 0 for row in result["rows"])
    spec = importlib.util.spec_from_file_location("benchmarks_run", HERE.parent / "benchmarks" / "run.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.of_ranks(tmp_path)
    assert "| the bound of 10,000 images |" in text and "The second rank of a training" in text
    over_data = [(row["what"], row["ranks"]) for row in result["over_data"]]
    assert over_data == [(what, size) for what in ("evaluate", "importance", "hmc") for size in (1, 2)]
    assert all(row["seconds"] > 0 for row in result["over_data"])
    if Path("/proc/self/smaps_rollup").exists():  # more than the parameters of its half, and not a copy of the images
        assert 1 < result["own_memory_mib"] < 60
    assert (tmp_path / "ranks.png").stat().st_size > 1000
