#!/usr/bin/env python3
# ruff: noqa
"""Replay torch_samples.{npz,json} against an adapter; needs numpy only.

  python replay_torch.py ADAPTER.py [--tier core] [--op nn.functional.conv2d,...] [--rtol 1e-3 --atol 1e-4] [--json out]

ADAPTER.py provides  run(case, args, kwargs, state, cotangents) -> (outputs, grads, after)
  args / kwargs   the call's arguments; each array is a Leaf (ndarray subclass) with .id and .wants_grad
  state           for kind 'module': parameters and buffers by name (ctor arguments in case['ctor_args'/'ctor_kwargs'], decoded)
  outputs         list of arrays;  grads {leaf id or 'param:NAME': array};  after {name: array} (running statistics)
raise NotImplementedError for an op the project does not claim: counted as failed, shown as 'unsupported'.
Prints a line by op, then 'N passed, M failed'.
"""

import argparse, collections, importlib.util, json, os, sys
import numpy as np


class Leaf(np.ndarray):
    id = None
    wants_grad = False


def decode(x, A):
    if "tensor" in x:
        a = A[x["tensor"]].copy().reshape(x["shape"]).view(Leaf)
        a.id, a.wants_grad = x["id"], x["grad"]
        return a
    if "value" in x:
        v = x["value"]
        return float(v) if v in ("inf", "-inf", "nan") else v
    if "list" in x:
        return [decode(v, A) for v in x["list"]]
    if "tuple" in x:
        return tuple(decode(v, A) for v in x["tuple"])
    return {k: decode(v, A) for k, v in x["dict"].items()}


def main():
    ap = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    ap.add_argument("adapter")
    ap.add_argument("--data", default=here)
    ap.add_argument("--tier")
    ap.add_argument("--op")
    ap.add_argument("--rtol", type=float, default=1e-3)
    ap.add_argument("--atol", type=float, default=1e-4)
    ap.add_argument("--json")
    ap.add_argument("--list", help="text file of case ids")
    a = ap.parse_args()
    s = importlib.util.spec_from_file_location("adapter", a.adapter)
    ad = importlib.util.module_from_spec(s)
    sys.path.insert(0, os.path.dirname(os.path.abspath(a.adapter)))
    s.loader.exec_module(ad)
    A = dict(np.load(a.data + "/torch_samples.npz"))
    M = json.load(open(a.data + "/torch_samples.json"))
    ids = {x.split()[0] for x in open(a.list) if x.strip() and x[0] != "#"} if a.list else None
    res = []
    for c in M["cases"]:
        if (
            (a.tier and c["tier"] not in a.tier.split(","))
            or (a.op and c["op"] not in a.op.split(","))
            or (ids is not None and c["id"] not in ids)
        ):
            continue
        args = [decode(x, A) for x in c["args"]]
        kw = {k: decode(v, A) for k, v in c["kwargs"].items()}
        case = dict(
            c,
            ctor_args=[decode(x, A) for x in c.get("ctor_args", [])],
            ctor_kwargs={k: decode(v, A) for k, v in c.get("ctor_kwargs", {}).items()},
        )
        st = {k: A[v].copy() for k, v in c.get("state", {}).items()}
        ct = [None if k is None else A[k] for k in c["cotangents"]]
        try:
            outs, grads, after = ad.run(case, args, kw, st, ct)

            def eq(what, got, key):
                want = A[key]
                got = np.asarray(got)
                assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
                np.testing.assert_allclose(
                    got.astype(np.float64),
                    want.astype(np.float64),
                    rtol=a.rtol,
                    atol=a.atol * max(1.0, float(np.abs(want).max(initial=0))),
                    err_msg=what,
                )

            assert len(outs) == len(c["outputs"]), f"{len(outs)} outputs, want {len(c['outputs'])}"
            for i, k in enumerate(c["outputs"]):
                eq(f"output {i}", outs[i], k)
            for g, k in c["grads"].items():
                assert g in grads, "no gradient of " + g
                eq("grad " + g, grads[g], k)
            for g, k in c["after"].items():
                assert g in after, "no state after of " + g
                eq("after " + g, after[g], k)
            ok, err = True, ""
        except NotImplementedError as e:
            ok, err = False, "unsupported " + str(e)
        except Exception as e:
            ok, err = False, f"{type(e).__name__}: " + " ".join(str(e).split())[:200]
        res.append(dict(id=c["id"], op=c["op"], tier=c["tier"], ok=ok, error=err))
    by = collections.defaultdict(lambda: [0, 0])
    for r in res:
        by[r["op"]][not r["ok"]] += 1
    for op, (p, f) in sorted(by.items()):
        print(f"{op}: {p} passed, {f} failed")
    for r in res:
        if not r["ok"]:
            print("FAIL", r["id"], r["error"][:160])
    if a.json:
        json.dump(res, open(a.json, "w"), indent=0)
    p = sum(r["ok"] for r in res)
    print(f"{p} passed, {len(res) - p} failed")
    return 0 if res and p == len(res) else 1


if __name__ == "__main__":
    sys.exit(main())
