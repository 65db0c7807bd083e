"""The walls around a player, one by one, seen from inside.

A player here is a process without torch that has put up the same walls, so that a test takes a moment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from course_lib.grading import sandbox

if (missing := sandbox.why_not()) and not os.environ.get("CI"):
    pytest.skip(f"no sandbox: {missing}", allow_module_level=True)

LIBRARY = Path(sandbox.__file__).parents[1]
PLAYER = """
import json, os, sys
from course_lib.grading import sandbox
own = os.open("/proc/self/ns/pid", os.O_RDONLY)
sandbox.new_process_space(own)
os.close(own)
if os.fork() == 0:
    sandbox.confine(MEMORY, 30, USER)
    space = {}
    exec(CODE, space)
    os.write(int(sys.argv[-1]), json.dumps(space["look"]()).encode())
    os._exit(0)
os.wait()
"""


def box(program: str, packages: list[Path] | None = None) -> str:
    """What `program` writes to the file descriptor that is its last argument, run in a box."""
    ours, theirs = os.pipe()
    command = sandbox.command(program, packages or [LIBRARY], theirs)
    ended = subprocess.run(command, pass_fds=[theirs], capture_output=True, text=True, timeout=120, check=False)
    os.close(theirs)
    with open(ours) as said:
        found = said.read()
    assert found, ended.stderr
    return found


def look(body: str, memory: int = 2**28) -> Any:
    """What the function with this body returns inside a player."""
    code = f"import os, sys\ndef look():\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    program = PLAYER.replace("CODE", repr(code)).replace("MEMORY", str(memory))
    return json.loads(box(program.replace("USER", repr(sandbox.a_user()))))


def test_players_can_be_confined_here() -> None:
    assert sandbox.why_not() is None


# --- what it sees -----------------------------------------------------------------------------------------------------


def test_player_sees_python_and_nothing_of_the_course() -> None:
    seen = look("return {path: sorted(os.listdir(path)) for path in ('/home', '/tmp', '/etc', '/course', '/dev/shm')}")
    above_python = {Path(prefix).resolve().parts[2] for prefix in (sys.prefix, sys.base_prefix) if is_in_tmp(prefix)}
    assert seen.pop("/tmp") == sorted(above_python)
    assert seen == {"/home": [], "/etc": ["ld.so.cache", "localtime"], "/course": [], "/dev/shm": []}
    root = Path(__file__).parents[2]
    assert not look(f"return [name for name in ('solutions', 'course_lib', 'tests') "
                    f"if os.path.exists(os.path.join({str(root)!r}, name))]")  # fmt: skip


def is_in_tmp(path: str) -> bool:
    return Path(path).resolve().is_relative_to("/tmp")


def test_player_is_alone_among_processes_and_is_told_nothing_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_SECRET", "canary")
    listed, environment, hostname = look("return os.listdir('/proc'), dict(os.environ), os.uname().nodename")
    assert sorted(listed) == ["1", "self", "thread-self"]
    assert "canary" not in str(environment) and environment["HOME"] == "/tmp"
    assert hostname == "player"


def test_player_has_no_open_file_but_its_channel_and_the_null_device() -> None:
    opened = look("""
        found = []
        for number in range(1024):
            try:
                os.fstat(number)
                found.append(number)
            except OSError:
                pass
        return found
        """)
    assert set(opened) <= {0, 1, 2, opened[-1]}


@pytest.fixture
def site() -> Iterator[Path]:
    """A folder outside /tmp, which players get anew."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_course_that_lies_in_pythons_own_folders_is_covered(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("library/__init__.py", "other/__init__.py", "checkout/course/__init__.py", "checkout/lesson.py"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("canary = 1\n")
    paths = sandbox.sysconfig.get_paths() | {"purelib": str(site)}
    monkeypatch.setattr(sandbox.sysconfig, "get_paths", lambda: paths)
    program = f"import os; os.write(int(sys.argv[-1]), repr([*os.walk({str(site)!r})]).encode())"
    seen = box(program, [site / "library", site / "checkout" / "course"])
    walked = {Path(folder).relative_to(site).as_posix(): files for folder, _, files in eval(seen)}
    assert walked == {".": [], "library": [], "other": ["__init__.py"], "checkout": []}


