"""What the GPU and TPU compilers say about a program, read from their dumps: text in, numbers out.

Every reader raises `DumpError` on a dump that it does not understand: a count that is quietly zero would pass any
limit. The formats are those of the releases pinned in accelerators.txt; none of them is documented.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

WIDE_TYPES = ("f64", "s64", "u64", "c128")
# A loop is walked through at most this often to find its trip count.
MOST_TRIPS = 1 << 22


class DumpError(ValueError):
    """A dump is not of the form that this file reads."""


# --- HLO ---------------------------------------------------------------------------------------------------


def wide_types(hlo: str) -> list[str]:
    """Instructions of a 64-bit type: shape and operation, each once."""
    pattern = rf"= \(?.*?\b((?:{'|'.join(WIDE_TYPES)})\[[^\]]*\])[^=]*? ([\w-]+)\("
    return sorted({f"{shape} {operation}" for shape, operation in re.findall(pattern, hlo)})


def rough_products(stablehlo: str) -> list[str]:
    """Matrix products in float32 that leave their precision to the device, each shape once.

    A TPU then multiplies in bfloat16 and an H100 in TF32: 3 digits.
    """
    found = set()
    for line in stablehlo.splitlines():
        if "dot_general" not in line or "HIGHEST, HIGHEST" in line:
            continue
        operands = re.search(r": \(tensor<([^>]*xf32)>, tensor<([^>]*xf32)>\)", line)
        if operands:
            found.add(f"{operands[1]} . {operands[2]}")
    return sorted(found)


def collectives(hlo: str) -> list[str]:
    """Operations that talk to other devices, each once."""
    pattern = r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+)(?:-start)?\("
    return sorted(set(re.findall(pattern, hlo)))


def custom_calls(hlo: str) -> dict[str, str]:
    """Target of each custom call of a compiled program, by name of the instruction."""
    calls = re.findall(
        r'^\s*(?:ROOT )?%?([\w.-]+) = .*? custom-call\(.*?custom_call_target="([^"]*)"', hlo, re.M
    )
    if not calls and " custom-call(" in hlo:
        raise DumpError("custom calls without a target")
    return dict(calls)


def vmem_bytes(hlo: str, call: str) -> int:
    """Vector memory that a Pallas kernel of a TPU uses [bytes]."""
    line = re.search(rf"^\s*(?:ROOT )?%{re.escape(call)} = .*$", hlo, re.M)
    if line is None:
        raise DumpError(f"no instruction {call}")
    sizes = re.findall(r'"used_scoped_memory_configs":\[(.*?)\]', line[0])
    places = re.findall(r'"memory_space":"1","offset":"(\d+)","size":"(\d+)"', " ".join(sizes))
    if not places:
        raise DumpError(f"{call} does not say how much vector memory it uses")
    return max(int(offset) + int(size) for offset, size in places)


def trip_counts(hlo: str) -> dict[str, int | None]:
    """Trip count of each while loop by name; None where it depends on data."""
    computations = _computations(hlo)
    loops = {}
    for name, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = .*? while\((.*)$", hlo, re.M):
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', rest)
        if known:
            loops[name] = int(known[1])
            continue
        # Without that note, JAX's scans and counted loops can still be told: they count from 0 by 1.
        condition = re.search(r"condition=%?([\w.-]+)", rest)
        if condition is None or condition[1] not in computations:
            raise DumpError(f"loop {name} without a condition")
        body = computations[condition[1]]
        numbers = dict(re.findall(r"%?([\w.-]+) = s32\[\]\S* constant\((\d+)\)", body))
        test = re.search(r"ROOT %?[\w.-]+ = \S+ compare\(%?([\w.-]+), %?([\w.-]+)\), direction=LT", body)
        counted = (
            test and test[2] in numbers and re.search(rf"{re.escape(test[1])} = .*get-tuple-element", body)
        )
        loops[name] = int(numbers[test[2]]) if test and counted else None
    return loops


def executions(hlo: str) -> dict[str, int]:
    """How often one execution of a compiled program comes to each instruction outside fusions.

    Loops of unknown trip count are taken once, and every branch of a conditional.
    """
    computations, trips = _computations(hlo), trip_counts(hlo)
    entry = re.search(r"^ENTRY %?([\w.-]+) ", hlo, re.M)
    if entry is None:
        raise DumpError("no entry computation")
    found: dict[str, int] = {}

    def walk(computation: str, times: int) -> None:
        for line in computations[computation].splitlines():
            instruction = re.match(r"\s*(?:ROOT )?%?([\w.-]+) = ", line)
            if instruction is None:
                continue
            name = instruction[1]
            found[name] = found.get(name, 0) + times
            for inner in re.findall(r"(?:body|true_computation|false_computation)=%?([\w.-]+)", line):
                n = trips.get(name, 1)
                walk(inner, times * (1 if n is None else n))
            for inner in re.findall(r"branch_computations=\{([^}]*)\}", line):
                for branch in re.findall(r"[\w.-]+", inner):
                    walk(branch, times)
            if re.search(r" call\(", line):
                for inner in re.findall(r"to_apply=%?([\w.-]+)", line):
                    walk(inner, times)

    walk(entry[1], 1)
    return found


def estimated_cycles(hlo: str) -> int:
    """Cycles of one execution of a TPU program as its compiler estimates them."""
    cycles = dict(re.findall(r'^\s*(?:ROOT )?%?([\w.-]+) = .*"estimated_cycles":"(\d+)"', hlo, re.M))
    if not cycles:
        raise DumpError("no estimated cycles")
    return sum(times * int(cycles.get(name, 0)) for name, times in executions(hlo).items())


def _computations(hlo: str) -> dict[str, str]:
    """Text of each computation by name."""
    found: dict[str, list[str]] = {}
    inside = None
    for line in hlo.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.-]+) \(.* -> .*\{$", line)
        if head:
            inside = found.setdefault(head[1], [])
        elif line.startswith("}"):
            inside = None
        elif inside is not None:
            inside.append(line)
    if not found:
        raise DumpError("no computations")
    return {name: "\n".join(lines) for name, lines in found.items()}


# --- kernel launches of a GPU program ----------------------------------------------------------------------

# What a GPU executes, and what only holds other thunks.
_LAUNCHED = {"kCustomKernel", "kKernel", "kCopy", "kMemset", "kMemzero", "kMemset32BitValue", "kCustomCall"}
_LAUNCHED |= {"kTriangularSolve", "kGemm", "kCublasLtMatmul", "kCholesky", "kFft", "kCubSort", "kSelectK"}
_HOLDERS = {"kSequential", "kCommandBuffer", "kDynamicSliceFusion", "kConditional", "kWhile"}
# Bookkeeping on the host.
_FREE = {"kPartitionId", "kReplicaId", "kHostExecuteStart", "kHostExecuteDone", "kWaitForStreams"}


@dataclass
class Thunk:
    """One entry of the sequence of thunks, with those that it holds by branch."""

    id: int
    kind: str
    branches: dict[str, list["Thunk"]] = field(default_factory=dict)


@dataclass
class Launches:
    """Kernels, copies and library calls of one execution.

    Attributes:
        count: With every loop of unknown trip count taken once, and of two branches the longer.
        open_loops: Loops of unknown trip count.
        by_name: The same by instruction, for what the metadata names.
    """

    count: int
    open_loops: int
    by_name: Counter[str]


def thunk_tree(text: str) -> list[Thunk]:
    """Top level of a dump *.thunk_sequence*.txt."""
    # The first entry of a kSequential stands on its own line, after as many blanks as it is indented by.
    text = re.sub(r"(kSequential +\[[^\]]*\]) ( +\d+: k)", r"\1\n\2", text)
    top: list[Thunk] = []
    # (indentation, thunk, branch that its entries go to)
    path: list[tuple[int, Thunk, str]] = []
    last = None
    for line in text.splitlines():
        entry = re.match(r"( *)(\d+): (k\w+)\b", line)
        label = re.match(r"( *)(\w+):\s*$", line)
        if entry:
            indent = len(entry[1])
            while path and path[-1][0] >= indent:
                path.pop()
            last = Thunk(int(entry[2]), entry[3])
            siblings = path[-1][1].branches.setdefault(path[-1][2], []) if path else top
            siblings.append(last)
            path.append((indent, last, "entries"))
        elif label and last is not None:
            # "condition:" has lost its indentation; it always follows its loop.
            if label[2] != "condition":
                while path and path[-1][0] >= len(label[1]):
                    path.pop()
            if not path:
                raise DumpError(f"branch without a thunk: {line!r}")
            path[-1] = (*path[-1][:2], label[2])
        elif line.strip():
            raise DumpError(f"not a thunk: {line!r}")
    if not top:
        raise DumpError("no thunks")
    return top


def launches(thunks: str, metadata: str, hlo: str) -> Launches:
    """Kernels that one execution of a GPU program runs.

    Kernels of a command buffer count one by one: launched together, they still run one after the other.

    Args:
        thunks: Dump *.thunk_sequence_after_thunk_passes.txt, or *.thunk_sequence.txt where there is none.
        metadata: Dump *.thunk_metadata.txt, the instruction of each thunk.
        hlo: Dump *gpu_after_optimizations.txt, the trip counts.
    """
    names = {}
    for block in re.split(r"^thunk_metadata \{", metadata, flags=re.M):
        name, number = (
            re.search(r'profile_annotation: "([^"]*)"', block),
            re.search(r"thunk_id: (\d+)", block),
        )
        if name and number:
            names[int(number[1])] = name[1]
    trips = trip_counts(hlo)
    open_loops = 0

    def count(thunk: Thunk) -> Counter[str]:
        nonlocal open_loops
        inside = {branch: sum(map(count, entries), Counter()) for branch, entries in thunk.branches.items()}
        if thunk.kind == "kWhile":
            name = names.get(thunk.id, "")
            if name not in trips or "body" not in inside:
                raise DumpError(f"loop {thunk.id} ({name}) is not in the program")
            n = trips[name]
            if n is None:
                open_loops += 1
                return inside.get("condition", Counter()) + inside["body"]
            # XLA counts on the host where it knows the trips, and leaves the condition out.
            return Counter({name: n * times for name, times in inside["body"].items()})
        if thunk.kind == "kConditional":
            return max(inside.values(), key=Counter.total, default=Counter())
        if thunk.kind in _HOLDERS:
            return sum(inside.values(), Counter())
        if thunk.kind in _FREE:
            return Counter()
        if thunk.kind not in _LAUNCHED or inside:
            raise DumpError(f"unknown kind of thunk: {thunk.kind}")
        return Counter([names.get(thunk.id, thunk.kind)])

    by_name = sum(map(count, thunk_tree(thunks)), Counter())
    if not by_name:
        raise DumpError("a program without a kernel")
    return Launches(by_name.total(), open_loops, by_name)


# --- ptxas and PTX -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """What ptxas -v reports on one kernel; stack and spills in bytes a thread."""

    name: str
    registers: int
    stack: int
    spilled: int

    @property
    def ours(self) -> bool:
        """Whether it is a Pallas kernel and not one of XLA's."""
        return self.name.endswith("_mosaic_gpu_kernel")


