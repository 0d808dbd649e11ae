"""A loss of what saliency maps are compared by: their distribution, their pattern, their values."""

from torch import Tensor, nn

from losses.smse import SMSE
from projection import solid_angles

EPSILON = 1e-7  # of a mean density; a float32 sigmoid can reach zero


class DensityLoss(nn.Module):
    """KLD + (1 − CC) / 2 + SMSE on the sphere: (..., 1, H, W) → scalar, mean over maps.

    KLD, in nats, of the truth from the prediction, both as densities with integral 1, and CC,
    Pearson's correlation, are weighted with exact solid angles and blind to the prediction's
    scale, which SMSE pins down. Networks for flat pictures are trained on such sums, of what
    they are then scored by (for example S. Jia, N. Bruce: EML-NET, Image and Vision Computing
    2020).
    Prediction and target are not negative; a target is not constant.
    """

    summed = False

    def __init__(self):
        super().__init__()
        self.smse = SMSE()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        smse = self.smse(pred, target)
        pred, target = (t if t.dtype.itemsize > 4 else t.float() for t in (pred, target))
        height, width = pred.shape[-2:]
        share = solid_angles(height, width, pred.dtype).to(pred.device)
        share = share / (share.sum() * width)

        def mean(maps: Tensor) -> Tensor:
            return (maps * share).sum((-2, -1), keepdim=True)

        p = pred / (mean(pred) + EPSILON)
        q = target / (mean(target) + EPSILON)
        kld = mean(q * ((q + EPSILON) / (p + EPSILON)).log())
        p, q = p - mean(p), q - mean(q)
        cc = mean(p * q) * (mean(p * p) * mean(q * q) + EPSILON).rsqrt()
        return (kld + (1 - cc) / 2).mean() + smse
