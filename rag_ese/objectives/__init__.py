"""Training objectives: pure functions of embeddings, one file per paper."""

from rag_ese.objectives.angle import AnglE, AngleDifference, CoSENT, InBatchNegatives, scored_pairs
from rag_ese.objectives.base import BaseLoss, base_loss
from rag_ese.objectives.columns import Columns, LayerColumns
from rag_ese.objectives.info_nce import InfoNCE
from rag_ese.objectives.objective import Objective, objective

__all__ = [
    "AnglE",
    "AngleDifference",
    "BaseLoss",
    "CoSENT",
    "Columns",
    "InBatchNegatives",
    "InfoNCE",
    "LayerColumns",
    "Objective",
    "base_loss",
    "objective",
    "scored_pairs",
]
