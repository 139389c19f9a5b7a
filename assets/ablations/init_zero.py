"""Start with every block silent: the matrices that write to the stream are zero:

smolgpt_train --config assets/ablations/init_zero.py
"""

from smolgpt import model as model_module
from smolgpt.model import init_weights as _init_weights


def _init_zero(model):
    _init_weights(model)
    for name, p in model.named_parameters():
        if name.endswith(('proj.weight', 'down.weight')):
            p.data.zero_()


model_module.init_weights = _init_zero
