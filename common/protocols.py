"""Evaluation protocols of published papers, for scores that compare with theirs."""

from dataclasses import dataclass

WEIGHTINGS = ("sphere", "planar", "sin")  # of pixels, in metrics/protocol.py


@dataclass(frozen=True)
class Published:
    """The clips, frames and ground truth of a paper's scores."""

    weighting: str
    split: str  # with the test clips to score, in datasets/splits.py
    fps: float | None = None  # frames a second to score; None: all
    every: int = 1  # of these, every n-th is scored
    sigma: float | None = None  # of the ground truth's Gaussian in degrees; None: not stated


PUBLISHED = {
    # Bernal-Berdun et al. 2022, on VR-EyeTracking: edurnebernal/SST-Sal, and its issue 2
    "sst_sal": Published("sin", "sst_sal", fps=8, sigma=5),
    # Cokelek et al. 2023, likewise: MertCokelek/SalViT360, configs/dataset_config.yml and utils/
    "salvit360": Published("planar", "cvpr2018", fps=16),
    # Wahba et al. 2026, likewise: LTTM/SalFormer360, dataset.py and metrics.py
    "salformer360": Published("sin", "cvpr2018", every=5),
    # Zhang et al. 2018, as in the published re-implementations
    "eccv2018": Published("planar", "eccv2018", every=5, sigma=9),
    # Xu et al. 2018, head movements of PVS-HMEM: YuhangSong/DHP, dataset_config.py, suppor_lib.py
    "pvs_hm": Published("planar", "pvs_hm", sigma=7),
}
