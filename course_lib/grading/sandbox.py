"""The walls around a player (Linux): what its process can see, and what it can do.

bubblewrap gives one box to the process from which players are forked: no network, a read-only system, an empty home,
nothing of the course but the library, and that without the answers (see `answer_key`). In it each player gets walls of
its own before any learner's code runs: new process and IPC spaces that end with it, everything read-only but an empty
/tmp of limited size, the library's files covered, nothing of the kernel's in /proc, limits on memory, files, threads
and time, no privilege, and a seccomp filter that lets it start no process, open no socket and mount nothing. A
superuser's players are users of their own: user 0 may write the kernel's settings even without a privilege.
"""

import ctypes
import glob
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LIBRARY = "/course"  # where the library's packages lie in the box, until they are covered
SCRATCH = 64 * 2**20  # bytes that a player may write to /tmp
LARGEST_FILE = 16 * 2**20  # bytes
OPEN_FILES = 128
THREADS = 64
FIRST_USER = 1_900_000_000  # numbers from here on belong to no user of a machine, nor to a container manager's ranges

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWPID = 0x20000, 0x8000000, 0x20000000
_CLONE_THREAD = 0x10000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 442, -100, 0x8000, 1, 2
_CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_ADMIN = 5, 6, 7, 8, 21
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_DUMPABLE = 38, 24, 22, 4
_PR_CAPBSET_READ = 23
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
    "semget": (64, 190), "mq_open": (240, 180), "io_setup": (206, 0),
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
_NEWEST = 462  # mseal, of Linux 6.10: what came later is not in the table above, and is said not to exist
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


class SandboxError(RuntimeError):
    """Players cannot be confined on this machine; the message has the cure."""


