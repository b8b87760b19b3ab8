"""Files: a model comes back as it was, or the file is refused with a ModelFormatError; nothing is lost on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from small import blobs, dense_model, image_model, images, same_bits

import minigraph as mg
from minigraph import layers, ops
from minigraph.backends.dtypes import array_dtype
from minigraph.errors import ModelFormatError
from minigraph.ir.types import DTYPES
from minigraph.training import Callback

X, Y = blobs()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> bytes:
    """A model of some kB: dense, compiled with plain SGD, not trained."""
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    with mg.fresh_names():
        x = mg.Input((2,), name="x")
        model = mg.Model(x, layers.Dense(2)(x))
    model.compile("sgd", "mse")
    return model.save(path).read_bytes()


def load(tmp_path, data: bytes) -> mg.Model:
    path = tmp_path / "changed.safetensors"
    path.write_bytes(data)
    return mg.load_model(path)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [dense_model, lambda: dense_model(cumulative=True), image_model])
def test_a_model_comes_back_as_it_was(tmp_path, make):
    model = make()
    x, y = (X, Y) if model.graph.inputs[0].rank == 2 else images()
    model.fit(x, y, epochs=6, batch_size=8, verbose=0)
    again = mg.load_model(model.save(tmp_path / "m.safetensors"))
    assert str(again.graph) == str(model.graph) and (again.name, again.seed) == (model.name, model.seed)
    assert same_bits(again.state, model.state) == []
    assert again.progress == model.progress
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.evaluate(x, y) == model.evaluate(x, y)
    assert again.training.optimizer == model.training.optimizer and again.training.losses == model.training.losses
    assert str(again.lower("training")) == str(model.lower("training"))


def test_variables_of_every_dtype_come_back(tmp_path):
    y = x = mg.Input((2,), name="x")
    for dtype in DTYPES:
        y = y + ops.cast(mg.variable((2,), name=dtype, init=1, dtype=dtype, trainable=False), "float32")
    model = mg.Model(x, y)
    for dtype in DTYPES:
        model.state[dtype] = np.array([0, np.iinfo(dtype).max if "int" in dtype else 1], array_dtype(dtype))
    again = mg.load_model(model.save(tmp_path / "m.safetensors"))
    assert same_bits(again.state, model.state) == []
    assert {name: str(value.dtype) for name, value in again.state.items()} == {dtype: dtype for dtype in DTYPES}


def test_a_loaded_model_learns_on_with_the_same_bits(tmp_path):
    model = image_model(optimizer=mg.optimizers.AdamW(mg.optimizers.CosineDecay(0.02, 40, warmup_steps=5)))
    x, y = images()
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    again = mg.load_model(model.save(tmp_path / "m.safetensors"))
    histories = [m.fit(x, y, epochs=2, batch_size=8, verbose=0).history for m in (model, again)]
    assert histories[0] == histories[1] and same_bits(model.state, again.state) == []


def test_an_uncompiled_model_can_be_kept(tmp_path):
    x = mg.Input((6,), name="x")
    model = mg.Model(x, {"a": layers.Dense(2)(x), "b b": layers.Dropout(0.5)(x)}, name="näme", seed=2**70)
    again = mg.load_model(model.save(tmp_path / "m"))
    assert (again.name, again.seed, again.training) == ("näme", 2**70, None)
    assert all(np.array_equal(v, model.predict(X)[k]) for k, v in again.predict(X).items())


def test_functions_are_not_kept_but_the_weights_are(tmp_path):
    def mine(t, p):
        return mg.ops.mean(p)

    model = dense_model(metrics=[mine])
    again = mg.load_model(model.save(tmp_path / "m"))
    assert again.training is None
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("rate", [lambda step: step * 0.1, np.float64(0.1)], ids=["function", "np.float64"])
def test_any_learning_rate_can_be_kept(tmp_path, rate):
    model = dense_model(optimizer=mg.optimizers.SGD(rate))
    mg.load_model(model.save(tmp_path / "m"))


def test_a_model_whose_loss_is_nan_can_be_kept_and_loaded(tmp_path):
    model = dense_model()
    model.progress.totals = {"loss": float("nan")}
    mg.load_model(model.save(tmp_path / "m"))


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        mg.load_model(tmp_path / "none")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused(tmp_path, small_file):
    lengths = sorted({*range(0, len(small_file), max(1, len(small_file) // 400)), *range(64), len(small_file) - 1})
    assert len(lengths) >= 300
    for length in lengths:
        with pytest.raises(ModelFormatError):
            load(tmp_path, small_file[:length])


def test_added_bytes_are_refused(tmp_path, small_file):
    for extra in (b"\0", b"{}", small_file):
        with pytest.raises(ModelFormatError):
            load(tmp_path, small_file + extra)


def test_flipped_bits_are_refused_or_change_nothing(tmp_path, small_file):
    original = load(tmp_path, small_file)
    header = 8 + int.from_bytes(small_file[:8], "little")
    rng = random.Random(0)
    places = [(byte, bit) for byte in range(8) for bit in range(8)]
    places += [(rng.randrange(8, header), rng.randrange(8)) for _ in range(300)]
    places += [(byte, rng.randrange(8)) for byte in range(header, len(small_file)) for _ in range(4)]
    assert len(places) >= 500
    refused = 0
    for byte, bit in places:
        damaged = bytearray(small_file)
        damaged[byte] ^= 1 << bit
        try:
            model = load(tmp_path, bytes(damaged))
        except ModelFormatError:
            refused += 1
            continue
        assert str(model.graph) == str(original.graph) and same_bits(model.state, original.state) == []
        assert byte < header
    assert refused >= 0.98 * len(places)


def test_a_flipped_weight_is_named(tmp_path, small_file):
    damaged = bytearray(small_file)
    offsets = json.loads(small_file[8 : 8 + int.from_bytes(small_file[:8], "little")])["dense/kernel"]["data_offsets"]
    damaged[8 + int.from_bytes(small_file[:8], "little") + offsets[0]] ^= 1
    with pytest.raises(ModelFormatError, match="array 'dense/kernel' is damaged"):
        load(tmp_path, bytes(damaged))


FOREIGN = {
    "empty": b"",
    "text": b"hello, this is not a model at all",
    "zeros": bytes(64),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00" + b"cos\nsystem\n(S'true'\ntR." * 3,
    "zip": b"PK\x03\x04" + bytes(60),
    "no metadata": save_tensors({"w": np.zeros(3)}),
    "other metadata": save_tensors({"w": np.zeros(3)}, metadata={"format": "pt"}),
    "format alone": save_tensors({"w": np.zeros(3)}, metadata={"format": "minigraph-1"}),
    "list": (2).to_bytes(8, "little") + b"[]",
    "number": (1).to_bytes(8, "little") + b"3",
    "deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "long number": (8_000).to_bytes(8, "little") + b"9" * 8_000,
    "not UTF-8": (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    "metadata a list": (19).to_bytes(8, "little") + b'{"__metadata__":[]}',
    "metadata of lists": (32).to_bytes(8, "little") + b'{"__metadata__":{"format":["a"]}}'[:32],
    "key twice": (33).to_bytes(8, "little") + b'{"__metadata__":{"a":"","a":""}} '[:33],
    "huge length": b"\xff" * 8 + b"{}",
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=list(FOREIGN))
def test_foreign_files_are_refused(tmp_path, data):
    with pytest.raises(ModelFormatError):
        load(tmp_path, data)


def forged(data: bytes, arrays=None, **changes) -> bytes:
    """The file with other contents, and all digests made right again: only meaning is left to check."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["__metadata__"]
    tensors = load_tensors(data)
    tensors = arrays(tensors) if arrays else tensors
    digests = {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in tensors.items()}
    header = {**header, "sha256": json.dumps(digests), **changes}
    header = {k: v for k, v in header.items() if v is not None and k != "header_sha256"}
    listed = sorted(header.items())
    header["header_sha256"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return save_tensors(tensors, metadata=header)


def without(name: str):
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


def replaced(name: str, value: np.ndarray):
    return lambda arrays: {**arrays, name: value}


def test_forging_works(tmp_path, small_file):
    assert load(tmp_path, forged(small_file)).training is not None


def training(optimizer="sgd()", losses="mean_squared_error()", metrics=(), backend="numpy") -> dict[str, str]:
    named = {"output": losses} if isinstance(losses, str) else losses
    parts = {"optimizer": optimizer, "losses": named, "metrics": list(metrics), "backend": backend}
    return {"training": json.dumps(parts)}


FORGED = {
    "array missing": {"arrays": without("dense/kernel")},
    "wrong shape": {"arrays": replaced("dense/kernel", np.zeros((2, 3), np.float32))},
    "wrong rank": {"arrays": replaced("dense/kernel", np.zeros(4, np.float32))},
    "wrong dtype": {"arrays": replaced("dense/kernel", np.zeros((2, 2)))},
    "digests missing": {"sha256": "{}"},
    "digests of others": {"sha256": '{"a": "b"}'},
    "digests no JSON": {"sha256": "{"},
    "no graph": {"graph": None},
    "empty graph": {"graph": ""},
    "other graph": {"graph": 'graph { %0 = variable("w") : float32[3] return y=%0 }'},
    "unknown op": {"graph": 'graph { %0 = input("x") : float32[N,2] %1 = evil(%0) : float32[N,2] return y=%1 }'},
    "huge variable": {"graph": 'graph { %0 = variable("w", init=0.0) : float32[99999999999,99999999] return y=%0 }'},
    "seed no number": {"seed": "os.system"},
    "seed negative": {"seed": "-1"},
    "training no JSON": {"training": "{"},
    "training a list": {"training": "[1]"},
    "training a number": {"training": "3"},
    "optimizer unknown": training(optimizer="evil()"),
    "optimizer a loss": training(optimizer="mean_squared_error()"),
    "optimizer with a text": training(optimizer='sgd(learning_rate="a")'),
    "losses a list": training(losses=["mean_squared_error()"]),
    "losses none": training(losses={}),
    "metric unknown": training(metrics=["evil"]),
    "progress a list": {"progress": "[]"},
    "progress unknown": {"progress": '{"epochs": 1}'},
    "progress negative": {"progress": '{"epoch": -1}'},
    "progress a text": {"progress": '{"epoch": "1"}'},
    "progress totals": {"progress": '{"totals": {"loss": "x"}}'},
    "digests a list": {"sha256": "[]"},
    "digests deep": {"sha256": "[" * 100_000},
    "slot of another shape": {"arrays": replaced("optimizer/learning_rate", np.zeros(7, np.float32))},
    "counter missing": {"arrays": without("optimizer/iterations")},
    "history a number": {"progress": '{"history": {"loss": 3}}'},
    "callbacks a number": {"progress": '{"callbacks": 3}'},
    "backend unknown": training(backend="evil"),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=list(FORGED))
def test_contents_that_cannot_be_are_refused(tmp_path, small_file, change):
    with pytest.raises(ModelFormatError):
        load(tmp_path, forged(small_file, **change))


def test_mutated_texts_are_refused_or_load(tmp_path, small_file):
    """Characters of graph, training and progress changed, digests made right: nothing but a ModelFormatError."""
    size = int.from_bytes(small_file[:8], "little")
    header = json.loads(small_file[8 : 8 + size])["__metadata__"]
    rng = random.Random(1)
    letters = '{}[]()%",:=<->@*0123456789abNx.e- \n'
    for i in range(400):
        key = ("graph", "training", "progress", "seed")[i % 4]
        text = list(header[key])
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text) + 1)
            text[place : place + rng.randint(0, 2)] = rng.choice(letters) * rng.randint(0, 2)
        try:
            load(tmp_path, forged(small_file, **{key: "".join(text)}))
        except ModelFormatError:
            pass
        except Exception as error:
            raise AssertionError((key, "".join(text))) from error


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fsync", "replace", "chmod", "fdopen"])
def test_a_failing_system_call_leaves_the_old_file(tmp_path, monkeypatch, name):
    model = dense_model()
    path = model.save(tmp_path / "m")
    old = path.read_bytes()
    model.state["dense/bias"] = 1.0 + np.arange(8)

    def fail(*arguments, **others):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(OSError, match="No space left"):
            model.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    model.save(path)
    assert path.read_bytes() != old


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A real limit of the system, in a child: files may not grow beyond some bytes."""
    model = dense_model()
    path = model.save(tmp_path / "m")
    old = path.read_bytes()
    code = f"""
