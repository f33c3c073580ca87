"""SMFNet: multi-guided fusion by base, detail and graph features."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("smfnet", __name__)
