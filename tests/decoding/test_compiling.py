"""The kernels are compiled on first use; where that fails the engine says why and computes in NumPy."""

import sys

import pytest

from course_lib.decoding import compiling
from course_lib.decoding.compiling import CompilerError, compiled_kernels
from course_lib.decoding.engine import Engine
from course_lib.language.shape import TINY
from course_lib.nets.llama import engine_tensors, tiny_llama


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLFAST_CACHE", str(tmp_path))
    compiling._compiled.cache_clear()
    yield tmp_path
    compiling._compiled.cache_clear()


def no_compiler(name: str) -> None:
    return None


def test_kernels_are_compiled_once_and_kept(empty_cache, monkeypatch):
    unhurried = ["-O0" if option == "-O3" else option for option in compiling._COMMON]  # what they compute, others test
    monkeypatch.setattr(compiling, "_COMMON", tuple(unhurried))
    compiled_kernels("portable")
    [made] = (empty_cache / "kernels").iterdir()
    compiling._compiled.cache_clear()
    monkeypatch.setattr(compiling.subprocess, "run", lambda *_, **__: pytest.fail("compiled a second time"))
    compiled_kernels("portable")
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_without_a_compiler_numpy_computes_and_the_reason_is_told(empty_cache, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiling.shutil, "which", no_compiler)
    engine = Engine.from_tensors(TINY, engine_tensors(tiny_llama()))
    assert engine.kernels == "numpy" and "no C++ compiler" in engine.why_numpy and "Cure" in engine.why_numpy


def test_a_compiler_that_fails_is_quoted_in_one_line(empty_cache, monkeypatch):
    fake = empty_cache / "c++"
    fake.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('fatal error: out of registers')\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(CompilerError, match="out of registers") as failed:
        compiled_kernels()
    assert "\n" not in str(failed.value) and "Cure" in str(failed.value)
    assert not list((empty_cache / "kernels").iterdir())


def test_a_cache_that_cannot_be_written_is_told(empty_cache):
    (empty_cache / "kernels").write_text("a file where the folder should be")
    with pytest.raises(CompilerError, match="SMALLFAST_CACHE"):
        compiled_kernels("portable")


def test_instructions_that_the_processor_lacks_are_refused(monkeypatch):
    monkeypatch.setattr(compiling, "_processor_features", frozenset)
    with pytest.raises(ValueError, match="this processor has"):
        compiled_kernels("avx2")
