"""Readers of the compilers' dumps, on recorded ones whose counts were worked out by hand, and the judgement on them.

The dumps in reference/compiler_dumps are those of `make accelerators`' canary, and of a program of one matrix product
in a scan of 3 in a scan of 5, a loop that ends on the data, and a branch.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DUMPS = ROOT / "tests" / "reference" / "compiler_dumps"
sys.path.append(str(ROOT / "bench"))

import accelerators  # noqa: E402
import compiler_dumps as dumps  # noqa: E402


def read(name):
    return (DUMPS / name).read_text()


def nested_launches(change=lambda text: text):
    return dumps.launches(
        change(read("nested.h100.thunk_sequence.txt")),
        read("nested.h100.thunk_metadata.txt"),
        read("nested.h100.hlo.txt"),
    )


def test_launches_of_nested_loops():
    found = nested_launches()
    # 3 before; 5 x (5 + 3 x 3); the open loop's 2 of the condition and 2 of the body, once, after 1 that prepares
    # its branch; the longer branch, 2.
    assert (found.count, found.open_loops) == (3 + 5 * (5 + 3 * 3) + 1 + 4 + 2, 1)
    assert max(found.by_name.values()) == 5 * 3


def test_trips_and_executions_on_a_tpu():
    hlo = read("nested.v5e.hlo.txt")
    assert sorted(map(str, dumps.trip_counts(hlo).values())) == ["3", "5", "None"]
    times = dumps.executions(hlo)
    assert times["convolution_multiply_fusion.2"] == 15
    assert times["dynamic_update_slice.3"] == 5
    assert dumps.estimated_cycles(hlo) > 15


def test_global_traffic_of_the_canary():
    # Each of 128 x 32 times a number is read, one written, and the written one read again; one read before.
    assert dumps.global_bytes(read("canary.h100.ptx")) == 4 + 128 * 32 * 3 * 4


def test_instructions_of_the_canary():
    # Four rows of 32 to a turn of the inner loop, with two barriers each: 34 instructions.
    assert dumps.issued(read("canary.h100.ptx")) == 27 + 128 * (4 + 8 * 34)


def test_bundles_of_the_canary():
    text = read("canary.v5e.final_bundles.txt")
    # The four bundles after the branch back belong to the loop.
    assert dumps.loops(text) == [dumps.Loop(0x8, 0x16, 128), dumps.Loop(0x9, 0x11, 32)]
    assert dumps.bundle_count(text) == 8 + 128 * (6 + 32 * 9) + 4
    assert dumps.spilled_words(text) == 0


def test_registers_and_spills():
    report = read("canary.h100.ptxas.txt")
    [kernel] = dumps.ptxas_kernels(report)
    assert (kernel.name, kernel.registers, kernel.spilled) == ("thread_mosaic_gpu_kernel", 22, 0)
    assert kernel.ours
    [kernel] = dumps.ptxas_kernels(report.replace("0 bytes spill stores, 0", "16 bytes spill stores, 24"))
    assert kernel.spilled == 40


def test_wide_types():
    hlo = read("nested.h100.hlo.txt")
    assert dumps.wide_types(hlo) == []
    assert dumps.wide_types(hlo.replace("s32[]", "s64[]"))
    assert dumps.wide_types("  %a.1 = (f32[2]{0}, f64[3,4]{1,0}) fusion(%b), kind=kLoop") == [
        "f64[3,4] fusion"
    ]


@pytest.mark.parametrize(
    "precision", ["", ", precision = [DEFAULT, DEFAULT]", ", precision = [HIGHEST, HIGHEST]"]
)
def test_rough_products(precision):
    line = f"%2 = stablehlo.dot_general %0, %1, contracting_dims = [1] x [0]{precision} : "
    line += "(tensor<6x6xf32>, tensor<6x1xf32>) -> tensor<6x1xf32>"
    assert dumps.rough_products(line) == ([] if "HIGHEST" in precision else ["6x6xf32 . 6x1xf32"])
    assert dumps.rough_products(line.replace("f32", "f64")) == []


def test_collectives():
    assert dumps.collectives("%a = f32[] all-reduce-start(%b)\n%c = f32[] all-gather(%d)") == [
        "all-gather",
        "all-reduce",
    ]
    assert dumps.collectives(read("nested.v5e.hlo.txt")) == []


@pytest.mark.parametrize(
    "reader, name, old, new",
    [
        (dumps.bundle_count, "canary.v5e.final_bundles.txt", "loop exit test", ""),
        (dumps.bundle_count, "canary.v5e.final_bundles.txt", "  0xb   :", "  0x99   :"),
        (dumps.bundle_count, "canary.v5e.final_bundles.txt", "sbr.rel", "jump"),
        (dumps.global_bytes, "canary.h100.ptx", "setp.", "test."),
        (dumps.global_bytes, "canary.h100.ptx", ".global.", ".shared."),
        (dumps.trip_counts, "nested.v5e.hlo.txt", "condition=", "until="),
        (dumps.executions, "nested.v5e.hlo.txt", "ENTRY ", ""),
        (dumps.estimated_cycles, "nested.v5e.hlo.txt", "estimated_cycles", "guess"),
        (dumps.ptxas_kernels, "canary.h100.ptxas.txt", "bytes spill stores", "spilled"),
    ],
)
def test_a_dump_of_another_form_is_refused(reader, name, old, new):
    text = read(name)
    reader(text)
    with pytest.raises(dumps.DumpError):
        reader(text.replace(old, new))


@pytest.mark.parametrize("old, new", [("kCustomKernel", "kNewKernel"), ("kWhile", "kCopy"), (": k", "; k")])
def test_thunks_of_another_form_are_refused(old, new):
    with pytest.raises(dumps.DumpError):
        nested_launches(lambda text: text.replace(old, new))


@pytest.mark.parametrize("bundles, failed, hinted", [(10.4, 0, 0), (10.6, 1, 0), (8.9, 0, 1)])
def test_budgets(bundles, failed, hinted):
    row = accelerators.Row("row", lambda target: None, pallas=1)
    found = {"memory": 1 << 20, "bundles": bundles, "pallas": 1, "vector_memory": 1 << 20}
    wrong = accelerators.failures(row, accelerators.TARGETS["v5e"], found, {"bundles": 10.0})
    assert [fault.split(":")[0] for fault in wrong] == ["bundles"] * failed
    assert len(accelerators.loose(found, {"bundles": 10.0})) == hinted


def test_faults_are_named_with_what_was_allowed():
    row = accelerators.Row("row", lambda target: None, pallas=1)
    found = {"memory": 17 << 30, "pallas": 128, "wide_types": ["f64[2] add"], "bundles": 10.0}
    wrong = accelerators.failures(row, accelerators.TARGETS["v5e"], found, {})
    assert [fault.split(":")[0] for fault in wrong] == ["wide_types", "memory", "pallas", "bundles"]
    assert "got 128, allowed 1" in wrong[2]


def test_a_hung_compiler_fails_its_row_only(tmp_path):
    row = accelerators.ROWS[0]
    found = accelerators.attempt(row, accelerators.TARGETS["v5e"], tmp_path / "row", timeout=0.01)
    assert found == "compile: still going after 0 s, stopped"
