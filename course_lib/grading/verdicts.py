"""The referee's verdicts in an nbgrader notebook, as if its check cells had run: nbgrader's own steps do the rest."""

from typing import Any

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade
from traitlets import Dict


class PutVerdicts(NbGraderPreprocessor):
    """Gives every check cell the output that its verdict stands for: none where it passed, an error where it failed.

    nbgrader scores a check cell by its outputs. No cell is run for it.
    """

    verdicts = Dict(help="lesson -> grade_id of a check -> its message, None where it passed").tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Put in the verdicts on one notebook."""
        verdicts = self.verdicts.get(resources["unique_key"], {})
        for cell in nb.cells:
            if cell.cell_type == "code" and is_grade(cell) and not cell.metadata.nbgrader["solution"]:
                message = verdicts.get(cell.metadata.nbgrader["grade_id"], "Not graded.")
                cell.outputs, cell.execution_count = [], 1
                if message is not None:
                    said = message or "Not started."
                    error = {"ename": "CheckFailed", "evalue": said, "traceback": [said]}
                    cell.outputs.append(new_output("error", **error))
        return nb, resources