def why_not() -> str | None:
    """Why players cannot be confined on this machine, None where they can.

    All walls are put up for a trial, and pushed against from inside: it takes a fraction of a second.
    """
    if sys.platform != "linux":
        return f"this is {platform.system() or sys.platform}, and the sandbox needs Linux"
    if platform.machine() not in _ARCHITECTURES:
        return f"the sandbox does not know the processor {platform.machine()}"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    ours, theirs = os.pipe()
    program = f"from course_lib.grading import sandbox; sandbox.trial({a_user()})"
    box = command(program, [Path(__file__).parents[1]], theirs)
    try:
        trial = subprocess.run(
            box, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[theirs], timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return "its trial does not end within a minute"
    finally:
        os.close(theirs)
        with open(ours, "rb") as told:
            said = told.read(1000).decode(errors="replace")
    if said == _STANDS:
        return None
    last = trial.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it gives no reason"]
    return f"its walls do not stand here ({said or last[0]})"


_STANDS = "they stand"


def trial(user: int | None) -> None:
    """Put up the walls around a process that pushes against them, and tell `_STANDS`, or the wall that does not.

    Runs in the box, in place of a player's process; the file descriptor to write to is the last argument.
    """
    told = int(sys.argv[-1])
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    listen, speak = os.pipe()
    try:
        new_process_space(own)
        os.close(own)
        child = os.fork()
        if child == 0:
            try:
                confine(2**28, 30, user)
                said = open_doors() or _STANDS
            except BaseException as error:
                said = str(error)
            os.write(speak, said.encode()[:1000])
            signal.pause()
        os.close(speak)
        said = os.read(listen, 1000).decode()
        os.kill(child, signal.SIGKILL)  # whatever it is: who makes players has to be able to end them
        os.waitpid(child, 0)
    except BaseException as error:
        said = str(error)
    os.write(told, said.encode()[:1000])


def open_doors() -> str:
    """What this process can do that a player must not, in words; empty where nothing was found."""
    import threading

    attempts: dict[str, Callable[[], object]] = {
        "write to /": lambda: os.mkdir("/door"),
        "write to the system's files": lambda: os.mkdir("/usr/door"),
        "write to the devices": lambda: os.mkdir("/dev/door"),
        "set the kernel": lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY),
        "start a process": os.fork,
        "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
        "open a socket": lambda: socket.socket(socket.AF_UNIX),
        "leave its name spaces": lambda: new_process_space(-1),
        "mount a file system": lambda: _mount("tmpfs", "/tmp", "tmpfs", 0, ""),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        return f"a player can {what}"
    if os.listdir(LIBRARY):
        return "a player sees the library's files"
    packages = sysconfig.get_paths()["purelib"]
    if not os.access(packages, os.R_OK | os.X_OK):
        return f"a player cannot read {packages}; cure: chmod -R a+rX {sys.prefix}"
    others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    if others:
        return "a player sees other processes"
    started = threading.Thread(target=bool)  # the limit on threads may count what others run
    started.start()
    started.join()
    return ""


def is_privileged() -> bool:
    """Whether this process is a superuser who can make the name spaces itself, and give each player a user of its own.

    Everybody else needs a user name space of bubblewrap's.
    """
    needed = (_CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_ADMIN)
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return os.geteuid() == 0 and all(held >> capability & 1 for capability in needed)


def a_user() -> int | None:
    """The number of a user for the players of this process, None where it is not a superuser's to choose.

    It is for whoever starts the box to ask: inside, everybody looks like a superuser.
    """
    return FIRST_USER + os.getpid() % 100_000 if is_privileged() else None


def command(program: str, packages: list[Path], fd: int, instead: Mapping[Path, Path] | None = None) -> list[str]:
    """The command that runs the Python program text `program` in a box.

    Args:
        program: what Python runs.
        packages: folders of packages that it can import.
        fd: a file descriptor that it inherits.
        instead: for files of these packages, the file that is there in its place.
    """
    paths = sysconfig.get_paths()
    seen = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/localtime"]
    seen += [*_folders_of_python(), "/sys/devices/system/cpu"]
    binds = ["--tmpfs", "/tmp", *_binds(seen)]  # in this order: Python may lie in /tmp
    for hidden in dict.fromkeys(_course_of(package, paths) for package in packages):
        if any(_is_below(str(hidden), path) for path in seen):
            binds += ["--tmpfs", str(hidden)] if hidden.is_dir() else ["--ro-bind", os.devnull, str(hidden)]
            binds += _binds([path for path in seen if _is_below(path, str(hidden))])
    for package in packages:
        binds += ["--ro-bind", str(package), f"{LIBRARY}/{package.name}"]
        emptied = {path: other for path, other in (instead or {}).items() if path == package or package in path.parents}
        places = {path: Path(LIBRARY, package.name, path.relative_to(package)) for path in emptied}
        for cached in {place.parent for path, place in places.items() if (path.parent / "__pycache__").is_dir()}:
            binds += ["--tmpfs", str(cached / "__pycache__")]
        for path, other in emptied.items():
            binds += ["--ro-bind", str(other), str(places[path])]
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
    for known in glob.glob(
        f"{glob.escape(str(fonts))}/fontlist-*.json"
    ):  # else matplotlib looks for fonts, for seconds
        binds += ["--ro-bind", known, f"/fonts/{os.path.basename(known)}"]
    box = [*_bubblewrap(), *binds, "--proc", "/proc", "--dev", "/dev"]
    box += ["--dir", "/home", "--chdir", "/tmp", "--hostname", "player", "--clearenv"]
    for name, value in environment.items():
        box += ["--setenv", name, value]
    # Before Python 3.11, which has -P, the current folder is on the path: "", a place where a player may write.
    start = f"import sys; sys.path = [{LIBRARY!r}, *filter(None, sys.path)]; {program}"
    return [*box, "--", sys.executable, "-s", "-P" if sys.version_info >= (3, 11) else "-u", "-c", start, str(fd)]


def _folders_of_python() -> list[str]:
    """What Python runs from; not all of its prefix, because somebody's course may lie there."""
    inside, paths = ("bin", "lib", "lib64", "share", "pyvenv.cfg"), sysconfig.get_paths()
    folders = [os.path.join(prefix, part) for prefix in (sys.base_prefix, sys.prefix) for part in inside]
    program = sys.executable
    while os.path.islink(program):  # an environment that was made in another one may run by way of that one's Python
        program = os.path.join(os.path.dirname(program), os.readlink(program))
        folders.append(os.path.normpath(program))
    return folders + [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def _binds(paths: list[str]) -> list[str]:
    """Options that show `paths` read-only; what lies below one of them comes with it."""
    binds: list[str] = []
    for path in dict.fromkeys(paths):
        if os.path.islink(path) and path.count("/") == 1:
            binds += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path) and not any(_is_below(path, other) for other in paths if other != path):
            # the folders above it by themselves, for everybody to pass: bubblewrap would make some for user 0 only
            binds += ["--dir", os.path.dirname(path), "--ro-bind", path, path]
    return binds


def _course_of(package: Path, paths: Mapping[str, str]) -> Path:
    """What must not be seen of a package's place: the course around it, or where it is installed the package alone."""
    installed = {Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return package if package.parent.resolve() in installed else package.parent


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other.rstrip('/')}/")


def _bubblewrap() -> list[str]:
    # These capabilities are for the walls around each player, which are put up with them and take them away, and to end
    # a player, who is another user.
    box = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    box += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for name in ("CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
        box += ["--cap-add", name]
    if not is_privileged():  # user 0 of a user name space, or bubblewrap would put a second one around the process
        box += ["--unshare-user", "--uid", "0", "--gid", "0"]
    return box


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


def confine(memory: int, seconds: int, user: int | None) -> None:
    """Put up the walls around this process, the first one of a process space; nothing takes them down again.

    Args:
        memory: bytes that it may take beyond what it has.
        seconds: of processor time.
        user: the number of a user who is nobody else, for a superuser's player; None lets it be who it is.

    Raises:
        OSError: a wall does not stand; no learner's code may run then.
    """
    assert _libc
    os.setsid()
    Path("/proc/self/oom_score_adj").write_text("1000")  # where a machine runs out of memory, a player ends first
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC), "unshare")
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "keep mounts private")
    _make_read_only("/")
    quiet, owner = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, f"uid={user or 0},gid={user or 0}"
    with _kept_below("/tmp"):
        _mount("tmpfs", "/tmp", "tmpfs", quiet, f"size={SCRATCH},nr_inodes=2000,mode=1777,{owner}")
    _mount("tmpfs", "/dev/shm", "tmpfs", quiet, f"size=1m,nr_inodes=100,mode=700,{owner}")
    _mount("tmpfs", LIBRARY, "tmpfs", quiet | _MS_RDONLY, "size=4k,mode=555")
    _mount("proc", "/proc", "proc", quiet | _MS_RDONLY, "hidepid=2,subset=pid")  # processes, nothing of the kernel's
    limit_resources(memory, seconds)
    limit_threads()
    _lose_privileges(user)
    os.chdir("/tmp")
    _filter_system_calls()


