"""The classical Laplacian pyramid."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("laplacian", __name__)
