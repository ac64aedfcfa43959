"""Opens the file of classifier.rs: python3 classifier_in_torch.py classifier.safetensors"""

import sys

import torch
from safetensors.torch import load_file

net = torch.nn.Sequential()
net.add_module("up", torch.nn.Linear(784, 32))
net.add_module("relu", torch.nn.ReLU())
net.add_module("down", torch.nn.Linear(32, 10))
net.load_state_dict(load_file(sys.argv[1]))  # every name and shape must fit
grey = torch.linspace(0, 1, 784).reshape(1, 784)
print(" ".join(f"{score:.5f}" for score in net(grey)[0].tolist()))
