import gzip
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.profiling import Schedule, export_perfetto, export_tensorboard, plot_flame, profile
from jaxopt_core.profiling.buffers import read_buffers
from jaxopt_core.profiling.hlo import Product, parse
from jaxopt_core.training import init_state, make_step

HLO = """HloModule jit_step, entry_computation_layout={(f32[4,4]{1,0})->f32[4,4]{1,0}}

FileNames
1 "/home/me/train.py"
2 "/lib/site-packages/optax/update.py"

FunctionNames
1 "step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=0 end_column=9}
2 {file_name_id=2 function_name_id=1 line=7 end_line=7 column=0 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%fused (p: f32[4,4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  %dot.7 = f32[4,4]{1,0} dot(%p, %p), lhs_contracting_dims={1}, metadata={NAME stack_frame_id=1}
  ROOT %neg = f32[4,4]{1,0} negate(%dot.7)
}

ENTRY %main (a: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %k = f32[3,3,1,8]{3,2,1,0} constant({...})
  %c = f32[2,9,9,8]{3,2,1,0} convolution(%i, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  %w = (s32[], /*index=1*/f32[4,4]{1,0}) while(%a), condition=%c, body=%b
  %f = f32[4,4]{1,0} fusion(%a), kind=kLoop, calls=%fused
  ROOT %u = f32[4,4]{1,0} add(%f, %a), metadata={op_name="jit(step)/add" stack_frame_id=2}
}
""".replace("NAME", 'op_name="jit(step)/transpose(jvp(block/attention))/dot_general"')


def test_operations_are_read_from_the_compiled_text():
    found = parse(HLO)
    assert found["w"].kind == "while"
    fusion = found["f"]
    assert (fusion.kind, fusion.scope, fusion.phase, fusion.source) == (
        "dot",
        "block/attention",
        "backward",
        "train.py:12",
    )
    assert (found["u"].phase, found["u"].source) == ("optimizer", "train.py:12")
    assert (fusion.product, fusion.entry) == (Product("f32", (4, 4, 4)), True)
    assert fusion.flops == 2 * 4**3 + 4**2
    assert found["c"].flops == 2 * (2 * 9 * 9 * 8) * 3 * 3
    assert (found["dot.7"].entry, found["u"].flops, found["u"].bytes) == (False, 4 * 4, 4 * 4 * 4)


ALIASED = """HloModule jit_step, input_output_alias={ {1}: (0, {}, may-alias) }

ENTRY %main (a: f32[4,4], b: bf16[3]) -> (f32[], f32[4,4], pred[5]) {
  %a = f32[4,4]{1,0} parameter(0), metadata={op_name="state[\\'w\\']"}
  %b = bf16[3]{0:T(8,128)(2,1)} parameter(1)
  ROOT %t = (f32[], f32[4,4]{1,0}, /*index=2*/pred[5]{0}) tuple(%x, %y, %z)
}
"""


def test_arguments_and_results_are_read_from_the_compiled_text():
    assert [
        (each.role, each.path, str(each.array), each.array.bytes, each.reused)
        for each in read_buffers(ALIASED)
    ] == [
        ("argument", "state['w']", "f32[4,4]", 64, True),
        ("argument", "", "bf16[3]", 6, False),
        ("result", "", "f32[]", 4, False),
        ("result", "", "f32[4,4]", 64, True),
        ("result", "", "pred[5]", 5, False),
    ]


TITLES = ["operation", "calls", "total", "ms", "avg", "us", "share", "scope", "source"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(1, 1, 2, 1), ["wait", "warmup", "active", "active", "done", "done"]),
        (Schedule(0, 0, 1, 0), ["active"] * 6),
        (Schedule(1, 0, 1, 2), ["wait", "active", "wait", "active", "done", "done"]),
    ],
)
def test_schedules(schedule, expected):
    assert [schedule.phase(step) for step in range(6)] == expected


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    def loss_fn(params, rest, batch, rng):
        del rng
        with jax.named_scope("layer1"):
            h = jnp.tanh(batch["x"] @ params["a"])
        with jax.named_scope("layer2"):
            return jnp.mean((h @ params["b"]) ** 2), (rest, {})

    tx = jo.adamw()
    params = {"a": jnp.ones((64, 64)), "b": jnp.ones((64, 8))}
    state, step = init_state(params, {}, tx), jax.jit(make_step(loss_fn, tx))
    with profile(Schedule(1, 2, 3, 2), tmp_path_factory.mktemp("profile")) as recorder:
        for batch in recorder.watch([{"x": np.ones((32, 64), np.float32)}] * 14):
            state, metrics = step(state, batch)
            recorder.step(metrics)
    return recorder.result


def test_tables_add_up(recorded):
    assert recorded.steps == 6
    for by in ("operation", "scope", "source"):
        rows = recorded.rows(by)
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert [row.total for row in rows] == sorted((row.total for row in rows), reverse=True)
        assert all(row.average == pytest.approx(row.total / row.calls) for row in rows)
        assert sum(row.total for row in rows) == pytest.approx(sum(s for _, s, _ in recorded.operations()))


