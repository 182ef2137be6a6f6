"""Models of a bag of patches and an expression vector."""

from subfuse.model.deformable_attention import position_bias_error
from subfuse.model.gene_encoders import GeneEncoder
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead
from subfuse.model.released_weights import convert_released, unused_names
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig

__all__ = [
    "GeneEncoder",
    "SubspaceFusion",
    "SubspaceFusionConfig",
    "SubspaceFusionOutput",
    "SubspaceHead",
    "convert_released",
    "position_bias_error",
    "unused_names",
]
