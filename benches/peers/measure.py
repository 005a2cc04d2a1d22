"""Runs a program and measures its whole process tree."""

import ctypes
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.1
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Cost:
    wall: float
    cpu: float
    peak_bytes: int
    error: str | None


def become_subreaper():
    """What an engine starts and leaves behind becomes our child, so that its time is counted."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root):
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # It has ended.
            children.setdefault(parent, []).append(int(name))
    found, look = [], [root]
    while look:
        for child in children.get(look.pop(), ()):
            found.append(child)
            look.append(child)
    return found


def resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def cpu_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def end_all():
    """Ends what is left of a run, and waits for it: only then its CPU time is known."""
    while left := descendants(os.getpid()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            pass


def run(command, environment, log, limit_seconds):
    """Runs `command` to its end or for `limit_seconds`; its output goes to the file `log`."""
    cpu, began, peak, error = cpu_of_children(), time.monotonic(), 0, None
    with open(log, "ab") as output:
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    while program.poll() is None:
        peak = max(peak, sum(map(resident, descendants(os.getpid()))))
        if time.monotonic() - began > limit_seconds:
            error = f"still running after {limit_seconds} s"
            break
        time.sleep(SAMPLE_SECONDS)
    wall = time.monotonic() - began
    end_all()
    if error is None and program.returncode != 0:
        error = f"ended with {program.returncode}"
    return Cost(wall, cpu_of_children() - cpu, peak, error)
