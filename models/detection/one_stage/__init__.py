"""One-stage detectors on a feature pyramid: RetinaNet and FCOS."""
