"""Where the random numbers of a training come from: Caffe's own stream, or one of ours where no seed is given."""
