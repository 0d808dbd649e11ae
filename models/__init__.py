"""Saliency models, chosen by name, and their checkpoints."""

from models.base import SaliencyModel, Spec
from models.checkpoint import MODELS, load, save
from models.clips import predict
from models.cube_unet import CubeUNet

__all__ = ["MODELS", "CubeUNet", "SaliencyModel", "Spec", "load", "predict", "save"]