# --- what it can do ---------------------------------------------------------------------------------------------------


def test_player_is_nobody_and_has_no_privilege() -> None:
    status = look("return dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())")
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    user = sandbox.a_user()
    assert look("return [*os.getresuid(), *os.getresgid()]") == [user or 0] * 6
    assert set(look("return os.getgroups()")) <= ({user or 0} if user else {0, 65534})


def test_player_writes_to_its_own_folder_and_nowhere_else() -> None:
    written = look("""
        places = {line.split()[4] for line in open("/proc/self/mountinfo")} | {"/home", "/usr/lib", sys.prefix}
        found = []
        for place in sorted(places):
            try:
                with open(os.path.join(place, "note"), "w") as file:
                    file.write("x")
                found.append(place)
            except OSError:
                pass
        return found
        """)
    assert written == ["/dev/shm", "/tmp"]


def test_player_cannot_set_the_kernel() -> None:
    assert not look("return [path for path in ('/proc/sys', '/proc/sysrq-trigger', '/proc/kcore', '/proc/irq') "
                    "if os.path.exists(path)]")  # fmt: skip


def test_forbidden_system_calls_are_refused_one_by_one() -> None:
    _, column = sandbox._ARCHITECTURES[os.uname().machine]
    numbers = {name: pair[column] for name, pair in sandbox._FORBIDDEN.items() if pair[column] is not None}
    went_through = look(f"""
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        found = []
        for name, number in {numbers!r}.items():
            result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
            if result != -1 or ctypes.get_errno() != errno.EPERM:
                found.append(name)
        return found
        """)
    assert went_through == []


def test_calls_of_other_tables_and_of_newer_kernels_do_not_exist() -> None:
    codes = look("""
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        found = []
        for number in (435, 463, 467, 10_000, 0x40000000 + 57, 0x40000000 + 520):
            libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
            found.append(errno.errorcode[ctypes.get_errno()])
        return found
        """)
    assert codes == ["ENOSYS"] * 6


def test_player_starts_threads_but_no_processes() -> None:
    threads, errors = look(
        """
        import errno, subprocess, threading, time
        errors = []
        for start in (os.fork, lambda: subprocess.run(["true"]), lambda: os.posix_spawn("/bin/true", ["true"], {})):
            try:
                start()
            except OSError as error:
                errors.append(errno.errorcode[error.errno])
        count = 0
        try:
            while count < 500:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                count += 1
        except RuntimeError:
            pass
        return count, errors
        """,
        memory=2**34,
    )
    assert errors == ["EPERM"] * 3
    assert sandbox.THREADS - 8 <= threads <= sandbox.THREADS


def test_player_speaks_over_a_pair_of_sockets_and_no_other() -> None:
    assert look("""
        import socket
        one, other = socket.socketpair()
        one.send(b"x")
        found = [other.recv(1).decode()]
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
            try:
                socket.socket(family)
                found.append(str(family))
            except PermissionError:
                pass
        return found
        """) == ["x"]  # fmt: skip


# --- how much it can take ---------------------------------------------------------------------------------------------


def test_memory_beyond_the_limit_is_refused() -> None:
    assert look("""
        held = []
        try:
            while len(held) < 1000:
                held.append(bytearray(2**20))
        except MemoryError:
            pass
        return len(held)
        """, memory=2**27) in range(64, 129)  # fmt: skip


def test_disk_and_files_beyond_the_limits_are_refused() -> None:
    largest, written, files = look("""
        import errno
        with open("/tmp/large", "wb", buffering=0) as file:
            largest = 0
            try:
                while True:
                    largest += file.write(bytes(2**20))
            except OSError as error:
                assert error.errno == errno.EFBIG
        written = largest
        try:
            for number in range(100):
                with open(f"/tmp/{number}", "wb", buffering=0) as file:
                    for _ in range(15):
                        written += file.write(bytes(2**20))
        except OSError:
            pass
        files = []
        try:
            while True:
                files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return largest, written, len(files)
        """)
    assert largest == sandbox.LARGEST_FILE
    assert written <= sandbox.SCRATCH
    assert files < sandbox.OPEN_FILES


