"""Empty classes that timm derives its transforms from."""

from torchvision.transforms import functional  # pyright: ignore


def __getattr__(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


__all__ = ["functional"]