def ptxas_kernels(report: str) -> list[Kernel]:
    """Kernels of one ptxas -v report."""
    kernels = []
    for part in report.split("Compiling entry function")[1:]:
        name = re.match(r" '([^']*)'", part)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        used = re.search(r"Used (\d+) registers", part)
        if not (name and frame and used):
            raise DumpError(f"ptxas reports {part.strip()[:200]!r}")
        kernels.append(Kernel(name[1], int(used[1]), int(frame[1]), int(frame[2]) + int(frame[3])))
    return kernels


_COMPARE = {
    "eq": int.__eq__,
    "ne": int.__ne__,
    "lt": int.__lt__,
    "le": int.__le__,
    "gt": int.__gt__,
    "ge": int.__ge__,
}


def _trips(start: int, step: int, after: bool, again) -> int:
    """Trips of a loop that is tested at its end, on its counter after or before that trip's step."""
    value, n = start, 0
    while n < MOST_TRIPS:
        tested = value + step if after else value
        value, n = value + step, n + 1
        if not again(tested):
            return n
    raise DumpError(f"a loop from {start} in steps of {step} never ends")


def global_bytes(ptx: str) -> float:
    """Global memory that one thread of a kernel reads and writes [bytes].

    Each access counts once for every trip of the loops around it, caches and skipped branches left aside. A loop's
    trips are found from its counter's start, step and bound, as the compiler leaves them: tested at the end.
    """
    lines, turns = _ptx_turns(ptx)
    total = 0.0
    pattern = r"(?:@!?%\w+\s+)?(ld|st|red|atom)\.([\w.:]+)\s"
    for i, line in enumerate(lines):
        access = re.match(pattern, line)
        if access is None:
            if "cp.async" in line and "global" in line:
                raise DumpError(f"asynchronous copies are not counted yet: {line}")
            continue
        parts = access[2].split(".")
        if {"param", "shared", "local", "const"} & {part.split("::")[0] for part in parts}:
            continue
        width = int(re.sub(r"\D", "", parts[-1]))
        vector = next((int(part[1:]) for part in parts if re.fullmatch(r"v\d", part)), 1)
        total += width / 8 * vector * turns(i)
    if not total:
        raise DumpError("a kernel that touches no global memory")
    return total


