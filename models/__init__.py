"""Saliency models, chosen by name, and their checkpoints."""

from models.base import SaliencyModel
from models.checkpoint import load, save
from models.cube_unet import CubeUNet
from models.deploy import deploy
from models.equator_prior import EquatorPrior
from models.predict import predict
from models.registry import MODELS, find_model
from models.sst_sal import SSTSal
from video.spec import Spec

__all__ = [
    "MODELS",
    "CubeUNet",
    "EquatorPrior",
    "SSTSal",
    "SaliencyModel",
    "Spec",
    "deploy",
    "find_model",
    "load",
    "predict",
    "save",
]
