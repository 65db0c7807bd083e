"""A process that forks many others moves its memory into large pages, and loses nothing by it."""

import subprocess
import sys

import pytest

PROGRAM = """
from course_lib.grading.large_pages import bytes_in_large_pages, use_large_pages
numbers = [bytearray(str(i).encode() * 200_000) for i in range(60)]
before = bytes_in_large_pages()
use_large_pages()
assert all(number == str(i).encode() * 200_000 for i, number in enumerate(numbers))
print(before, bytes_in_large_pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has this advice")
def test_what_was_written_is_in_large_pages_and_still_the_same():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    if after == before:
        pytest.skip("this system cannot join pages (Linux 6.1 and newer can)")
    assert after > 8 * 2**20