def issued(ptx: str) -> int:
    """PTX instructions that one thread of a kernel runs through, skipped branches included.

    About as many as the machine's own: those it folds into others' operands make up for those it takes several for.
    """
    lines, turns = _ptx_turns(ptx)
    total = sum(
        turns(i) for i, line in enumerate(lines) if re.match(r"(?:@!?%\w+\s+)?[a-z][\w.:]*\b.*;$", line)
    )
    if not total:
        raise DumpError("a kernel without an instruction")
    return total


def _ptx_turns(ptx: str):
    """Lines of a kernel, and a function that says how often it comes to the i-th."""
    lines = [line.split("//")[0].strip() for line in ptx.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"[$\w]+:", line)}
    loops: dict[int, int] = {}
    for i, line in enumerate(lines):
        jump = re.match(r"(?:@!?%\w+\s+)?bra(?:\.uni)?\s+([$\w]+);", line)
        if jump and labels.get(jump[1], i) < i:
            loops[labels[jump[1]]] = i

    @cache
    def trips(head: int) -> int:
        return _ptx_trips(lines, head, loops[head])

    def turns(i: int) -> int:
        return math.prod(trips(head) for head, end in loops.items() if head < i < end)

    return lines, turns


def _ptx_trips(lines: list[str], head: int, end: int) -> int:
    where = f"loop at {lines[head]}"
    jump = re.match(r"@(!?)%(\w+)\s+bra", lines[end])
    if jump is None:
        raise DumpError(f"{where} is not tested at its end")

    def last(pattern: str, before: int, after: int):
        for i in range(before - 1, after, -1):
            found = re.match(pattern, lines[i])
            if found:
                return i, found
        return None

    test = last(rf"setp\.(\w+)\.[sub]\d+\s+%{jump[2]}, %(\w+), (-?\d+);", end, head)
    if test is None:
        raise DumpError(f"{where}: its bound is not a number")
    at, test = test[0], test[1]
    counter, operation, bound = test[2], _COMPARE[test[1]], int(test[3])
    step = None
    while step is None:
        update = last(rf"add\.[su]\d+\s+%{counter}, %(\w+), (-?\d+);", end, head)
        if update and update[1][1] == counter:
            step = int(update[1][2])
            break
        copy = last(rf"(?:cvt|mov)\.[\w.]+\s+%{counter}, %(\w+);", at, head)
        if copy is None:
            raise DumpError(f"{where}: no counter")
        at, counter = copy[0], copy[1][1]
    begin = last(rf"mov\.[\w.]+\s+%{counter}, (%?-?\w+);", head, -1)
    while begin and begin[1][1].startswith("%"):
        begin = last(rf"mov\.[\w.]+\s+%{begin[1][1][1:]}, (%?-?\w+);", begin[0], -1)
    if begin is None:
        raise DumpError(f"{where}: its counter starts at no number")
    wanted = not jump[1]
    return _trips(int(begin[1][1]), step, update[0] < at, lambda value: operation(value, bound) == wanted)