import resource, signal, minigraph as mg
model = mg.load_model({os.fspath(path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    model.save({os.fspath(path)!r})
except OSError as error:
    print("refused", error.errno)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "refused 27\n", result.stderr
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["m"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


SAVER = """
import sys, numpy as np, minigraph as mg
from minigraph import layers
x = mg.Input((64,), name="x")
model = mg.Model(x, layers.Dense(256, name="d")(x))
i = int(sys.argv[2])
while True:
    i += 1
    model.state["d/kernel"] = np.full((64, 256), i)
    model.save(sys.argv[1])
    print(i, flush=True)
"""


def test_kills_never_leave_a_corrupt_file(tmp_path):
    path, known = tmp_path / "m", 0
    rng = random.Random(2)
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVER, os.fspath(path), str(known)], stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()  # it has saved once
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        acknowledged = [known, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line)]
        child.wait()
        child.stdout.close()
        kernel = mg.load_model(path).state["d/kernel"]
        assert (kernel == kernel[0, 0]).all() and kernel[0, 0] >= max(acknowledged)
        known = int(kernel[0, 0])
    left = [p.name for p in tmp_path.iterdir()]
    assert all(name == "m" or name.endswith(".tmp") for name in left) and known >= 10


def test_saving_from_a_callback_does_not_disturb_training(tmp_path):
    class Saver(Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.save(tmp_path / "m")

    one, two = dense_model(), dense_model()
    one.fit(X, Y, batch_size=8, verbose=0)
    two.fit(X, Y, batch_size=8, verbose=0, callbacks=[Saver()])
    assert same_bits(one.state, two.state) == []
