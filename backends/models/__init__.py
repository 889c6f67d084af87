"""Model files: where they come from, and whether they are what they should be."""

from .model_file import ModelFile, ModelSettings

__all__ = ["ModelFile", "ModelSettings"]
