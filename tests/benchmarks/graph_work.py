"""Print what the compiler costs per node of chains and residual networks: `python tests/benchmarks/graph_work.py`.

The same as `minigraph bench graphs`, with the seconds of each pass besides.
"""

from __future__ import annotations

import argparse

from minigraph.bench import graphs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=graphs.SIZES, help="nodes of the graphs")
    parser.add_argument("--kinds", nargs="+", choices=list(graphs.KINDS), default=list(graphs.KINDS))
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--passes", action="store_true", help="the seconds of each pass, too")
    options = parser.parse_args()
    works = []
    for kind in options.kinds:
        for size in options.sizes:
            works.append(work := graphs.measure(kind, size, options.backend))
            if options.passes:
                each = sorted(work.passes.items(), key=lambda item: -item[1])
                print(f"{kind} {size:,}: " + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in each))
    print(graphs.table(works))


if __name__ == "__main__":
    main()
