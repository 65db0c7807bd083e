"""The library's own answer, taken by ways that no reading of the cell shows.

The small course's library has a function `kept_total` that calls the exercise's `total`.
"""

import hashlib

from tests.grading.attacks.attack import TAKES, Attack, total, with_deed
from tests.grading.small_course import RIGHT_KEEP

NAME = "''.join(['to', 'tal'])"  # so that no text of the cell names the function


def takes(name: str, tries: str, body: str) -> Attack:
    """An attack that ends in the emptied function of the library."""
    return Attack(name, tries, {"total": total(body)}, flags={"total": TAKES}, says="the library's own total")


def finds_nothing(name: str, tries: str, deed: str, refusals: str = "OSError") -> Attack:
    """An attack that looks for the function's body, returns it if it is there, and answers right by itself."""
    return Attack(name, tries, {"total": with_deed(deed, refusals)}, earns={"total": 2.0})


SCAN = """
import ctypes, hashlib, re
beginning, digest, advise = bytes(BEGINNING), DIGEST, ctypes.CDLL(None).madvise
for line in open("/proc/self/maps").read().splitlines():
    place, rights, _, _, node = line.split()[:5]
    start, end = (int(each, 16) for each in place.split("-"))
    if not rights.startswith("rw") or end - start > 2**28 or "[stack]" in line or node != "0":
        continue
    if advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 0):  # fails on what was given back meanwhile
        continue
    piece = (ctypes.c_char * (end - start)).from_address(start)  # in place: copies would move the end of the heap
    for found in re.finditer(re.escape(beginning), piece):
        rest = piece[found.end():found.end() + 12]
        if hashlib.sha256(rest).hexdigest() == digest:
            return (beginning + rest).decode()
"""


def memory_with(text: str) -> str:
    """The body of a function that looks for `text` in all the memory of its process, without having it itself."""
    beginning, rest = text[:-12].encode(), text[-12:].encode()
    return SCAN.replace("BEGINNING", str(list(beginning))).replace("DIGEST", repr(hashlib.sha256(rest).hexdigest()))


INDENTED_KEEP = RIGHT_KEEP.partition("\n")[2].strip()
ONLY_IN_KEEP_MASK = "fraction must be in [0, 1], got "  # a constant of the library's body, and of nothing else

ATTACKS = [
    takes("by-name", "getattr with a name that is put together", f"return getattr(smalllib, {NAME})(values)"),
    takes("by-importlib", "the module by importlib, the function from its dictionary",
          f"import importlib\nreturn vars(importlib.import_module('smalllib'))[{NAME}](values)"),
    takes("by-sys-modules", "the module from sys.modules", f"import sys\nreturn "
          f"sys.modules['small' + 'lib'].__dict__[{NAME}](values)"),
    takes("by-gc", "the function among all objects there are", f"""
          import gc, types
          for thing in gc.get_objects() + gc.get_referents(vars(smalllib)):
              if type(thing) is types.FunctionType and thing.__name__ == {NAME} and thing.__module__ == "smalllib":
                  return thing(values)
          """),
    takes("by-code", "a new function around the library's code", f"""
          import types
          code = getattr(smalllib, {NAME}).__code__
          return types.FunctionType(code, vars(smalllib))(values)
          """),
    takes("by-partial", "a partial and a cache around it", f"""
          import functools
          return functools.partial(functools.wraps(len)(functools.cache(getattr(smalllib, {NAME}))), tuple(values))()
          """),
    takes("by-pickle", "its name from a pickle", f"""
          import pickle
          return pickle.loads(b"csmalllib\\n" + {NAME}.encode() + b"\\n.")(values)
          """),
    takes("by-another-function", "a function of the library that calls it", "return smalllib.kept_total(values, 0.0)"),
    takes("and-hides-it", "the refusal caught, the traces wiped away", f"""
          import course_lib.grading.player as player
          try:
              return getattr(smalllib, {NAME})(values)
          except BaseException:
              return sum(values)
          """),
    finds_nothing("by-source", "its source, by inspect", f"""
                  import inspect
                  text = inspect.getsource(getattr(smalllib, {NAME}))
                  space = {{}}
                  exec(text, space)
                  return text if "result" in text else ""
                  """),
    finds_nothing("by-linecache", "its source among the lines that Python keeps", """
                  import linecache
                  return [name for name, lines in linecache.cache.items() if "smalllib" in name]
                  """),
    finds_nothing("by-loader", "its source and code from the module's loader",
                  "return smalllib.__loader__.get_source('smalllib') or smalllib.__loader__.get_code('smalllib')",
                  "OSError, ImportError"),
    finds_nothing("by-reload", "the module loaded a second time", """
                  import importlib
                  return importlib.reload(smalllib)
                  """, "OSError, ImportError"),
    finds_nothing("by-files", "the module's files, compiled or not", """
                  import glob, os
                  return glob.glob(os.path.dirname(smalllib.__file__) + "/**", recursive=True)[1:] or [
                      found for place in ("/course", "/srv", "/root", "/tmp", "/home", "/usr/local", "/opt")
                      for found in glob.glob(place + "/**/smalllib*", recursive=True)]
                  """),
    finds_nothing("by-program", "a Python of its own that has the library", """
                  import subprocess, sys
                  return subprocess.run([sys.executable, "-c", "import smalllib"], capture_output=True).stdout
                  """),
    finds_nothing("by-constants", "the constants and names of its code", f"""
                  code = getattr(smalllib, {NAME}).__code__
                  return [name for name in code.co_varnames + code.co_names if name in ("result", "value")]
                  """),
    Attack("by-memory", "a constant of its body in all the memory of the process", {
        "keep_mask": with_deed(memory_with(ONLY_IN_KEEP_MASK), after="    return []")
                     .replace("total(values)", "keep_mask(values, fraction)").replace("return []", INDENTED_KEEP)},
           earns={"keep_mask": 3.0}),
]  # fmt: skip
