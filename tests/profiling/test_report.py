import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.profiling import Schedule, export_perfetto, export_tensorboard, plot_flame, profile
from jaxopt_core.profiling.hlo import parse
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
    assert recorded.memory()["arguments"] >= 3 * 4 * 64 * 72
    assert any("step" in each.name for each in recorded.compilations)


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
