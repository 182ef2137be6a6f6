"""Models of a bag of patches and an expression vector."""

from subfuse.model.encoders import GeneEncoder
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig, SubspaceFusionOutput, SubspaceHead

__all__ = ["GeneEncoder", "SubspaceFusion", "SubspaceFusionConfig", "SubspaceFusionOutput", "SubspaceHead"]
