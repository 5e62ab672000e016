"""The ranks that mpiexec has started: how a command finds them, and who of them speaks."""

import contextlib
import os

from scratchvae.ranks import ALONE, RankError, Ranks, started

LOCAL = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")  # a rank's number among those of its machine


@contextlib.contextmanager
def ranks_of_command(name, on_ranks):
    """Give the ranks that run a command, or `ALONE`.

    name       is what the user calls the command.
    on_ranks   says whether it can run on ranks.

    A ValueError is raised where several processes were started and cannot be ranks of one run: for a command that runs
    in one process, and where MPI is missing or another one than that of mpiexec. Rank 0 says so, and the first rank of
    any other machine where MPI is missing there. On the others it is a `RankError`, which nobody needs to read.
    """
    rank, size = started()
    if size == 1:
        yield ALONE
        return
    refusal = ValueError if rank == 0 else RankError
    if not on_ranks:
        raise refusal(f"mpiexec has started {size} processes, and {name} runs in one: leave mpiexec out")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the second where mpi4py is there and the MPI library is not
        refusal = ValueError if 0 in (rank, _on_its_machine()) else RankError
        raise refusal(
            f"mpiexec has started {size} processes, and rank {rank} cannot find the others ({_line(error)}): "
            'pip install "scratchvae[mpi]", or leave mpiexec out'
        ) from None
    if MPI.COMM_WORLD.Get_size() != size:
        library = MPI.Get_library_version().split("\n")[0].strip()
        raise refusal(
            f"mpiexec has started {size} processes, and mpi4py sees {MPI.COMM_WORLD.Get_size()}, since its MPI is "
            f"another one ({library}): start them with the mpiexec of that"
        )
    with Ranks(MPI.COMM_WORLD, for_one_call=True) as ranks:
        yield ranks


def _on_its_machine():
    """Return the number of this rank among those of its machine, or None where mpiexec does not tell."""
    found = [os.environ[name] for name in LOCAL if os.environ.get(name, "").isdecimal()]
    return int(found[0]) if found else None


def _line(error):
    """Return an error as one line."""
    return " ".join(str(error).split())[:200]
