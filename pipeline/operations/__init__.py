"""What looks after the pipeline: health, doctor, verify, why, report, prune, figures for Prometheus."""
