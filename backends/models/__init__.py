"""Model files: where they come from, whether they are what they should be, and the store of those that were fetched."""

from .folder import store_folder
from .model_file import ModelFile, ModelSettings

__all__ = ["ModelFile", "ModelSettings", "store_folder"]
