"""Pictures of what an optimizer does: paths on surfaces, spectra of updates, sizes of rows and columns."""

from steepest.gallery.balls import draw_balls
from steepest.gallery.portrait import draw_portrait

__all__ = ["draw_balls", "draw_portrait"]
