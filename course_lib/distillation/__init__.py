"""Distillation: a small network learns from a large one."""

from course_lib.distillation.hidden_knowledge import (
    attention_loss,
    attention_map,
    features_of,
    hint_loss,
    mutual_losses,
    relational_loss,
    relative_angles,
    relative_distances,
)
from course_lib.distillation.soft_labels import (
    ask_teacher,
    dkd_loss,
    dkd_terms,
    kd_gradient,
    kd_loss,
    resemblance,
    smoothed_labels,
    soften,
)
from course_lib.distillation.transformer import (
    factorise_table,
    hidden_loss,
    layer_map,
    masked_mean,
    score_loss,
    similarity_loss,
)

__all__ = [
    "ask_teacher",
    "attention_loss",
    "attention_map",
    "dkd_loss",
    "dkd_terms",
    "factorise_table",
    "features_of",
    "hidden_loss",
    "hint_loss",
    "kd_gradient",
    "kd_loss",
    "layer_map",
    "masked_mean",
    "mutual_losses",
    "relational_loss",
    "relative_angles",
    "relative_distances",
    "resemblance",
    "score_loss",
    "similarity_loss",
    "smoothed_labels",
    "soften",
]
