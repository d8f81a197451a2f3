"""Caffe's solvers on Caffe's own files, without Caffe: what `caffe train` computes, to the digit.

The words are Caffe's.  A solver takes steps, and a step is one iteration: `iter_size` batches go through the training
net, the learned blobs are updated once, and then the solver may test, display and write a snapshot.
"""
