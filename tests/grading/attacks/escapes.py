"""Escapes: the network, other processes, the kernel, and the limits themselves."""

from tests.grading.attacks.attack import DIES, HONEST, Attack, refused, total

CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(each) for each in arguments])
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result or "done"
"""


def each_refused(tries: str) -> str:
    """The body of a function that tries expressions, one a line, and returns those that were not refused."""
    lines = ", ".join(f"({line.strip()!r}, lambda: {line.strip()})" for line in tries.strip().splitlines())
    return f"""{CALL}
done = []
for what, attempt in [{lines}]:
    try:
        attempt()
        done.append(what)
    except (OSError, ValueError):
        pass
return done
"""


ATTACKS = [
    refused("network", "a connection to the outside, in all families", """
        import socket
        found = []
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 38, 40):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                try:
                    found.append(str(socket.socket(family, kind)))
                except OSError:
                    pass
        return found
        """),
    refused("names", "a name looked up, and a page fetched", """
        import socket, urllib.request
        try:
            return socket.getaddrinfo("example.org", 80)
        except OSError:
            return urllib.request.urlopen("http://192.0.2.1/", timeout=1)
        """),
    refused("socket-pair-with-an-address", "a pair of sockets, one of which speaks to a name", """
        import socket
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for name in (b"\\0dbus", "/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0"):
            try:
                return one.sendto(b"hello", name)
            except OSError:
                pass
        """),
    refused("program", "a shell", "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 0'])"),
    refused("other-processes", "memory, files and signals of other processes", each_refused("""
        call(101, 0, 0, 0, 0)
        call(101, 16, os.getppid() or 2, 0, 0)
        call(310, 2, 0, 0, 0, 0, 0)
        call(434, 1, 0)
        call(438, 3, 0, 0)
        call(312, 1, 2, 0, 0, 0)
        """)),
    refused("name-spaces", "name spaces of its own, in which it would be a superuser", each_refused("""
        call(272, 0x10000000)
        call(272, 0x10020000)
        call(308, 0, 0)
        call(56, 0x10000011, 0, 0, 0, 0)
        call(435, 0, 88)
        call(161, 0)
        call(165, 0, 0, 0, 0, 0)
        call(166, 0, 0)
        """)),
    refused("memory-that-outlives", "memory that no limit counts", each_refused("""
        call(319, 0, 0)
        call(29, 0, 4096, 0o1666)
        call(68, 0, 0o1666)
        call(64, 0, 1, 0o1666)
        call(240, 0, 0, 0, 0)
        """)),
    refused("kernel-doors", "calls that have had holes", each_refused("""
        call(321, 0, 0, 0)
        call(298, 0, 0, -1, -1, 0)
        call(323, 0)
        call(425, 8, 0)
        call(248, 0, 0, 0, 0, -2)
        call(250, 0, -3, 0)
        call(303, 0, 0, 0, 0, 0)
        """)),
    refused("calls-by-other-numbers", "forbidden calls by the numbers of x32", each_refused("""
        call(0x40000000 + 57)
        call(0x40000000 + 41, 1, 1, 0)
        call(0x40000000 + 520, 0, 0, 0)
        """)),
    Attack("calls-of-32-bits", "a fork by `int 0x80`, which counts calls differently", {"total": "import ctypes, mmap\n"
           + total(r"""
        code = b"\xb8\x02\x00\x00\x00\xcd\x80\xc3"  # mov eax, 2; int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        """)}, flags={"total": DIES}),
    refused("limits", "its limits lifted", """
        import resource
        lifted = []
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE,
                     resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK):
            _, hard = resource.getrlimit(kind)
            try:
                resource.setrlimit(kind, (hard + 1, hard + 1))
                lifted.append(kind)
            except (OSError, ValueError):
                pass
            if hard == resource.RLIM_INFINITY:
                lifted.append(kind)
        return lifted
        """),
    refused("priority", "a higher priority than everybody's", each_refused("""
        os.nice(-5)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.setpriority(os.PRIO_USER, 0, -10)
        call(251, 1, 0, 1 << 13)
        """)),
    refused("another-user", "another user, and privileges", """
        import os
        found = []
        for attempt in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chown("/tmp", 0, 0),
                        lambda: os.mknod("/tmp/memory", 0o20600, os.makedev(1, 1))):
            try:
                attempt()
                found.append("done")
            except OSError:
                pass
        return found if os.getuid() else []
        """),
    Attack("signals-to-all", "signals to its parent, its group and everybody",
           {"total": "import os, signal\n" + total("""
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            for target in (os.getppid(), -1, 0, -os.getpgid(0)):
                try:
                    os.kill(target, number)
                except OSError:
                    pass
        return sum(values)
        """)}, earns=HONEST),
    refused("terminal", "keys typed into the terminal of the grader", """
        import fcntl, os, termios
        found = []
        for name in ("/dev/tty", "/dev/console", "/dev/pts/0", 0, 1, 2):
            try:
                number = name if isinstance(name, int) else os.open(name, os.O_RDWR)
                fcntl.ioctl(number, termios.TIOCSTI, b"x")
                found.append(name)
            except OSError:
                pass
        return found
        """),
    refused("devices", "memory, disks and the clock of the machine", """
        import os, time
        found = [name for name in ("mem", "kmem", "sda", "vda", "kvm", "fuse", "loop0", "nvidia0")
                 if os.path.exists("/dev/" + name)]
        time.clock_settime(time.CLOCK_REALTIME, 0)
        return found + ["the clock"]
        """),
]  # fmt: skip