# --- VLIW bundles of a TPU kernel --------------------------------------------------------------------------

# Bundles after a branch that run before it takes effect.
_DELAY_SLOTS = 4
# Trips that a Pallas grid takes beyond its blocks, to fetch the first and to write back the last.
_PIPELINE_TRIPS = 2


@dataclass(frozen=True)
class Loop:
    """A loop of a TPU kernel: its first and last bundle, and its trips."""

    first: int
    last: int
    trips: int


def loops(text: str) -> list[Loop]:
    """Loops of a dump *final_bundles.txt, in the order of their first bundles."""
    bundles = _bundle_lines(text)
    starts: dict[str, int] = {}
    for address, _, line in bundles:
        for region in re.findall(r"Start(?:/End empty)? region (\d+)", line):
            starts.setdefault(region, address)
    found = {}
    for address, _, line in bundles:
        jump = re.search(r"sbr\.rel \((!?)%(\w+)\) target = \$region(\d+)", line)
        if jump and starts.get(jump[3], address + 1) <= address:
            first = starts[jump[3]]
            found[first] = Loop(first, address + _DELAY_SLOTS, _tpu_trips(text, jump[1], jump[2]))
    heads = [address for address, keys, _ in bundles if "LB" in keys]
    if sorted(found) != heads:
        raise DumpError(f"loops at {heads}, of which those at {sorted(found)} are understood")
    return [found[first] for first in sorted(found)]