def test_time_is_found_by_scope_phase_and_line(recorded):
    assert {"layer1", "layer2"} <= {row.name for row in recorded.rows("scope")}
    phases = {row.name: row for row in recorded.rows("phase")}
    assert {"data", "forward", "backward", "optimizer"} <= set(phases)
    assert phases["data"].total == pytest.approx(recorded.waiting)
    assert any(row.name.startswith("test_report.py:") for row in recorded.rows("source"))
    assert any(row.name.startswith("adam.py:") for row in recorded.rows("source"))


def test_sorted_by_any_column_and_shown(recorded):
    names = [row.name for row in recorded.rows(sort="name")]
    assert names == sorted(names)
    calls = [row.calls for row in recorded.rows(sort="calls")]
    assert calls == sorted(calls, reverse=True)
    text = recorded.table(limit=2)
    assert text.splitlines()[0].split() == TITLES
    assert text.endswith("more")
    with pytest.raises(ValueError, match="expected operation, scope, phase or source"):
        recorded.rows("color")


def test_summary(recorded):
    text = recorded.summary()
    assert "6 steps recorded" in text
    assert "jit_step" in text
    (program,) = [each for each in recorded.ran() if each.name == "jit_step"]
    # Two products forward, three backward: the input needs no gradient.
    assert program.flops > 2 * 32 * 64 * (2 * 64 + 3 * 8)
    sizes = recorded.memory()
    assert sizes["arguments"] >= 3 * 4 * 64 * 72
    largest = recorded.buffers()[0]
    assert (largest.role, str(largest.array), largest.array.bytes) == ("argument", "f32[64,64]", 4 * 64 * 64)
    assert {"state.params['a']", "batch['x']"} <= {each.path for each in recorded.buffers()}
    assert f"  {largest}" in text.splitlines()
    held = sizes["arguments"] + sizes["results"] + sizes["temporaries"] - sizes["reused arguments"]
    assert sizes["high-water mark (estimate)"] == held  # CPUs know none
    assert any("step" in each.name for each in recorded.compilations)


@pytest.mark.parametrize("outside", [0, 1])
def test_bodies_of_loops_count_as_often_as_they_ran(outside):
    w = jnp.full((128, 128), 0.01)

    def repeated(times, x):
        for _ in range(outside):
            x = jnp.tanh(x @ w)
        return jax.lax.fori_loop(0, times, lambda _, x: jnp.tanh(x @ w), x)

    step = jax.jit(repeated)
    with profile(Schedule(1, 1, 2)) as recorder:
        for _ in range(4):
            recorder.step(step(np.int32(10), w))
    found = recorder.result
    (program,) = [each for each in found.ran() if each.name == "jit_repeated"]
    cost, product = found.cost(program), 2 * 128**3
    assert program.flops < 1.1 * (1 + outside) * product  # what XLA counts
    assert cost.runs == 2
    assert cost.flops == pytest.approx((10 + outside) * product, rel=0.1)
    assert cost.bytes > 5 * program.bytes
    assert f"{cost.flops / 1e6:.2f} MFLOP" in found.summary()


class Queue:
    """A device that takes 20 ms a step, while Python runs ahead."""

    def __init__(self):
        self.waiting = 0

    def block_until_ready(self):
        time.sleep(0.02 * self.waiting)
        self.waiting = 0


@pytest.mark.parametrize(("schedule", "cycles"), [(Schedule(1, 1, 5), 1), (Schedule(1, 4, 2, 2), 2)])
def test_overhead_is_of_what_the_device_does(schedule, cycles):
    queue = Queue()
    with profile(schedule) as recorder:
        for _ in range(7 * cycles):
            queue.waiting += 1
            recorder.step(queue)
    found = recorder.result
    # Sleeps take longer where other work runs, but never less.
    assert found.warmup >= 0.02
    assert found.wall / found.steps >= 0.02
    assert -0.7 < found.overhead < 2


def test_overhead_is_unknown_without_a_warm_up():
    with profile(Schedule(1, 0, 1)) as recorder:
        for _ in range(2):
            recorder.step()
    assert "1 steps recorded" in recorder.result.summary()
    assert "the overhead of recording is unknown without a warm-up" in recorder.result.summary()


def test_a_loop_that_ends_in_its_first_step_has_no_result():
    with profile(Schedule(0, 0, 1)) as recorder:
        pass
    with pytest.raises(RuntimeError, match="nothing was recorded: the loop made 0 steps"):
        _ = recorder.result


def test_exports_and_picture(recorded, tmp_path):
    with gzip.open(export_perfetto(recorded, tmp_path / "trace.json.gz")) as file:
        assert any(event.get("ph") == "X" for event in json.load(file)["traceEvents"])
    assert list(export_tensorboard(recorded, tmp_path / "logs").glob("*.xplane.pb"))
    plot_flame(recorded, tmp_path / "flame.png")
    plot_flame(recorded, tmp_path / "flame.svg")
    assert (tmp_path / "flame.png").read_bytes().startswith(b"\x89PNG")
    assert "backward" in (tmp_path / "flame.svg").read_text()


def test_schedules_are_checked():
    with (
        pytest.raises(ValueError, match=r"active of at least 1, got \(1, 0, 0, 1\)"),
        profile(Schedule(1, 0, 0)),
    ):
        pass
