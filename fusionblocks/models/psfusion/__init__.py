"""PSFusion: progressive semantic injection and scene fidelity."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("psfusion", __name__)
