"""May momentum be dropped here? Two settings of one network on real images, with opposite answers.

    python examples/diagnose_your_run.py
    sdetools diagnose examples/diagnose_your_run.py --lr 0.01 --batch-size 32

The second line reads `model`, `loss` and `data` from this file.
"""

import torch
from sklearn.datasets import load_digits

import sdetools as st

digits = load_digits()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
loss = torch.nn.functional.cross_entropy
data = torch.as_tensor(digits.data / 16, dtype=torch.float32), torch.as_tensor(digits.target)

if __name__ == "__main__":
    for lr in (0.003, 0.2):
        print(f"lr = {lr}, momentum 0.9")
        print(st.bridge.diagnose(model, loss, data, lr=lr, momentum=0.9, batch_size=32), end="\n\n")
