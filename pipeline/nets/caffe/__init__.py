"""Files of Caffe's: texts of nets, and weights."""