@contextmanager
def _kept_below(place: str) -> Iterator[None]:
    """Show what Python runs from, as far as it lies below `place`, on whatever is mounted there meanwhile."""
    folders = [os.path.realpath(path) for path in _folders_of_python() if os.path.exists(path)]
    inside = dict.fromkeys(path for path in folders if _is_below(path, place))
    outermost = [path for path in inside if not any(_is_below(path, other) for other in inside if other != path)]
    opened = {path: os.open(path, os.O_PATH) for path in outermost}
    yield
    assert _libc
    for path, folder in opened.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{folder}"):
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_CREAT))
        source = f"/proc/self/fd/{folder}".encode()  # a bind keeps it read-only
        _check(_libc.mount(source, path.encode(), None, ctypes.c_ulong(_MS_BIND), None), f"show {path}")
        os.close(folder)


def limit_resources(memory: int, seconds: int) -> None:
    """Limit memory (beyond what there is), processor time, files, and what is written."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_FSIZE, LARGEST_FILE)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)


def limit_threads() -> None:
    """Limit the threads of a player. Inside the box only: outside, what its user runs elsewhere would be counted."""
    import resource

    _limit(resource.RLIMIT_NPROC, THREADS)
    _limit(resource.RLIMIT_SIGPENDING, 1000)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)


def _limit(kind: int, limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _make_read_only(path: str) -> None:
    """Everything that is mounted at `path` and below (Linux 5.12 has the call; the C library need not know it)."""
    assert _libc
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    numbers = [ctypes.c_long(each) for each in (_MOUNT_SETATTR, _AT_FDCWD)]
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(*numbers, path.encode(), ctypes.c_uint(_AT_RECURSIVE), attributes, size)
    _check(result, f"make {path} read-only")


def _lose_privileges(user: int | None) -> None:
    for capability in range(64):
        if _prctl(_PR_CAPBSET_READ, capability) < 0:
            break  # the kernel has no more of them
        _check(_prctl(_PR_CAPBSET_DROP, capability), "drop a capability")
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _drop_capabilities()
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    _check(_prctl(_PR_SET_DUMPABLE, 0), "dumpable")


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
    program += [(at_least, 0, 1, _NEWEST + 1), (give, 0, 0, refuse | _ENOSYS)]
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
