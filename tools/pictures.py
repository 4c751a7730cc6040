"""Draw docs/assets/gallery/ with the library's own functions.

Every picture of a path uses the best of 21 learning rates, which takes minutes for all methods; the rates
found and the losses they lead to are kept in rates.json. With --check nothing is written: every method is
walked once more at its rate, and the exit code says whether a picture is missing, a loss has changed, or a
file is surplus. --search looks for the rates anew, else only those of methods that have none.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from PIL import Image

from steepest.catalogue import methods
from steepest.gallery import draw_balls, draw_equilibration, draw_paths, draw_portrait, draw_spectra
from steepest.gallery.paths import best_path, walk

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "assets" / "gallery"
RATES = FOLDER / "rates.json"
COMPARED = ("Steepest", "AdamW", "Muon", "ANDI", "MuAdam", "SOAP")
SPECTRA = ("Steepest", "SignSGD", "AdamW", "ANDI", "Muon", "MuAdam", "SOAP", "Shampoo")
STRETCH = (1.0, 2.5)
SLACK = 0.1
"""Relative difference of a loss that another processor or version of torch may make."""


def searched(known: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the best rate and its loss for every method, those known as they are."""
    found = {}
    for name, cls in methods().items():
        if name in known:
            found[name] = known[name]
        else:
            best = best_path(cls)
            found[name] = {"lr": best.lr, "loss": best.loss}
            print(f"{name}: lr {best.lr:.3g}, loss {best.loss:.3g}", flush=True)
    return found


def draw(rates: dict[str, dict[str, float]]) -> None:
    """Write all pictures."""
    known = methods()
    made = [draw_balls(FOLDER / "balls.png"), draw_balls(FOLDER / "balls_stretched.png", STRETCH)]
    made.append(draw_paths({known[name]: rates[name]["lr"] for name in COMPARED}, FOLDER / "paths.png"))
    made.append(draw_spectra([known[name] for name in SPECTRA], FOLDER / "spectra.png"))
    made.append(draw_equilibration(FOLDER / "equilibration.png"))
    made += [draw_portrait(cls, FOLDER / f"{name}.png", rates[name]["lr"]) for name, cls in known.items()]
    for path in made:
        with Image.open(path) as image:  # a third of the size, to the pixel
            image.convert("RGB").save(path.with_suffix(".webp"), lossless=True, quality=100, method=6)
        path.unlink()


def wrong(rates: dict[str, dict[str, float]]) -> list[str]:
    """Return what is missing, changed or surplus, a line each."""
    known = methods()
    wanted = {*known, "balls", "balls_stretched", "paths", "spectra", "equilibration"}
    there = {path.stem for path in FOLDER.glob("*.webp")}
    told = [f"missing: {name}.webp" for name in sorted(wanted - there)]
    told += [f"surplus: {name}.webp" for name in sorted(there - wanted)]
    told += [f"no rate: {name}" for name in sorted(known.keys() - rates.keys())]
    for name, entry in rates.items():
        if name not in known:
            told.append(f"a rate of what is no method: {name}")
        elif not math.isclose(now := walk(known[name], entry["lr"]).loss, entry["loss"], rel_tol=SLACK):
            told.append(f"changed: {name} at lr {entry['lr']:.3g} ends at {now:.4g}, not {entry['loss']:.4g}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something would change")
    parser.add_argument("--search", action="store_true", help="look for all rates anew")
    asked = parser.parse_args()
    rates = json.loads(RATES.read_text()) if RATES.exists() and not asked.search else {}
    if asked.check:
        told = wrong(rates)
        print("\n".join(told) or f"{len(rates)} methods and their pictures are as they were")
        return 1 if told else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    rates = searched(rates)
    RATES.write_text(json.dumps(rates, indent=1) + "\n")
    draw(rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
