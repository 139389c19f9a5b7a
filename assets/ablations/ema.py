"""Save and score an average of the last hundred steps' weights (EMA) in place of the weights
themselves:

smolgpt_train --config assets/ablations/ema.py
"""

from smolgpt import runs
from smolgpt.trainer import Trainer as _Trainer

_average = {}
_take_step = _Trainer.take_step
_validate = _Trainer.validate
_save_weights = runs.save_weights


def _take_step_and_average(self):
    out = _take_step(self)
    for name, p in self.model.named_parameters():
        if name in _average:
            _average[name].lerp_(p.detach(), 0.01)
        else:
            _average[name] = p.detach().clone()
    return out


def _with_average(f, model, *args):
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        for name, p in model.named_parameters():
            p.data.copy_(_average[name])
        return f(*args)
    finally:
        for name, p in model.named_parameters():
            p.data.copy_(kept[name])


_Trainer.take_step = _take_step_and_average
_Trainer.validate = lambda self: _with_average(_validate, self.model, self)
runs.save_weights = lambda model, folder: _with_average(_save_weights, model, model, folder)
