"""What a type checker must find wrong: one mistake on every line marked with its rule."""

import torch

import steepest

weights = [torch.nn.Parameter(torch.ones(2, 2))]

steepest.Moun(weights)  # reportAttributeAccessIssue
steepest.ANDI(weights, learning_rate=0.1)  # reportCallIssue
steepest.ANDI(weights, lr="large")  # reportArgumentType
steepest.ANDI(weights, mixing="sideways")  # reportArgumentType
steepest.Muon(weights, 0.02, 0.95)  # reportCallIssue
steepest.Steepest(weights, lr=1e-3, norm=steepest.EMA(0.9))  # reportArgumentType
found = steepest.EMA(0.9).beta2  # reportAttributeAccessIssue
steepest.suggest_lr("Muon")  # reportCallIssue
