"""Start with matrices that keep the length of what they read, N(0, 1/inputs), rather than N(0,
0.02²):

smolgpt_train --config assets/ablations/init_wide.py
"""

from smolgpt import model as model_module
from smolgpt.model import init_weights as _init_weights


def _init_wide(model):
    _init_weights(model)
    for name, p in model.named_parameters():
        if name.startswith('blocks.') and p.ndim == 2:
            p.data.normal_(std=p.shape[1] ** -0.5)


model_module.init_weights = _init_wide
