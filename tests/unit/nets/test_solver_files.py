"""The forms of what Caffe's solvers read and write, held against files of Caffe's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import text_format

from pipeline.codec import caffe_pb2

TRAINING = Path(__file__).parents[2] / "golden" / "training"


def test_a_solver_of_caffes_is_read_and_lacks_nothing() -> None:
    text = (TRAINING / "bn_nesterov_step.solver.prototxt").read_text()
    found = text_format.Parse(text, caffe_pb2.SolverParameter())
    assert (found.net, found.type, found.lr_policy) == ("bn_nesterov_step.train_val.prototxt", "Nesterov", "step")
    assert (found.stepsize, found.max_iter, found.random_seed) == (15, 50, 1701)
    assert np.float32(found.gamma) == np.float32(0.1)
    assert found.solver_mode == caffe_pb2.SolverParameter.CPU


def test_what_a_solver_does_not_say_is_as_caffe_has_it() -> None:
    solver = caffe_pb2.SolverParameter()
    assert (solver.type, solver.regularization_type) == ("SGD", "L2")
    assert (solver.iter_size, solver.average_loss, solver.test_interval, solver.snapshot) == (1, 1, 0, 0)
    assert (solver.test_initialization, solver.snapshot_after_train, solver.layer_wise_reduce) == (True, True, True)
    assert (solver.snapshot_diff, solver.debug_info, solver.test_compute_loss) == (False, False, False)
    assert (solver.random_seed, solver.device_id, solver.clip_gradients) == (-1, 0, -1.0)
    assert solver.solver_mode == caffe_pb2.SolverParameter.GPU
    assert solver.snapshot_format == caffe_pb2.SolverParameter.BINARYPROTO
    for name, value in (("delta", 1e-8), ("momentum2", 0.999), ("rms_decay", 0.99)):
        assert np.float32(getattr(solver, name)) == np.float32(value)
    assert sorted(field.number for field in solver.DESCRIPTOR.fields) == list(range(1, 43))


def test_a_solvers_state_is_read_and_written_to_the_byte() -> None:
    content = (TRAINING / "bn_nesterov_step_iter_10.solverstate").read_bytes()
    state = caffe_pb2.SolverState.FromString(content)
    assert (state.iter, state.current_step) == (10, 0)
    assert state.learned_net == "bn_nesterov_step_iter_10.caffemodel"
    assert [tuple(blob.shape.dim) for blob in state.history][:2] == [(8, 3, 3, 3), (8,)]
    assert state.SerializeToString() == content


def test_a_record_of_a_database_is_read() -> None:
    content = bytes.fromhex("0803 1002 1801 2206 000102fdfeff 2807 3500008040 3801".replace(" ", ""))
    datum = caffe_pb2.Datum.FromString(content)
    assert (datum.channels, datum.height, datum.width, datum.label, datum.encoded) == (3, 2, 1, 7, True)
    assert datum.data == bytes([0, 1, 2, 253, 254, 255])
    assert list(datum.float_data) == [4.0]
