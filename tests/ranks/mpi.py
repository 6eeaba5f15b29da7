#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a test on ranks over MPI, and looks at what each rank has written.

    mpi.py MPIRUN RANKS PROGRAM KIND [ARGUMENT...]

PROGRAM is called with a folder, KIND and the arguments, and writes a line to FOLDER/rank.N: "right", but where KIND is
"example", whose exit status tells, or one of LOST. There, rank 1 does not come to a call, and each other rank
writes "STATUS STATUS SECONDS MESSAGE" of it, which must be FA_RANK_LOST within the time-out of 1 s and what a busy
machine adds. The call before, to which all come, must not have failed: the message would say so.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

LOST = ("stalled", "killed", "ring-killed")
KILLED = LOST[1:]
SLACK = 2.0  # seconds behind the time-out


def command_of(mpirun, ranks, kind):
    version = subprocess.run([mpirun, "--version"], text=True, capture_output=True, check=False).stdout
    if "Open MPI" in version or "OpenRTE" in version:
        return [mpirun, "--oversubscribe", *(["--enable-recovery"] if kind in KILLED else []), "-n", str(ranks)]
    # MPICH's launcher ends all ranks when one dies of a signal, which a shell hides from it, and sends the others
    # another one.
    if kind in KILLED:
        return [mpirun, "-disable-auto-cleanup", "-n", str(ranks), "sh", "-c", 'trap "" USR1; "$0" "$@"; true']
    return [mpirun, "-n", str(ranks)]


def judge(kind, rank, line):
    if kind not in LOST:
        return line == "right"
    words = line.split()
    return (words[:2] == ["FA_RANK_LOST", "FA_RANK_LOST"] and float(words[2]) < 1 + SLACK and
            "a first call" not in line)


def main():
    mpirun, ranks, program, kind, *arguments = sys.argv[1:]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_btl_vader_single_copy_mechanism="none")
    with tempfile.TemporaryDirectory() as folder:
        command = [*command_of(mpirun, int(ranks), kind), program, folder, kind, *arguments]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=100, check=False)
        failed = 0
        for rank in range(int(ranks)):
            path = pathlib.Path(folder, f"rank.{rank}")
            if kind == "example" or (rank == 1 and kind in LOST):
                continue
            line = path.read_text().strip() if path.exists() else "nothing"
            print(f"rank {rank}: {line}")
            failed += not judge(kind, rank, line)
    if failed or (done.returncode != 0 and kind not in LOST):
        print(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        sys.exit(1)


if __name__ == "__main__":
    main()
