#!/usr/bin/env python3
# ruff: noqa
"""Run a chosen list of onnx.backend.test cases against any ONNX backend.

  python run_suite.py BACKEND --list open.txt [--tier core,ext] [--op Conv,Relu]
                      [--json out.json] [--timeout 60] [--convert OPSET] [-v]

BACKEND   a dotted module name or a path to a .py file.  It provides
          prepare(model, device='CPU') -> rep with rep.run([arrays]) -> sequence of arrays
          (module level function, or on a class called Backend / <anything>Backend).
          run_model(model, inputs) is used if there is no prepare.
--list    text file: one test a line, NAME[<TAB>op<TAB>tier]; '#' starts a comment. Repeatable.
          Without it: every test of the suite (node, simple, real, pytorch-*).
--convert run onnx.version_converter to this opset before prepare.

The comparison is the ONNX suite's own Runner.assert_similar_outputs (same shape, same
dtype, rtol/atol of the case).  Exit status 0 only if nothing failed.
Prints a line by op, then 'N passed, M failed'.
"""

import argparse, collections, glob, importlib, importlib.util, json, os, signal, sys, time, traceback, warnings

warnings.filterwarnings("ignore")
import numpy as np

try:
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import Runner
except ImportError:  # whoever only collects doctests need not have it
    onnx = None
KINDS = ["node", "simple", "real", "pytorch-converted", "pytorch-operator"]


def load_backend(spec):
    if spec.endswith(".py"):
        s = importlib.util.spec_from_file_location("backend_under_test", spec)
        mod = importlib.util.module_from_spec(s)
        sys.path.insert(0, os.path.dirname(os.path.abspath(spec)))
        s.loader.exec_module(mod)
    else:
        sys.path.insert(0, os.getcwd())
        mod = importlib.import_module(spec)
    cand = (
        [mod]
        + [v for k, v in vars(mod).items() if isinstance(v, type) and k.endswith("Backend") and k != "Backend"]
        + [v for k, v in vars(mod).items() if k == "Backend"]
    )
    for c in cand:
        if hasattr(c, "prepare"):
            return lambda m: c.prepare(m, "CPU").run
    for c in cand:
        if hasattr(c, "run_model"):
            return lambda m: lambda inputs: c.run_model(m, inputs, "CPU")
    sys.exit("no prepare or run_model in " + spec)


def read_pb(path, vi):
    b = open(path, "rb").read()
    k = vi.type.WhichOneof("value")
    if k == "sequence_type":
        p = onnx.SequenceProto()
        p.ParseFromString(b)
        return numpy_helper.to_list(p)
    if k == "optional_type":
        p = onnx.OptionalProto()
        p.ParseFromString(b)
        return numpy_helper.to_optional(p)
    p = onnx.TensorProto()
    p.ParseFromString(b)
    return numpy_helper.to_array(p)


def case_data(t):
    """-> model, [(inputs, outputs)]"""
    if t.model is not None:
        arr = lambda x: numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x
        return t.model, [([arr(x) for x in i], [arr(x) for x in o]) for i, o in t.data_sets]
    if t.model_dir is None:  # real/: a light model in the wheel
        path = os.path.join(os.path.dirname(onnx.__file__), "..", t.url)
        m = onnx.load(path)
        inits = {i.name for i in m.graph.initializer}
        ins = [Runner.generate_dummy_data(x) for x in m.graph.input if x.name not in inits]
        outs = [read_pb(f"{path[:-5]}_output_{i}.pb", o) for i, o in enumerate(m.graph.output)]
        return m, [(ins, outs)]
    m = onnx.load(os.path.join(t.model_dir, "model.onnx"))
    sets = []
    for d in sorted(glob.glob(os.path.join(t.model_dir, "test_data_set*"))):
        n_in = len(glob.glob(d + "/input_*.pb"))
        n_out = len(glob.glob(d + "/output_*.pb"))
        sets.append(
            (
                [read_pb(f"{d}/input_{i}.pb", m.graph.input[i]) for i in range(n_in)],
                [read_pb(f"{d}/output_{i}.pb", m.graph.output[i]) for i in range(n_out)],
            )
        )
    return m, sets


class Timeout(Exception):
    pass


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("backend")
    ap.add_argument("--list", action="append", default=[])
    ap.add_argument("--tier")
    ap.add_argument("--op")
    ap.add_argument("--json")
    ap.add_argument("--timeout", type=int, default=60)
    ap.add_argument("--convert", type=int)
    ap.add_argument("-v", action="store_true")
    a = ap.parse_args()
    cases = {t.name: t for k in KINDS for t in load_model_tests(kind=k)}
    want = []
    for f in a.list:
        for line in open(f):
            line = line.split("#")[0].rstrip()
            if line:
                want.append((line.split("\t") + ["", ""])[:3])
    if not want:
        want = [[n, "", ""] for n in cases]
    if a.tier:
        want = [w for w in want if w[2] in a.tier.split(",")]
    build = load_backend(a.backend)

    def on_alarm(*_):
        raise Timeout(f"over {a.timeout} s")

    signal.signal(signal.SIGALRM, on_alarm)
    res = []
    for name, op, tier in want:
        t = cases.get(name)
        if not op and t is not None:
            op = t.model.graph.node[0].op_type if t.model is not None else t.kind
        if a.op and op not in a.op.split(","):
            continue
        t0 = time.time()
        stage = "load"
        try:
            if t is None:
                raise KeyError("no such test in onnx " + onnx.__version__)
            model, sets = case_data(t)
            if a.convert:
                stage = "convert"
                model = onnx.version_converter.convert_version(model, a.convert)
            signal.alarm(a.timeout)
            stage = "prepare"
            run = build(model)
            assert sets, "no data"
            for ins, outs in sets:
                stage = "run"
                got = run([np.array(x) if isinstance(x, (np.ndarray, np.generic)) else x for x in ins])
                stage = "compare"
                Runner.assert_similar_outputs(outs, list(got), rtol=t.rtol, atol=t.atol)
            ok, err = True, ""
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            ok, err = False, f"{type(e).__name__}: {str(e).strip()[:300]}"
            if a.v:
                traceback.print_exc()
        finally:
            signal.alarm(0)
        res.append(
            dict(
                name=name,
                op=op,
                tier=tier,
                ok=ok,
                stage="" if ok else stage,
                error=err,
                seconds=round(time.time() - t0, 4),
            )
        )
    by = collections.defaultdict(lambda: [0, 0])
    for r in res:
        by[r["op"]][0 if r["ok"] else 1] += 1
    for op, (p, f) in sorted(by.items()):
        print(f"{op}: {p} passed, {f} failed")
    for r in res:
        if not r["ok"]:
            print(f"FAIL {r['name']} [{r['stage']}] " + " ".join(r["error"].split())[:160])
    if a.json:
        json.dump(res, open(a.json, "w"), indent=1)
    p = sum(r["ok"] for r in res)
    print(f"{p} passed, {len(res) - p} failed")
    return 0 if res and p == len(res) else 1


if __name__ == "__main__":
    sys.exit(main())
