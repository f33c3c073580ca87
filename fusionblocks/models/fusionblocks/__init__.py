"""This library's own network, and its weights."""

from fusionblocks.models.networks import lazily

__getattr__, __dir__ = lazily("fusionblocks", __name__)
