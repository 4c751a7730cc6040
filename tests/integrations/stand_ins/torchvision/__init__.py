"""Stands in for torchvision, alone, where the one on PyPI does not fit the CPU build of torch.

timm imports names of it for its data sets and transforms; nothing that is tested uses them.
"""
