"""SGAFusion: adaptive fusion of degraded pictures, guided by CLIP."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("sgafusion", __name__)
