"""Saliency models, chosen by name, and their checkpoints."""

from common.components import MODELS
from models.base import SaliencyModel
from models.checkpoint import load, save
from models.cube_unet import CubeUNet
from models.deploy import deploy
from models.equator_prior import EquatorPrior
from models.predict import predict
from models.sst_sal import SSTSal
from video.spec import Spec

find_model = MODELS.find

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
