"""nbgrader's feedback page for one student, without what stays with the instructor."""

from typing import Any

from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade

from course_lib.authoring.lesson import BEGIN_HIDDEN, END_HIDDEN


class HideHiddenTests(NbGraderPreprocessor):
    """Takes hidden tests out of the check cells, and shortens their tracebacks, which quote them, to the last line."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        if cell.cell_type == "code" and is_grade(cell):
            before, begun, rest = cell.source.partition(BEGIN_HIDDEN)
            if begun:
                cell.source = before.rstrip() + rest.partition(END_HIDDEN)[2]
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources
