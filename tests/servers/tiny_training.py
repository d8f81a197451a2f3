"""A training that is over in seconds: a net of one layer on 64 rows of numbers in HDF5."""

from __future__ import annotations

import io

import numpy as np

NET = """
name: "tiny"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
        hdf5_data_param { source: "train" batch_size: 16 shuffle: true } }
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
        hdf5_data_param { source: "test" batch_size: 16 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""


def solver(iterations: int, snapshot: int) -> str:
    return f"""
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: {iterations} display: {min(100, snapshot // 4 or 1)}
snapshot: {snapshot} test_iter: 4 test_interval: {snapshot} random_seed: 7
"""


def rows(seed: int = 0) -> bytes:
    """An HDF5 file of 64 rows of 4 kinds."""
    import h5py

    draws = np.random.default_rng(seed)
    label = np.arange(64) % 4
    data = draws.normal(size=(64, 32)) + np.eye(32)[label] * 3
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["data"] = data.astype(np.float32)
        file["label"] = label.astype(np.float32)
    return held.getvalue()
