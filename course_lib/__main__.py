"""`python -m course_lib`: the `course` command where its script is not on the path."""

import sys

from course_lib.cli import main

sys.exit(main())
