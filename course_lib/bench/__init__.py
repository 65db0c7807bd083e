"""What a model costs: parameters, bytes, MACs, latency, memory and accuracy, and how honest a saving is."""

from course_lib.bench.compute import ENERGY_PJ, conv2d_cost, energy_microjoules, layer_shapes, macs, roofline_seconds
from course_lib.bench.correct import accuracy, class_changes, predictions, standard_error
from course_lib.bench.cost import Cost, measure, time_together
from course_lib.bench.honesty import honesty
from course_lib.bench.interact import Exploration, Prediction, explore, predict
from course_lib.bench.memory import peak_memory
from course_lib.bench.pareto import TECHNIQUE_COLOURS, TECHNIQUE_MARKERS, pareto_front, plot_pareto
from course_lib.bench.report import Report
from course_lib.bench.size import file_bytes, parameters, saved_bytes, tensor_bytes, zipped_bytes
from course_lib.bench.table import TableError, record, recorded
from course_lib.bench.timing import Latency, interleaved_times, latency, percentile, steady

__all__ = [
    "ENERGY_PJ",
    "TECHNIQUE_COLOURS",
    "TECHNIQUE_MARKERS",
    "Cost",
    "Exploration",
    "Latency",
    "Prediction",
    "Report",
    "TableError",
    "accuracy",
    "class_changes",
    "conv2d_cost",
    "energy_microjoules",
    "explore",
    "file_bytes",
    "honesty",
    "interleaved_times",
    "latency",
    "layer_shapes",
    "macs",
    "measure",
    "parameters",
    "pareto_front",
    "peak_memory",
    "percentile",
    "plot_pareto",
    "predict",
    "predictions",
    "record",
    "recorded",
    "roofline_seconds",
    "saved_bytes",
    "standard_error",
    "steady",
    "tensor_bytes",
    "time_together",
    "zipped_bytes",
]
