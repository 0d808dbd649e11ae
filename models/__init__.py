"""Saliency models, chosen by name, and their checkpoints."""

from models.base import SaliencyModel, Spec
from models.checkpoint import MODELS, load, save
from models.clips import predict
from models.cube_unet import CubeUNet
from models.sst_sal import SSTSal

__all__ = ["MODELS", "CubeUNet", "SSTSal", "SaliencyModel", "Spec", "load", "predict", "save"]
