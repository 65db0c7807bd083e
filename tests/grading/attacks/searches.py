"""Searches for what a player should not see: the checks, the bank, the class, the machine.

Where a path of this run is needed, `{outside}` stands for a folder that holds a gradebook, other submissions and a key.
"""

from tests.grading.attacks.attack import Attack, refused, with_deed
from tests.grading.attacks.library_answers import INDENTED_KEEP, memory_with

ONLY_IN_HIDDEN_CHECK = "A hidden check counts the survivors"

ATTACKS = [
    refused("frames", "the frames of all threads, outwards, for a check and its variables", """
        import sys
        for frame in sys._current_frames().values():
            while frame:
                if "<check>" in frame.f_code.co_filename or "seed" in frame.f_locals:
                    return frame.f_code
                frame = frame.f_back
        """),
    refused("objects", "all objects that Python knows, for the checks' code or the answer bank", """
        import gc, types
        known = ("kept_total(values, " + "1.0)", "right_by_" + "rank", "wrong_" + "signed")
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType) and thing.__code__.co_filename in ("<check>",):
                return thing
            if type(thing) is dict and any(type(each) is str and any(k in each for k in known)
                                           for each in thing.values() if each is not __import__("sys").modules):
                texts = [each for each in thing.values() if type(each) is str and any(k in each for k in known)]
                return texts[0][:80]
        """),
    Attack("memory", "the text of a hidden check in all the memory of the process", {
        "keep_mask": with_deed(memory_with(ONLY_IN_HIDDEN_CHECK), after="    return []")
                     .replace("total(values)", "keep_mask(values, fraction)").replace("return []", INDENTED_KEEP)},
           earns={"keep_mask": 3.0}),
    refused("course-files", "lessons, notebooks and answer banks anywhere on the disk", """
        import os
        for folder, folders, files in os.walk("/"):
            folders[:] = [each for each in folders if each not in ("proc", "sys", "usr", "site-packages", "dev")]
            for name in files:
                if name.endswith((".ipynb", ".db", ".csv")) or "keeping" in name or "pruning" in name:
                    return os.path.join(folder, name)
        """),
    refused("class-files", "the gradebook, another student's notebook and a key, by their paths", """
        import os
        return [name for name in ("gradebook.db", "submitted/ann/01_demo/01_keeping.ipynb", ".ssh/id_ed25519")
                if os.path.exists(os.path.join({outside!r}, name)) or open(os.path.join({outside!r}, name)).read()]
        """),
    refused("class-files-written", "a gradebook with full marks, and a lesson without checks", """
        import os
        for name in ("gradebook.db", "submitted/ann/01_demo/01_keeping.ipynb"):
            open(os.path.join({outside!r}, name), "r+").write("full marks")
        return "written"
        """),
    refused("library-files-written", "the library, Python's packages and the start of every Python", """
        import os, site, sys
        done = []
        for place in (os.path.dirname(smalllib.__file__), *sys.path[1:], sys.prefix, os.path.dirname(os.__file__)):
            for name in ("sitecustomize.py", "usercustomize.py", "torch.py", "mine.pth"):
                try:
                    with open(os.path.join(place, name), "w") as file:
                        file.write("raise SystemExit")
                    done.append(file.name)
                except OSError:
                    pass
        return done
        """),
    refused("accounts", "accounts, passwords and home folders of the machine", """
        import os, pwd
        found = [path for path in ("/etc/passwd", "/etc/shadow", "/etc/hosts", "/root/.ssh", "/var/log", "/run")
                 if os.path.exists(path)]
        return found + os.listdir("/home")
        """),
    refused("environment", "secrets in the environment of the grader", """
        import os
        known = {"HOME", "LANG", "MKL_NUM_THREADS", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "PATH", "PWD",
                 "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "LC_CTYPE"}
        given = open("/proc/self/environ", "rb").read().decode().split("\\0")
        return [each for each in [*os.environ, *(line.partition("=")[0] for line in given if line)]
                if each not in known and not each.startswith(("KMP_", "TORCH"))]
        """),
    refused("processes", "other processes: their command lines, their memory, their files", """
        import os
        own = (str(os.getpid()), "self", "thread-self")
        found = [name for name in os.listdir("/proc") if name not in own]
        for number in set(range(2, 400)) - set(map(int, os.listdir("/proc/self/task"))):
            try:
                found.append(open(f"/proc/{number}/cmdline").read())
            except OSError:
                pass
        return found
        """),
    refused("inherited-files", "open files of whoever started the process", """
        import os, socket, stat
        found = []
        for number in range(1024):
            try:
                mode = os.fstat(number).st_mode
            except OSError:
                continue
            if not stat.S_ISSOCK(mode) and os.readlink(f"/proc/self/fd/{number}") != "/dev/null":
                found.append(number)
        return found
        """),
    refused("kernel-settings", "the kernel's settings, by which a program could be run outside", """
        import os
        found = []
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe",
                     "/sys/kernel/uevent_helper", "/proc/sys/vm/drop_caches", "/proc/kcore"):
            try:
                os.close(os.open(path, os.O_WRONLY))
                found.append(path)
            except OSError:
                pass
        return found
        """),
    Attack("notes-for-others", "a note left by one answer wherever it can write, and read by the next", {
        "keep_mask": """
import os
for place in ("/", "/tmp", "/dev", "/dev/shm", "/home", "/fonts", "/course", "/usr/lib", "/var/tmp", "/proc", "/run"):
    try:
        with open(os.path.join(place, "note"), "w") as file:
            file.write("the answer")
    except OSError:
        pass

def keep_mask(values, fraction):
    return []
""",
        "total": with_deed("""
import os
places = ("/", "/tmp", "/dev", "/dev/shm", "/home", "/fonts", "/course", "/usr/lib", "/var/tmp", "/proc", "/run")
return [place for place in places if os.path.exists(os.path.join(place, "note"))]
""")}, earns={"total": 2.0}),
    refused("links", "symbolic links from its own folder to the machine's", """
        import os
        os.symlink({outside!r}, "/tmp/link")
        os.symlink("/proc/1/root", "/tmp/root")
        return os.listdir("/tmp/link") + [name for name in os.listdir("/tmp/root") if name == "var"]
        """),
    refused("shadow-modules", "modules named like torch and math beside the notebook", """
        import importlib, sys
        for name in ("torch", "math", "json", "smalllib", "sitecustomize"):
            with open(f"/tmp/{name}.py", "w") as file:
                file.write("raise SystemExit(0)")
        sys.path.insert(0, "/tmp")
        """),
]  # fmt: skip
