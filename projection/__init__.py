"""The coordinate convention of this project: the position of every pixel on the sphere.

Equirectangular image of H rows and W columns
    The centre of pixel (i, j) is at latitude φ = π/2 − (i + ½)·π/H and longitude
    λ = (j + ½)·2π/W − π. Row 0 touches the north pole, the middle of the image looks
    straight ahead (φ = λ = 0), longitude grows to the right and wraps at ±180°.
    Beyond a pole the image continues half a turn away: row −1 is row 0 at λ + π.

Directions
    (x, y, z) = (cos φ sin λ, sin φ, cos φ cos λ): x right, y up, z forward.

Cube faces of S×S pixels
    90° each, seen from inside, pixel centres at (k + ½)/S of the edge; with u to the right
    and v downwards in [−1, 1]. The order is that of `Face`: back, bottom, front, left,
    right, top. `FACE_AXES` in cubemap.py holds their axes. Unfolded, with "up" upwards:

                 ┌───────┐
                 │  top  │           back   (−u, −v, −1)     left   (−1, −v,  u)
                 │   5   │           bottom ( u, −1, −v)     right  ( 1, −v, −u)
         ┌───────┼───────┼───────┬───────┐   front  ( u, −v,  1)     top    ( u,  1,  v)
         │ left  │ front │ right │ back  │
         │   3   │   2   │   4   │   0   │
         └───────┼───────┼───────┴───────┘
                 │bottom │
                 │   1   │
                 └───────┘

    A batch of faces is (B·6, C, S, S), the six faces of one image together, so that plain
    2D layers apply to it.

Views of h×w pixels
    The image of an ideal camera at the centre of the sphere. The camera is turned to the right by
    yaw, then up by pitch, then clockwise by roll, in degrees: the centre of the view is at
    longitude yaw and latitude pitch, and its upper edge leans to the right. With u to the right
    and v downwards in [−1, 1] and pixel centres as in cube faces, the directions before rotation
    are (u·tan(fov/2), −v·tan(fov/2)·h/w, 1), where fov is the horizontal field of view.
"""

from projection.cube_pad import CubePadding
from projection.cubemap import Cube2Equi, Equi2Cube, Face
from projection.sphere import angles_of, direction_of, directions, solid_angles

__all__ = [
    "Cube2Equi",
    "CubePadding",
    "Equi2Cube",
    "Face",
    "angles_of",
    "direction_of",
    "directions",
    "solid_angles",
]
