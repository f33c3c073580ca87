"""SGDFuse: a first fusion, refined by a diffusion network that segmentation masks guide."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("sgdfuse", __name__)
