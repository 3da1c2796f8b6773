"""§4.5-4.6: the report of finished runs. Read: calibration_share (r), figures, tables, report."""
