"""The walls around a player (Linux): what its process can see, and what it can do.

bubblewrap gives one box to the process from which players are forked: no network, a read-only system, an empty home,
nothing of the course but the library. In it each player gets walls of its own before any learner's code runs: new
process and IPC spaces that end with it, an empty /tmp of limited size, the library's files covered, limits on memory,
files and time, no privilege, and a seccomp filter that lets it start no process, open no socket and mount nothing.
"""

import ctypes
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

LIBRARY = "/course"  # where the library's packages lie in the box, until they are covered
SCRATCH = 64 * 2**20  # bytes that a player may write to /tmp
LARGEST_FILE = 16 * 2**20  # bytes
OPEN_FILES = 128

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID = 0x20000, 0x8000000, 0x20000000
_CLONE_THREAD = 0x10000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 38, 24, 22, 4
_PR_CAP_AMBIENT = 47
_EPERM, _ENOSYS = 1, 38

# System calls that a player has no use for, and their numbers on x86-64 and on 64-bit ARM (None: there is none).
# Source: the kernel's tables, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "process_madvise": (440, 440),
    # sockets; the one to the referee is open already
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # memory that no limit counts, and that outlives a process
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
    # walls and devices
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "quotactl": (179, 60),
    # the kernel's own doors
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116), "personality": (135, 92),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262), "vhangup": (153, 58), "nfsservctl": (180, 42), "uselib": (134, None),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


class SandboxError(RuntimeError):
    """Players cannot be confined on this machine; the message has the cure."""


def why_not() -> str | None:
    """Why players cannot be confined on this machine, None where they can."""
    if sys.platform != "linux":
        return f"this is {platform.system() or sys.platform}, and the sandbox needs Linux"
    if platform.machine() not in _ARCHITECTURES:
        return f"the sandbox does not know the processor {platform.machine()}"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    trial = subprocess.run(
        [*_bubblewrap(), "--ro-bind", "/", "/", "true"], capture_output=True, text=True, timeout=30, check=False
    )
    if trial.returncode:
        return f"bubblewrap does not work here ({trial.stderr.strip().splitlines()[-1:] or ['it gives no reason']})"
    return None


def command(program: str, packages: list[Path], fd: int) -> list[str]:
    """The command that runs the Python program text `program` in a box.

    Args:
        program: what Python runs.
        packages: folders of packages that it can import.
        fd: a file descriptor that it inherits.
    """
    seen = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/localtime"]
    paths = sysconfig.get_paths()
    seen += [sys.base_prefix, sys.prefix, paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]]
    binds: list[str] = []
    for path in dict.fromkeys(seen):
        if os.path.islink(path) and path.count("/") == 1:
            binds += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path) and not any(path.startswith(f"{other}/") for other in seen if other != "/"):
            binds += ["--ro-bind", path, path]
    for package in packages:
        binds += ["--ro-bind", str(package), f"{LIBRARY}/{package.name}"]
    fonts = Path(os.environ.get("MPLCONFIGDIR") or Path.home() / ".cache" / "matplotlib")
    environment = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "MKL_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "/fonts",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    binds += ["--tmpfs", "/fonts"]
    for known in fonts.glob("fontlist-*.json"):  # else matplotlib looks for fonts, for seconds
        binds += ["--ro-bind", str(known), f"/fonts/{known.name}"]
    box = [*_bubblewrap(), *binds, "--proc", "/proc", "--dev", "/dev"]
    box += ["--tmpfs", "/tmp", "--dir", "/home", "--chdir", "/tmp", "--hostname", "player", "--clearenv"]
    for name, value in environment.items():
        box += ["--setenv", name, value]
    start = f"import sys; sys.path.insert(0, {LIBRARY!r}); {program}"
    return [*box, "--", sys.executable, "-s", "-P" if sys.version_info >= (3, 11) else "-u", "-c", start, str(fd)]


