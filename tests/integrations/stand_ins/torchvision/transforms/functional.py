"""Names of interpolations, which timm keys a table with."""

from enum import Enum

InterpolationMode = Enum("InterpolationMode", "NEAREST BILINEAR BICUBIC BOX HAMMING LANCZOS")
