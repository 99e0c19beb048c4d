"""The memory of a process, as Linux reports it."""

from pathlib import Path


def proportional_memory(pid: int) -> int:
    """Returns the bytes of a process, with shared pages divided among the processes that map them.

    This is Linux's PSS.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line[:4] == "Pss:")
