"""Pictures of what an optimizer does: paths on surfaces, spectra of updates, sizes of rows and columns."""

from steepest.gallery.balls import draw_balls
from steepest.gallery.comparison import draw_paths, draw_spectra
from steepest.gallery.maps import draw_equilibration
from steepest.gallery.portrait import draw_portrait

__all__ = ["draw_balls", "draw_equilibration", "draw_paths", "draw_portrait", "draw_spectra"]