def bundle_count(text: str) -> int:
    """Bundles that one call of a TPU kernel issues: every bundle as often as the loops around it turn.

    Regions that a predicate may skip count in full. Stalls are not seen.
    """
    nest = loops(text)
    total = 0
    for address, _, _ in _bundle_lines(text):
        turns = 1
        for loop in nest:
            if loop.first <= address <= loop.last:
                turns *= loop.trips
        total += turns
    return total


def spilled_words(text: str) -> int:
    """Bundles' accesses of vector registers spilled to memory."""
    return len(re.findall(r"v(?:ld|st) \[vmem:\[#allocation\w*_spill", text))


def _bundle_lines(text: str) -> list[tuple[int, str, str]]:
    """(address, key, text) of each bundle."""
    # A bundle may hold a comment of several lines.
    found = []
    for part in re.split(r"^(?= *(?:0x[0-9a-f]+|0) [ A-Z]*: )", text, flags=re.M)[1:]:
        head = re.match(r" *(0x[0-9a-f]+|0) ([ A-Z]*): ", part)
        found.append((int(head[1], 16), head[2].strip(), part))
    if [address for address, _, _ in found] != list(range(len(found))) or not found:
        raise DumpError("no bundles, or some are missing")
    return found


def _tpu_trips(text: str, negated: str, predicate: str) -> int:
    test = re.search(
        rf"%{predicate} = scmp\.(\w+)\.s32\.totalorder (?:\(!?%\w+\), )?%(\w+), (-?\d+) /\* loop exit test",
        text,
    )
    if test is None:
        raise DumpError(f"loop on %{predicate}: its bound is not a number")
    operation, counter, bound = _COMPARE[test[1]], test[2], int(test[3])
    update = re.search(rf"%{counter} = sadd\.s32 (?:\(!?%\w+\), )?(-?\d+), %(\w+)", text)
    if update is None:
        raise DumpError(f"loop on %{predicate}: no counter")
    step, before = int(update[1]), update[2]
    phi = re.search(rf"%{before} = sphi %(\w+), %(\w+)([^;}}]*)", text)
    if phi is None:
        raise DumpError(f"loop on %{predicate}: no start")
    begin = re.search(rf"%{phi[1]} = smov (?:\(!?%\w+\), )?(-?\d+)", text)
    if begin is None:
        raise DumpError(f"loop on %{predicate}: its counter starts at no number")
    # The test is the one for leaving; the branch back is taken where it fails.
    n = _trips(int(begin[1]), step, True, lambda value: operation(value, bound) != bool(negated))
    return n - _PIPELINE_TRIPS if "iteration index, stage" in phi[3] else n
