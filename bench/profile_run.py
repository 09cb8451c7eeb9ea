"""Write a JAX profiler trace of the main job, for TensorBoard or Perfetto.

    python bench/profile_run.py [TRACE_DIR [SATELLITES]]

Compiles first, so that the trace holds one warm pass only: loads, cyclic march, recorded revolution, fetching.
"""

import sys
from pathlib import Path

from bench_run import one_pass, solver


def main() -> None:
    import jax

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/trace")
    made = solver(int(sys.argv[2]) if len(sys.argv) > 2 else 260, 128)
    one_pass(made)
    with jax.profiler.trace(str(folder)):
        one_pass(made)
    traces = sorted(folder.rglob("*.xplane.pb"), key=lambda f: f.stat().st_mtime)
    print(f"{traces[-1]} ({traces[-1].stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
