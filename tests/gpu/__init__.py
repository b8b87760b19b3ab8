"""The GPU backend, held to NumPy's results: on a device with `pytest -m gpu`, on the stand-in elsewhere."""