def _bubblewrap() -> list[str]:
    # CAP_SYS_ADMIN holds inside the box only: the walls of each player are put up with it, and it is dropped then.
    return ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--cap-add",
            "CAP_SYS_ADMIN"]  # fmt: skip


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def new_process_space(own: int) -> None:
    """Let the next fork be the first process of a process space of its own, which ends with it.

    Args:
        own: an open file of the process space of this process (/proc/self/ns/pid).
    """
    assert _libc
    _check(_libc.setns(own, _CLONE_NEWPID), "setns")
    _check(_libc.unshare(_CLONE_NEWPID), "unshare")


def confine(memory: int, seconds: int) -> None:
    """Put up the walls around this process, the first one of a process space; nothing takes them down again.

    Args:
        memory: bytes that it may take beyond what it has.
        seconds: of processor time.

    Raises:
        OSError: a wall does not stand; no learner's code may run then.
    """
    assert _libc
    os.setsid()
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC), "unshare")
    quiet = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("tmpfs", "/tmp", "tmpfs", quiet, f"size={SCRATCH},nr_inodes=2000,mode=700")
    _mount("tmpfs", "/dev/shm", "tmpfs", quiet, "size=1m,nr_inodes=100")
    _mount("tmpfs", LIBRARY, "tmpfs", quiet | _MS_RDONLY, "size=4k,mode=555")
    _mount("proc", "/proc", "proc", quiet, "hidepid=2")
    os.chdir("/tmp")
    limit_resources(memory, seconds)
    for capability in range(64):
        if _prctl(_PR_CAPBSET_DROP, capability) != 0:
            break  # the kernel has no more of them
    _drop_capabilities()
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    _check(_prctl(_PR_SET_DUMPABLE, 0), "dumpable")
    _filter_system_calls()


def limit_resources(memory: int, seconds: int) -> None:
    """Limit memory (beyond what there is), processor time, files, and what is written."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: LARGEST_FILE,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    assert _libc
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc.mount(*arguments), f"mount {target}")


def _prctl(option: int, *arguments: int) -> int:
    assert _libc
    words = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_libc.prctl(ctypes.c_int(option), *words))


def _drop_capabilities() -> None:
    assert _libc
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    nothing = (ctypes.c_uint32 * 6)(0, 0, 0, 0, 0, 0)
    _check(_libc.capset(header, nothing), "capset")
    _prctl(_PR_CAP_AMBIENT, 4)  # PR_CAP_AMBIENT_CLEAR_ALL


def _filter_system_calls() -> None:
    """Refuse the forbidden calls with EPERM, and every clone that is no thread.

    The filter is classic BPF over struct seccomp_data: the number at offset 0, the architecture at 4, the low word of
    the first argument at 16 (both architectures store the low word first). clone3 hides its flags behind a pointer, so
    it is said not to exist, and the C library falls back to clone. Source: seccomp(2), linux/filter.h.
    """
    assert _libc
    audit, column = _ARCHITECTURES[platform.machine()]
    load, equal, at_least, bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    refuse = 0x00050000
    program: list[tuple[int, int, int, int]] = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill)]
    program += [(load, 0, 0, 0)]
    if column == 0:
        program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, refuse | _ENOSYS)]  # the x32 calls
    program += [(equal, 0, 1, _CLONE3[column]), (give, 0, 0, refuse | _ENOSYS)]
    for numbers in _FORBIDDEN.values():
        number = numbers[column]
        if number is not None:
            program += [(equal, 0, 1, number), (give, 0, 0, refuse | _EPERM)]
    program += [(equal, 0, 3, _CLONE[column]), (load, 0, 0, 16), (bits, 1, 0, _CLONE_THREAD)]
    program += [(give, 0, 0, refuse | _EPERM), (give, 0, 0, allow)]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    given = Program(len(program), ctypes.cast(buffer, ctypes.c_void_p))
    _check(_prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(given)), "seccomp")