def test_limits_cannot_be_raised() -> None:
    limits = look("""
        import resource
        found = {}
        for name in ("AS", "CPU", "FSIZE", "NOFILE", "CORE", "NPROC", "MSGQUEUE", "SIGPENDING", "MEMLOCK"):
            kind = getattr(resource, "RLIMIT_" + name, {"MSGQUEUE": 12, "SIGPENDING": 11}.get(name))
            soft, hard = resource.getrlimit(kind)
            try:
                resource.setrlimit(kind, (hard + 1, hard + 1))
                found[name] = "raised"
            except (ValueError, OSError):
                found[name] = (soft, hard)
        return found
        """)
    assert all(value != "raised" and value[0] == value[1] >= 0 for value in limits.values())
    assert limits["CPU"] == [30, 30] and limits["CORE"] == [0, 0] and limits["NPROC"] == [sandbox.THREADS] * 2


# --- whether there are walls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda patch: patch.setattr(sandbox.sys, "platform", "darwin"), "the sandbox needs Linux"),
        (lambda patch: patch.setattr(sandbox.platform, "machine", lambda: "s390x"), "not know the processor s390x"),
        (lambda patch: patch.setattr(sandbox.shutil, "which", lambda _: None), "apt-get install bubblewrap"),
        (lambda patch: patch.setattr(sandbox, "_bubblewrap", lambda: ["bwrap", "--unshare-pid"]), "do not stand here"),
    ],
)  # fmt: skip
def test_why_not_says_what_is_missing(
    change: Callable[[pytest.MonkeyPatch], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    said = sandbox.why_not()
    assert said is not None and reason in said and "\n" not in said


def test_python_may_lie_in_tmp_which_every_player_gets_anew() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        program = "import sys; from course_lib.grading import sandbox; print(sys.prefix, sandbox.why_not())"
        environment = {**os.environ, "PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
        command = [f"{folder}/bin/python", "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [folder, "None"], done.stdout + done.stderr


def test_python_may_be_a_link_to_a_link_that_lies_elsewhere() -> None:
    """As in an environment that Python 3.10 makes while another one is active."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, tempfile.TemporaryDirectory(dir="/tmp") as elsewhere:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python, between = Path(folder, "bin", "python"), Path(elsewhere, "python")
        between.symlink_to(Path(sys.executable).resolve())
        python.unlink()
        python.symlink_to(between)
        program = "from course_lib.grading import sandbox; print(sandbox.why_not())"
        environment = {**os.environ, "PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
        done = subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "None", done.stdout + done.stderr


def test_wall_that_gives_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial does not trust that the walls were put up: it pushes against them."""
    original = sandbox.command
    gap = "sandbox._filter_system_calls = lambda: None; sandbox.trial("
    monkeypatch.setattr(
        sandbox, "command", lambda program, *rest: original(program.replace("sandbox.trial(", gap), *rest)
    )
    assert "a player can start a process" in str(sandbox.why_not())


def test_ordinary_user_has_the_same_walls_as_a_superuser(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("this test changes its user, which takes a superuser and setpriv")
    tmp_path.chmod(0o755)
    open_root = ["bwrap", "--dev-bind", "/", "/"]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix, str(LIBRARY.parent))):
        for folder in reversed(Path(prefix).parents):
            if not folder.stat().st_mode & 0o001:  # a home that others cannot pass: they get one that they can
                open_root += ["--perms", "0755", "--tmpfs", str(folder), "--dir", os.path.dirname(prefix)]
                open_root += ["--ro-bind", prefix, prefix]
                break
    program = "from course_lib.grading import sandbox; print(sandbox.is_privileged(), sandbox.why_not())"
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"HOME={tmp_path}"]
    command = [*open_root, "--", *user, f"PYTHONPATH={LIBRARY.parent}", sys.executable, "-c", program]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "setting up uid map" in tried.stdout or "No permissions to creat" in tried.stdout:
        pytest.skip(f"this machine lets ordinary users make no name spaces: {tried.stdout}")
    assert tried.stdout.strip() == "False None", tried.stderr
