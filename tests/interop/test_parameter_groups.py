"""PyTorch's param_groups: whose state is whose, hyperparameters by path, and what disagrees."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core import interop
from jaxopt_core.interop.kinds import KINDS
from tests.interop.closeness import assert_close, assert_same
from tests.interop.problem import Problem, run_ours
from tests.interop.torch_runs import Run

NAMES = ["stem.weight", "stem.bias", "norm.weight", "norm.bias", "head.0.weight", "head.0.bias"]
WEIGHTS = ["stem.weight", "head.0.weight"]
OTHERS = ["stem.bias", "norm.weight", "norm.bias", "head.0.bias"]
GROUPS = [(WEIGHTS, {"weight_decay": 0.1}), (OTHERS, {"weight_decay": 0.0, "lr": 0.02, "betas": (0.8, 0.99)})]


def trained(groups: Any = None, named: bool = False, dtype: str = "float32") -> tuple[Problem, Run, Any, Any]:
    problem = Problem(NAMES, dtype)
    run = Run("AdamW", problem.start, {"lr": 0.01}, groups=groups, named=named)
    run.steps(problem.gradients, range(5))
    params = problem.tree(run.params())
    return problem, run, params, interop.make_layout(params, problem.shapes())


@pytest.mark.usefixtures("x64")
def test_the_whole_optimizer_comes_out_of_the_checkpoint() -> None:
    problem, run, params, layout = trained(GROUPS, dtype="float64")
    checkpoint = run.state_dict()
    tx, state = interop.from_torch_optimizer(checkpoint, layout, params, kind="AdamW")
    assert tx.hyperparams.arguments["weight_decay"] == jo.by_path({"(^|/)(kernel)$": 0.1}, default=0.0)
    assert_same(interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint), checkpoint)
    params, state = run_ours(problem, tx, params, state, range(5, 25))
    run.steps(problem.gradients, range(5, 25))
    assert_close(interop.params_to_torch(params, layout), run.params(), 1e-12)
    back = interop.optimizer_to_torch(tx, state, layout, params)
    assert [group["param_names"] for group in back["param_groups"]] == [WEIGHTS, OTHERS]
    alone = run.state_dict()
    for group, names in zip(alone["param_groups"], (WEIGHTS, OTHERS), strict=True):
        group["param_names"] = names
    assert_close(back, alone, 1e-12)
    Run("AdamW", problem.start, groups=GROUPS).load(back).steps(problem.gradients, range(3))


def test_names_in_the_checkpoint_decide() -> None:
    # Reversed, which no order could tell.
    groups = [(OTHERS[::-1], {"weight_decay": 0.0}), (WEIGHTS[::-1], {"weight_decay": 0.1})]
    _, run, params, layout = trained(groups, named=True)
    checkpoint = run.state_dict()
    tx, state = interop.from_torch_optimizer(checkpoint, layout, params, kind="torch.optim.AdamW")
    np.testing.assert_array_equal(state.slots["exp_avg"]["norm"]["scale"], checkpoint["state"][2]["exp_avg"])
    assert_same(interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint), checkpoint)
    for group in checkpoint["param_groups"]:
        group["param_names"] = [f"module.{name}" for name in group["param_names"]]
    again = interop.optimizer_from_torch(tx, checkpoint, layout, params)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_groups_that_shapes_do_not_tell_apart_are_told_by_hyperparameters_or_by_the_caller() -> None:
    groups = [(["stem.bias", "norm.bias"], {"weight_decay": 0.2}), (["norm.weight"], {"weight_decay": 0.1})]
    problem = Problem(["stem.bias", "norm.weight", "norm.bias"], "float32")
    run = Run("AdamW", problem.start, groups=groups).steps(problem.gradients, range(5))
    params, checkpoint = problem.tree(run.params()), run.state_dict()
    layout = interop.make_layout(params, problem.shapes())
    with pytest.raises(ValueError, match="do not tell which parameter is in which"):
        interop.from_torch_optimizer(checkpoint, layout, params, "AdamW")
    tx = jo.adamw(weight_decay=jo.by_path({"scale$": 0.1}, default=0.2))
    state = interop.optimizer_from_torch(tx, checkpoint, layout, params)
    np.testing.assert_array_equal(state.slots["exp_avg"]["norm"]["scale"], checkpoint["state"][2]["exp_avg"])
    names = [names for names, _ in groups]
    _, same = interop.from_torch_optimizer(checkpoint, layout, params, "AdamW", names=names)
    jax.tree.map(np.testing.assert_array_equal, same.slots, state.slots)
    with pytest.raises(ValueError, match="names has 2 names; the optimizer has 3"):
        interop.from_torch_optimizer(checkpoint, layout, params, "AdamW", names=["stem.bias", "norm.bias"])
    with pytest.raises(
        interop.LayoutError, match=r"'norm\.bais' is not one of params\n.*no parameter 'norm\.bias'"
    ):
        interop.from_torch_optimizer(
            checkpoint, layout, params, "AdamW", names=["stem.bias", "norm.bais", "norm.weight"]
        )


def test_frozen_parameters() -> None:
    names = ["stem.weight", "head.0.weight"]
    problem = Problem(NAMES, "float32")
    run = Run("AdamW", {name: problem.start[name] for name in names})
    run.steps(Problem(names, "float32").gradients, range(5))
    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    with pytest.raises(ValueError, match=r"optimizer has 2 parameters, and params has 6\. Put None"):
        interop.optimizer_from_torch(jo.adamw(), run.state_dict(), layout, params)
    kernels = {
        "stem": {"kernel": params["stem"]["kernel"], "bias": None},
        "norm": {"scale": None, "bias": None},
        "head": [{"kernel": params["head"][0]["kernel"], "bias": None}],
    }
    tx, state = interop.from_torch_optimizer(run.state_dict(), layout, kernels, "AdamW")
    assert state.slots["exp_avg"]["norm"]["scale"] is None
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, kernels, like=run.state_dict()), run.state_dict()
    )


def test_everything_that_disagrees_is_named_at_once() -> None:
    _, run, params, layout = trained(GROUPS)
    checkpoint = run.state_dict()
    checkpoint["state"][0]["exp_avg"] = checkpoint["state"][0]["exp_avg"].astype(np.float64)
    checkpoint["state"][2]["surprise"] = np.ones(4, np.float32)
    tx = jo.adamw(
        betas=(0.9, 0.99), eps=1e-6, weight_decay=jo.by_path({"kernel$": 0.1}, default=0.0), maximize=True
    )
    with pytest.raises(interop.LayoutError) as caught:
        interop.optimizer_from_torch(tx, checkpoint, layout, params)
    assert caught.value.problems == (
        "slot 'exp_avg' of 'stem/kernel' is float32, as the parameter is; PyTorch's is float64. Cast the "
        "one or the other first",
        "'stem/bias': compared with tx, which is AdamW, the checkpoint has surprise. It was made by another "
        "optimizer, or with other arguments",
        "lr: tx has one value for parameters that have several in the checkpoint: 0.01 for 'stem/kernel', "
        "'head/0/kernel'; 0.02 for 'stem/bias', 'norm/scale', 'norm/bias' and 1 more. Construct tx with "
        "lr=by_path(...), or use from_torch_optimizer",
        "betas[0] of 'stem/bias', 'norm/scale', 'norm/bias' and 1 more: tx has 0.9, the checkpoint 0.8",
        "betas[1] of 'stem/kernel', 'head/0/kernel': tx has 0.99, the checkpoint 0.999",
        "eps of 'stem/kernel', 'head/0/kernel', 'stem/bias' and 3 more: tx has 1e-06, the checkpoint "
        "1e-08. Construct tx with eps=1e-08",
        "maximize of 'stem/kernel', 'head/0/kernel', 'stem/bias' and 3 more: tx has True, the checkpoint "
        "False. Construct tx with maximize=False",
    )
    with pytest.raises(
        interop.LayoutError, match=r"decoupled_weight_decay of .*: tx has False, the checkpoint True"
    ):
        interop.optimizer_from_torch(jo.adam(weight_decay=0.01), trained()[1].state_dict(), layout, params)
    with pytest.raises(interop.LayoutError, match="the checkpoint lacks max_exp_avg_sq"):
        interop.optimizer_from_torch(jo.adamw(amsgrad=True), trained()[1].state_dict(), layout, params)
    broken = trained()[1].state_dict()
    del broken["state"][0]["step"]
    broken["state"][1]["exp_avg"] = np.ones(3, np.float32)
    with pytest.raises(interop.LayoutError) as caught:
        interop.optimizer_from_torch(jo.adamw(), broken, layout, params)
    assert caught.value.problems == (
        "slot 'exp_avg' of 'stem.bias' has shape (3,), expected (4,)",
        "the state of 'stem/kernel' has no step",
    )
    with pytest.raises(TypeError, match="found 'model', 'optimizer'"):
        interop.optimizer_from_torch(tx, {"model": {}, "optimizer": checkpoint}, layout, params)
    with pytest.raises(ValueError, match="kind 'AdamX' is none of"):
        interop.from_torch_optimizer(checkpoint, layout, params, "AdamX")
    without_order = interop.make_layout(params)
    with pytest.raises(ValueError, match="knows the order of PyTorch's parameters"):
        interop.optimizer_from_torch(jo.adamw(), checkpoint, without_order, params)


def test_what_can_change_is_set() -> None:
    _, run, params, layout = trained([(NAMES, {"lr": 0.07, "betas": (0.5, 0.999)})])
    tx = jo.adamw(betas=(jnp.asarray(0.9), 0.999))
    state = interop.optimizer_from_torch(tx, run.state_dict(), layout, params)
    np.testing.assert_array_equal(state.hyperparams["lr"], np.float32(0.07))
    np.testing.assert_array_equal(state.hyperparams["betas"][0], 0.5)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    # 0.07 is no float32: without the original, the shortest number that rounds to it is written.
    assert interop.optimizer_to_torch(tx, state, layout, params)["param_groups"][0]["lr"] == 0.07
    changed = jo.set_hyperparams(state, lr=0.5)
    (group,) = interop.optimizer_to_torch(tx, changed, layout, params, like=run.state_dict())["param_groups"]
    assert group["lr"] == 0.5


def test_a_momentum_that_may_start_late() -> None:
    problem = Problem(["stem.bias", "norm.bias"], "float32", without=lambda time, name: name == "norm.bias")
    run = Run("SGD", problem.start, {"momentum": 0.9, "dampening": 0.5}).steps(problem.gradients, range(3))
    params = problem.tree(run.params())
    layout = interop.make_layout(params, problem.shapes())
    tx = jo.sgd(momentum=jnp.asarray(0.9), dampening=0.5)
    state = interop.optimizer_from_torch(tx, run.state_dict(), layout, params)
    assert [bool(leaf) for leaf in jax.tree.leaves(state.slots["momentum_buffer_set"])] == [False, True]
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, params, like=run.state_dict()), run.state_dict()
    )
    old = run.state_dict()
    old["state"][1] = {"momentum_buffer": None}  # as PyTorch before 2.0 wrote it
    for key in ("maximize", "foreach", "differentiable", "fused"):
        del old["param_groups"][0][key]
    again = interop.optimizer_from_torch(tx, old, layout, params)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_every_optimizers_group_has_pytorchs_keys() -> None:
    for kind, constructor in KINDS.items():
        names = ["embed.weight"]
        problem = Problem(names, "float32")
        run = Run(kind, problem.start, named=kind != "LBFGS")
        params = problem.tree(problem.start)
        layout = interop.make_layout(params, problem.shapes())
        tx = constructor()
        (ours,) = interop.optimizer_to_torch(tx, tx.init(params), layout, params)["param_groups"]
        (theirs,) = copy.deepcopy(run.state_dict()["param_groups"])
        theirs["param_names"] = names
        if kind != "SGD":  # whose default rate in PyTorch is the same
            assert theirs["lr"] == ours["lr"], kind
        assert ours == theirs, kind


def test_bfloat16_and_where_arrays_are() -> None:
    problem = Problem(["head.0.weight"], "float32")
    start = {"head.0.weight": problem.start["head.0.weight"].astype(jnp.bfloat16)}
    run = Run("NAdam", start).steps(lambda time, params: start, range(3))
    device = jax.devices()[5]
    params = jax.device_put({"head": [{"kernel": jnp.asarray(start["head.0.weight"].T)}]}, device)
    layout = interop.make_layout(params, start)
    tx, state = interop.from_torch_optimizer(run.state_dict(), layout, params, "NAdam")
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots["exp_avg"])} == {np.dtype(jnp.bfloat16)}
    assert {device} == {d for leaf in jax.tree.leaves(state) for d in leaf.devices()}
    assert_same(
        interop.optimizer_to_torch(tx, state, layout, params, like=run.state_dict()), run.state_dict()
    )
