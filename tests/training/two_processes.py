"""Run by torchrun in test_gradient_cache: each process has some chunks, and process 0 writes the summed gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))

from test_gradient_cache import gradients, network

from rag_ese.training.gradient_cache import sum_gradients
from rag_ese.training.trainer import join_processes

join_processes()
net = network()
gradients(net, [5, 4, 3], cached=False)  # with several processes the cache is always used
sum_gradients(list(net.parameters()))
if dist.get_rank() == 0:
    torch.save([parameter.grad for parameter in net.parameters()], sys.argv[1])
dist.destroy_process_group()
