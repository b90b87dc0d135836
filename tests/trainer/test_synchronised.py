"""Batch norm and class counts across processes are those of one process that holds all their batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainer.networks.synchronised import SynchronisedBatchNorm, normalised_over_processes, sum_over_processes

SHARE = """
import sys, torch
import torch.distributed as dist
from trainer.batch import IGNORE
from trainer.networks.spade import SpadeBlock
from trainer.networks.synchronised import SynchronisedBatchNorm, refresh_statistics, sum_over_processes, world
from trainer.semantic_losses import class_weights, segmentation

dist.init_process_group("gloo")
rank = dist.get_rank()
given = torch.load(sys.argv[1], weights_only=True)
own = slice(0, 3) if rank == 0 else slice(3, 5)  # batches of unequal length

norm = SynchronisedBatchNorm(4)
features = given["features"][own].clone().requires_grad_()
answers = []
for _ in range(2):
    answers.append(norm(features))
(answers[-1] * given["towards"][own]).sum().backward()

block = SpadeBlock(4, 6, condition=2, hidden=4, norm="batch")
block.load_state_dict(given["block"])
(block(given["features"][own], given["condition"][own]) * given["wide"][own]).sum().backward()

values = torch.tensor([1.0 + rank], requires_grad=True)
((rank + 1) * sum_over_processes(values) ** 2).sum().backward()

if rank == 0:  # the first process alone, as when it evaluates
    refresh_statistics(block, [(given["features"], given["condition"])])
torch.save(
    {
        "world": torch.tensor(world()),
        "answer": answers[-1].detach(),
        "gradient": features.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "tracked": norm.num_batches_tracked,
        "block": {name: parameter.grad for name, parameter in block.named_parameters()},
        "sum": values.grad,
        "weights": class_weights(given["label"][own], 4),
        "void": class_weights(torch.full((1, 2, 2), IGNORE if rank else 1), 4),
    },
    f"{sys.argv[2]}/rank-{rank}.pt",
)
dist.destroy_process_group()
"""


def test_one_process_takes_the_statistics_of_torch_s_batch_norm() -> None:
    torch.manual_seed(0)
    features = (torch.randn(3, 4, 5, 6) * 2 + 1000).requires_grad_()  # far from zero: a mean of squares would lose all digits
    other = features.detach().clone().requires_grad_()
    torch_s, towards = nn.BatchNorm2d(4, affine=False), torch.randn(3, 4, 5, 6)
    normalised, mean, variance = normalised_over_processes(features, eps=torch_s.eps)
    expected = torch_s(other)
    (normalised * towards).sum().backward()
    (expected * towards).sum().backward()
    assert torch.allclose(normalised, expected, atol=1e-4)
    assert features.grad is not None
    assert torch.allclose(features.grad, other.grad, atol=1e-4)
    assert torch_s.running_mean is not None
    assert torch_s.running_var is not None
    assert torch.allclose(0.1 * mean, torch_s.running_mean, rtol=1e-5)
    assert torch.allclose(0.9 + 0.1 * variance, torch_s.running_var, rtol=1e-4)
    bf16 = features.detach().bfloat16()
    assert normalised_over_processes(bf16, eps=1e-5)[0].dtype == torch.bfloat16


def test_alone_nothing_is_summed_and_batch_norm_is_torch_s() -> None:
    values = torch.randn(3)
    assert sum_over_processes(values) is values
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 3)
    ours, torch_s = SynchronisedBatchNorm(4), nn.BatchNorm2d(4, affine=False)
    assert torch.equal(ours(features), torch_s(features))
    assert torch.equal(ours.eval()(features), torch_s.eval()(features))
    assert ours.state_dict().keys() == torch_s.state_dict().keys()


@pytest.mark.slow
def test_two_processes_normalise_and_weigh_as_one_with_both_their_batches(tmp_path: Path) -> None:
    from trainer.batch import IGNORE
    from trainer.networks.spade import SpadeBlock
    from trainer.semantic_losses import class_weights

    torch.manual_seed(0)
    block = SpadeBlock(4, 6, condition=2, hidden=4, norm="batch")
    for parameter in block.parameters():  # SPADE's heads start near zero
        nn.init.normal_(parameter, std=0.5)
    label = torch.randint(0, 3, (5, 4, 4))
    label[:3][label[:3] == 2] = IGNORE  # a class that the first process does not hold
    given = {
        "features": torch.randn(5, 4, 6, 8) * 3 + 2,
        "towards": torch.randn(5, 4, 6, 8),
        "condition": torch.rand(5, 2, 6, 8),
        "wide": torch.randn(5, 6, 6, 8),
        "block": block.state_dict(),
        "label": label,
    }
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "share.py").write_text(SHARE)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + [str(tmp_path / each) for each in ("share.py", "given.pt", "")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["world"] == 2

    torch_s = nn.BatchNorm2d(4, affine=False)
    features = given["features"].clone().requires_grad_()
    torch_s(features)
    expected = torch_s(features)
    (expected * given["towards"]).sum().backward()
    assert torch.allclose(torch.cat([first["answer"], second["answer"]]), expected, atol=1e-5)
    assert features.grad is not None
    assert torch.allclose(torch.cat([first["gradient"], second["gradient"]]), features.grad, atol=1e-5)
    assert torch_s.running_mean is not None
    assert torch_s.running_var is not None
    for each in (first, second):
        assert torch.allclose(each["mean"], torch_s.running_mean, atol=1e-6)
        assert torch.allclose(each["variance"], torch_s.running_var, atol=1e-5)
        assert each["tracked"] == 2

    (block(given["features"], given["condition"]) * given["wide"]).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(first["block"][name] + second["block"][name], parameter.grad, rtol=1e-3, atol=1e-3), name

    # d/dv of 1 s^2 + 2 s^2 with s = v_0 + v_1 = 3
    assert first["sum"].item() == second["sum"].item() == 18
    weights = class_weights(label, 4)
    assert torch.equal(first["weights"], weights)
    assert torch.equal(second["weights"], weights)
    assert weights.count_nonzero() == 3
    assert first["void"].tolist() == second["void"].tolist() == [0, 2, 0, 0]
